"""Runs grouped by setting and method, and a row of numbers for each."""

from typing import NamedTuple

import numpy as np

from experiments.config.errors import UsageError
from experiments.report.stats import interval, standard_deviation
from experiments.runs.records import Run
from experiments.runs.run_dir import differing

COPIES = {"cifar10_jpeg": "CIFAR-10 (JPEG q75 copy)", "tiny_imagenet_32": "Tiny ImageNet at 32x32"}
"""Copies of data sets whose results are not exactly comparable with published ones."""


class Accuracy(NamedTuple):
    """Accuracy in percent over seeds: mean, standard deviation, half the 95 % confidence interval of the mean."""

    mean: float
    std: float
    ci95: float


class Row(NamedTuple):
    """One method in one setting, over its seeds."""

    title: str
    seeds: int
    test: Accuracy
    last: Accuracy
    evaluations: float
    seconds: float
    ratio: float
    images_per_second: float


def groups(found: list[Run]) -> dict[str, dict[str, list[Run]]]:
    """Runs by setting, then by title, each in the order in which they were queued.

    Raises:
      UsageError: if runs of one title differ in more than their seed, or not even in that.
    """
    sorted_out: dict[str, dict[str, list[Run]]] = {}
    for run in found:
        row = sorted_out.setdefault(run.group, {}).setdefault(run.title, [])
        other = differing(row[0].config, run.config) if row else []
        if other:
            what = f"{run.folder}: has another {', '.join(other)} than {row[0].folder}, in one row of the table"
            raise UsageError(f"{what}; move one of them to another folder")
        same = next((there.folder for there in row if there.seed == run.seed), None)
        if same is not None:
            what = f"{run.folder}: is seed {run.seed} of {run.title!r} again, as {same}, in one row of the table"
            raise UsageError(f"{what}; move one of them to another folder")
        row.append(run)
    return sorted_out


def rows(methods: dict[str, list[Run]]) -> list[Row]:
    """One row for each method; times are relative to the first one."""
    reference = _median(next(iter(methods.values())), "seconds")
    return [
        Row(
            title,
            len(found),
            _percent(found, "test_accuracy"),
            _percent(found, "last_test_accuracy"),
            _median(found, "gradient_evaluations"),
            _median(found, "seconds"),
            _median(found, "seconds") / reference,
            _median(found, "images_per_second"),
        )
        for title, found in methods.items()
    ]


def title(setting: str, methods: dict[str, list[Run]]) -> str:
    """The folder of the setting and its description."""
    return f"{setting}: {describe(methods)}".removeprefix(": ")


def describe(methods: dict[str, list[Run]]) -> str:
    """The settings that all of these methods share, in a few words."""
    config = next(iter(methods.values()))[0].config
    words = [COPIES.get(config["dataset"], config["dataset"]), config["model"]]
    words += [f"{config['train_size']} examples"] if config["train_size"] else []
    words += [f"{name} {config[name]}" for name in ("noise", "imbalance") if config[name] != "none"]
    return ", ".join(words)


def _percent(found: list[Run], key: str) -> Accuracy:
    values = 100 * np.array([run.result[key] for run in found])
    return Accuracy(values.mean(), float(standard_deviation(values)), interval(values).half)


def _median(found: list[Run], key: str) -> float:
    return float(np.median([run.result.get(key, np.nan) for run in found]))
