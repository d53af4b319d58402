"""The findings of a claim: a table over seeds, panels to draw, and the conditions that decide its verdict."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from experiments.claims.conditions import Condition
from experiments.config.errors import UsageError, first_line
from experiments.files import write_json

Scale = Literal["smoke", "full", "paper"]
Rows = dict[str, dict[str, list[float]]]
"""Row -> column -> one value per seed."""


class Line(NamedTuple):
    """A curve: `y[i]` holds the values of all seeds at `x[i]`. A single value stands for theory and is drawn dashed."""

    label: str
    x: list[float]
    y: list[list[float]]


class Panel(NamedTuple):
    """One pair of axes; `log` names the logarithmic ones: "", "x", "y" or "xy".

    In a panel of kind "points", each line is a row with its name on the left and its first values along the horizontal
    axis. In a panel of kind "scatter", each line is one point.
    """

    title: str
    x: str
    y: str
    lines: list[Line]
    log: str = ""
    kind: Literal["curves", "points", "scatter"] = "curves"


class Choice(NamedTuple):
    """The hyperparameters chosen for a variant in a setting, the grid, and the accuracies they were chosen by.

    `on_edge` names the hyperparameters whose choice is still on an edge of the extended grid. `validation` holds the
    accuracy of every choosing seed, in percent, and `by_rate` that of each learning rate with the other hyperparameters
    as chosen, [rates][seeds]; a rate at which a run diverged has none.
    """

    setting: str
    variant: str
    tried: dict[str, list[float]]
    chosen: dict[str, float]
    on_edge: list[str]
    validation: list[float]
    by_rate: Sequence[list[float]] = ()


class Power(NamedTuple):
    """The seeds of a verdict: how many the spread of the choosing runs requires, and the maximum."""

    setting: str
    spread: float
    wanted: int
    most: int


class Finding(NamedTuple):
    """The results of one run of a claim; `reading` describes the numbers in words."""

    rows: Rows
    panels: list[Panel]
    conditions: list[Condition]
    reading: str
    choices: Sequence[Choice] = ()
    powers: Sequence[Power] = ()


class Trainings(NamedTuple):
    """The runs behind a finding: number, total seconds, and the commits and machines that produced them.

    `machines` maps device, JAX version and compiler flags to a number of runs; older files do not have it.
    """

    count: int
    seconds: float
    commits: list[str]
    machines: dict[str, int] | None = None

    @property
    def where(self) -> str:
        """The machines, each with its number of runs, as the end of a sentence; empty for an older file."""
        return "".join(f", {count} on {machine}" for machine, count in (self.machines or {}).items())


class Saved(NamedTuple):
    """A finding with everything needed to print it again; `environment` as in the folder of a run."""

    name: str
    command: str
    scale: str
    seconds: float
    trainings: Trainings | None
    environment: dict[str, Any]
    finding: Finding


def save(saved: Saved, folder: Path) -> None:
    """Write `<name>.json`."""
    write_json(folder / f"{saved.name}.json", _plain(saved))


def load(path: Path) -> Saved:
    """Read a file written by `save`.

    Raises:
      UsageError: if it is another file.
    """
    try:
        return _saved(json.loads(path.read_text(), parse_constant=float))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        what = f"{path}: no finding of `claims` ({type(error).__name__}: {first_line(error)})"
        raise UsageError(f"{what}; name another folder, or move the file away") from error


def _saved(content: dict[str, Any]) -> Saved:
    finding, trainings = content.pop("finding"), content.pop("trainings")
    panels = [
        Panel(**{**panel, "lines": [Line(**_floats(line)) for line in panel["lines"]]}) for panel in finding["panels"]
    ]
    conditions = [Condition(**_floats(condition)) for condition in finding["conditions"]]
    return Saved(
        **content,
        trainings=trainings and Trainings(**trainings),
        finding=Finding(
            _floats(finding["rows"]),
            panels,
            conditions,
            finding["reading"],
            [Choice(**_floats(choice)) for choice in finding.get("choices", ())],
            [Power(**power) for power in finding.get("powers", ())],
        ),
    )


def _plain(x: Any) -> Any:
    """Named tuples as objects, numbers with five digits, and null for numbers that are not finite."""
    if hasattr(x, "_asdict"):
        return {k: _plain(v) for k, v in x._asdict().items()}
    if isinstance(x, dict):
        return {k: _plain(v) for k, v in x.items()}
    if isinstance(x, list | tuple | np.ndarray):
        return [_plain(v) for v in x]
    if isinstance(x, bool | np.bool_):
        return bool(x)
    if isinstance(x, int):
        return x
    if isinstance(x, float | np.number):
        return float(f"{float(x):.5g}") if np.isfinite(x) else None
    return x


def _floats(x: Any) -> Any:
    """Null back to NaN."""
    if isinstance(x, dict):
        return {k: _floats(v) for k, v in x.items()}
    if isinstance(x, list):
        return [_floats(v) for v in x]
    return float("nan") if x is None else x
