"""The files of a measurement: JSON with environment, options and rows, and a figure."""

import dataclasses
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from rich.console import Console

from experiments.config.errors import UsageError
from experiments.files import write_json
from experiments.report.plotting import save
from experiments.runs.environment import environment
from experiments.runs.run_dir import refuse_unwritable


def check(options: Any) -> None:
    """Report errors that can be known before anything is measured.

    Raises:
      UsageError: if the folder cannot be written to, or a count is below 1.
    """
    refuse_unwritable(options.out)
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if type(value) is int and value < 1:
            raise UsageError(f"--{field.name} {value}: expected at least 1")


def write(options: Any, name: str, results: list[dict], figure: Figure, console: Console) -> None:
    """Write `name.json` and `name.png` to the folder given in the options."""
    out: Path = options.out
    report = {"environment": environment(), "options": _plain(options), "results": results}
    write_json(out / f"{name}.json", report)
    save(figure, out / f"{name}.png")
    plt.close(figure)
    console.print(f"written to {out}/{name}.json and {name}.png")


def _plain(options: Any) -> dict:
    return {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(options).items()}
