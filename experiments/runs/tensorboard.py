"""The lines of `metrics.jsonl` as TensorBoard scalars."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter


@contextlib.contextmanager
def scalars(folder: Path, first_epoch: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that writes the numbers of an epoch; earlier values from `first_epoch` on are purged."""
    with SummaryWriter(str(folder), purge_step=first_epoch if first_epoch > 1 else None) as writer:

        def show(line: dict[str, Any]) -> None:
            for name, value in line.items():
                if name != "epoch" and value is not None:
                    writer.add_scalar(name, value, line["epoch"])
            writer.flush()

        yield show
