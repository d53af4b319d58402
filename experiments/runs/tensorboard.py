"""The lines of `metrics.jsonl` as TensorBoard scalars, and at the end settings and scores for HPARAMS."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from experiments.runs.observer import Observer, numbers


@contextlib.contextmanager
def scalars(folder: Path, first_epoch: int, settings: dict[str, Any]) -> Iterator[Observer]:
    """Writes the numbers of every epoch and the result; earlier values from `first_epoch` on are purged."""
    with SummaryWriter(str(folder), purge_step=first_epoch if first_epoch > 1 else None) as writer:
        file = writer.file_writer
        assert file is not None

        def write(found: dict[str, float], step: int) -> None:
            for name, value in found.items():
                writer.add_scalar(name, value, step)
            writer.flush()

        def result(found: dict[str, Any]) -> None:
            scores = {f"result/{name}": value for name, value in numbers(found).items()}
            for summary in hparams(settings, scores):
                file.add_summary(summary)
            write(scores, settings["epochs"])

        yield Observer(lambda line: write(numbers(line), line["epoch"]), result)
