"""The command: `bench` measures step costs, duty and growth; `bench PART` one of them, or the Pareto front."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from experiments.bench import duty, growth, pareto, steps
from experiments.config.errors import pick
from experiments.config.parse import parse

PARTS = {"steps": steps, "duty": duty, "growth": growth, "pareto": pareto}


@dataclasses.dataclass(frozen=True)
class Options:
    """Step costs, then duty, then growth; each alone, and `pareto`, by its name after `bench`."""

    torch: bool = False
    """Also time steps written in PyTorch (extra `torch`)."""
    out: Path = Path("runs/bench")
    """Folder of the JSONs and the pictures."""


def main(argv: Sequence[str], console: Console) -> None:
    """Measure what the words ask for."""
    if argv and not argv[0].startswith("-"):
        part = pick("part", argv[0], PARTS)
        part.main(parse(part.Options, argv[1:], f"bench {argv[0]}"), console)
        return
    options = parse(Options, argv, "bench [PART]")
    steps.main(steps.Options(torch=options.torch, out=options.out), console)
    duty.main(duty.Options(out=options.out), console)
    growth.main(growth.Options(out=options.out), console)
