"""The command: `bench` measures step costs, active fractions, growth and compile time; `bench PART` one of them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from experiments.bench import compilation, fraction, growth, steps
from experiments.config.errors import pick
from experiments.config.parse import parse

PARTS = {"steps": steps, "fraction": fraction, "growth": growth, "compilation": compilation}


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure step costs, active fractions, growth and compile time: all, or one by its name after `bench`."""

    torch: bool = False
    """Also time steps written in PyTorch (extra `torch`)."""
    out: Path = Path("runs/bench")
    """Folder for the JSON files and the figures."""


def main(argv: Sequence[str], console: Console) -> None:
    """Run the benchmarks that the arguments name."""
    if argv and not argv[0].startswith("-"):
        part = pick("part", argv[0], PARTS)
        part.main(parse(part.Options, argv[1:], f"bench {argv[0]}"), console)
        return
    options = parse(Options, argv, "bench [PART]")
    steps.main(steps.Options(torch=options.torch, out=options.out), console)
    fraction.main(fraction.Options(out=options.out), console)
    growth.main(growth.Options(out=options.out), console)
    compilation.main(compilation.Options(out=options.out), console)
