"""Measure numbers of the README again: `make reproduce NUMBER=pugd`.

These are the rows of the demo's table. An accuracy agrees if the 95 % interval of the difference of the two means
(Student's t for each, squares added) contains 0; gradient evaluations agree if they are equal. Times are not measured
again: they are relative to those of SGD in the same run.
"""

import dataclasses
import re
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from scipy import stats

from experiments.cli import demo
from experiments.config.errors import UsageError, pick
from experiments.config.schema import Config
from experiments.report.rows import Accuracy, Row, rows
from experiments.runs import records, run_dir
from experiments.training import sweep

README = Path(__file__).parents[2] / "README.md"
SETTING = "noisy-labels"
COLUMNS = ("chosen", "last epoch")


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure a number of the README again and report whether the two agree."""

    number: Annotated[str, tyro.conf.Positional] = "list"
    """A row of the README's table, or `list`."""
    out: Path = Path("runs/reproduce")
    """Folder for the runs; its content is replaced."""


def main(options: Options, console: Console) -> None:
    """Run the command."""
    configs = {_name(config.label): config for config in demo.METHODS}
    if options.number == "list":
        return console.print("\n".join(configs))
    config = pick("number", options.number, configs)
    *written, evaluations = _written(config.label)
    row = _measured(dataclasses.replace(config, noise=demo.NOISY[SETTING]), options.out, console)
    for column, old, new in zip(COLUMNS, written, (row.test, row.last), strict=True):
        said = "agree" if _agree(old, new, config.seeds) else "DO NOT AGREE"
        there, here = _shown(old, config.seeds), _shown(new, config.seeds)
        line = f"{config.label}, {column}: README {there}, measured {here}: {said}"
        console.print(line, highlight=False, soft_wrap=True)
    said = "agree" if evaluations == row.evaluations else "DO NOT AGREE"
    line = f"{config.label}, gradient evaluations: README {evaluations}, measured {row.evaluations:g}: {said}"
    console.print(line, highlight=False, soft_wrap=True)


def _name(label: str) -> str:
    return re.sub(r"\W+", "-", label.lower())


def _written(label: str) -> tuple[Accuracy, Accuracy, int]:
    """Mean and standard deviation of both accuracies in the README, and the gradient evaluations."""
    row = re.search(rf"^\| {re.escape(label)} \|(.+)$", README.read_text(), re.MULTILINE)
    number = r"([\d.]+) ± ([\d.]+)"
    found = re.match(rf" {number} \| {number} \| (\d+) \|", row.group(1)) if row else None
    if found is None:
        raise UsageError(f"{README}: no row {label!r} with {' and '.join(COLUMNS)}; restore the table of the demo")
    *numbers, evaluations = map(float, found.groups())
    chosen, last = (Accuracy(mean, std, 0.0) for mean, std in (numbers[:2], numbers[2:]))
    return chosen, last, int(evaluations)


def _measured(config: Config, out: Path, console: Console) -> Row:
    run_dir.remove(out / SETTING, config)
    sweep.run([(out / SETTING, config)], console)
    found = records.read(run_dir.folder_of(out / SETTING, config, 0).parent)
    (row,) = rows({config.label: found})
    return row


def _half(accuracy: Accuracy, seeds: int) -> float:
    """Half of the 95 % interval of the mean."""
    return float(stats.t.ppf(0.975, seeds - 1) * accuracy.std / np.sqrt(seeds))


def _agree(one: Accuracy, two: Accuracy, seeds: int) -> bool:
    return abs(one.mean - two.mean) <= np.hypot(_half(one, seeds), _half(two, seeds))


def _shown(accuracy: Accuracy, seeds: int) -> str:
    return f"{accuracy.mean:.1f} ± {_half(accuracy, seeds):.1f}"
