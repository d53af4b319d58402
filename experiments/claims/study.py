"""Trainings for the claims that need them: arms, settings chosen on validation data, runs kept in folders.

A claim names a `Setting` (data, network, length) and its arms. `choose` picks the setting of each arm, `train` trains
what was chosen on fresh seeds; the same configuration is trained once, whichever claim asks for it, and an interrupted
claim goes on where it stopped.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from rich.console import Console

from experiments.claims.claim import Check, Finding, Line, Rows, Trainings
from experiments.config.errors import Diverged
from experiments.config.schema import Config
from experiments.report.stats import below, show
from experiments.runs import run_dir
from experiments.training import sweep
from experiments.training.experiment import prepare

Scale = Literal["smoke", "full", "paper"]
CHOOSING_SEED = 100
"""Settings are chosen on seeds from here on."""
FRESH_SEED = 200
"""Verdicts are given on seeds from here on."""


@dataclasses.dataclass(frozen=True)
class Lab:
    """Where runs are kept, where data are found, where progress is shown; the folders of the runs that were used."""

    folder: Path
    data_dir: Path | None
    console: Console
    used: set[Path] = dataclasses.field(default_factory=set)


class Setting(NamedTuple):
    """What all arms of a comparison share.

    Attributes:
      name: for tables and folders.
      base: data, network, length.
      seeds: runs of what was chosen.
      choosing_seeds: runs of each candidate.
      candidates: how many values are tried of what is chosen.
    """

    name: str
    base: Config
    seeds: int
    choosing_seeds: int
    candidates: int = 3


class Trained(NamedTuple):
    """The runs of one configuration, in the order of their seeds."""

    config: Config
    runs: list[run_dir.Run]

    def result(self, key: str) -> np.ndarray:
        """One number a run, [seeds], or several, [seeds, n]."""
        return np.array([run.result[key] for run in self.runs], float)

    def metric(self, key: str) -> np.ndarray:
        """One number an epoch and run, [epochs, seeds]; NaN where there is none."""
        return np.array([[line[key] for line in run.metrics] for run in self.runs], float).T


def method(base: Config, name: str, **options: Any) -> Config:
    """The base with another method; options as on the command line.

    Example:
      >>> method(Config(), "pugd", radius="cosine:2.0:0.0").title
      'pugd(radius=cosine:2.0:0.0)'
    """
    return dataclasses.replace(base, method=name, method_options=tuple((k, str(v)) for k, v in options.items()))


def grid(config: Config, **candidates: Sequence[Any]) -> list[Config]:
    """The configuration with every combination of the candidates of its fields.

    Example:
      >>> [c.lr for c in grid(Config(), lr=("0.1", "0.2"))]
      ['0.1', '0.2']
    """
    combinations = itertools.product(*candidates.values())
    return [dataclasses.replace(config, **dict(zip(candidates, values, strict=True))) for values in combinations]


def stretch(config: Config, factor: float) -> Config:
    """Longer by a factor; its schedules stretch with it, as they speak of fractions of the training."""
    return dataclasses.replace(config, epochs=round(factor * config.epochs))


def try_out(setting: Setting, arms: Mapping[str, Sequence[Config]], lab: Lab) -> dict[str, list[Trained]]:
    """Train every candidate of every arm on the seeds for choosing; one that diverges is out.

    Raises:
      ValueError: if the arms differ in the number of their candidates.
      Diverged: if all candidates of an arm do.
    """
    if len({len(candidates) for candidates in arms.values()}) > 1:
        raise ValueError(f"arms { ({k: len(v) for k, v in arms.items()}) }: expected as many candidates for each")
    everything = [config for candidates in arms.values() for config in candidates]
    found = iter(_ensure(setting, everything, CHOOSING_SEED, setting.choosing_seeds, lab, (Diverged,)))
    tried = {label: [next(found) for _ in candidates] for label, candidates in arms.items()}
    left = {label: [t for t in trained if len(t.runs) == setting.choosing_seeds] for label, trained in tried.items()}
    lost = [label for label, trained in left.items() if not trained]
    if lost:
        raise Diverged(
            f"{setting.name}: every candidate of {', '.join(lost)} diverged; the setting wants smaller rates"
        )
    return left


def validation(trained: Trained) -> float:
    """Validation accuracy after the last epoch, mean over seeds: what settings are chosen by."""
    return float(trained.metric("val_accuracy")[-1].mean())


def best(candidates: Sequence[Trained]) -> Config:
    """The candidate with the highest validation accuracy, the first of equals."""
    return max(candidates, key=validation).config


def trainings(lab: Lab) -> Trainings | None:
    """What a finding rests on, from the folders of its runs; None where nothing was trained."""
    if not lab.used:
        return None
    about, results = (
        [json.loads((place / name).read_text()) for place in sorted(lab.used)] for name in ("run.json", "result.json")
    )
    seconds = sum(result["seconds"] + result["compile_seconds"] for result in results)
    return Trainings(len(results), seconds, sorted({str(run["commit"]) for run in about}))


def choose(setting: Setting, arms: Mapping[str, Sequence[Config]], lab: Lab) -> dict[str, Config]:
    """The best candidate of each arm; where there is one each, nothing is trained."""
    if all(len(candidates) == 1 for candidates in arms.values()):
        return {label: candidates[0] for label, candidates in arms.items()}
    return {label: best(candidates) for label, candidates in try_out(setting, arms, lab).items()}


def across(settings: Sequence[Setting], find: Callable[[Setting], Finding], lab: Lab) -> Finding:
    """What is found in each setting, as one finding; missing data are met before anything is trained."""
    for setting in settings:
        prepare(dataclasses.replace(setting.base, data_dir=lab.data_dir))
    found = [find(setting) for setting in settings]
    return Finding(
        rows={name: row for part in found for name, row in part.rows.items()},
        panels=[panel for part in found for panel in part.panels],
        checks=[check for part in found for check in part.checks],
        reading=" ".join(part.reading for part in found),
    )


def train(setting: Setting, arms: Mapping[str, Config], first_seed: int, lab: Lab) -> dict[str, Trained]:
    """Train each arm on the seeds of the verdict."""
    found = _ensure(setting, list(arms.values()), first_seed, setting.seeds, lab)
    return dict(zip(arms, found, strict=True))


def _ensure(
    setting: Setting,
    configs: Sequence[Config],
    first_seed: int,
    seeds: int,
    lab: Lab,
    tolerated: tuple[type[Exception], ...] = (),
) -> list[Trained]:
    """The runs of the configurations, trained as far as they are not there; those that fail as tolerated are out."""
    root = lab.folder / setting.name
    named = [
        dataclasses.replace(
            config,
            label=described(config, setting.base),
            first_seed=first_seed,
            seeds=seeds,
            resume=True,
            data_dir=lab.data_dir,
        )
        for config in configs
    ]
    folders = [[run_dir.folder_of(root, c, first_seed + i) for i in range(seeds)] for c in named]
    pairs = zip(named, folders, strict=True)
    missing = {c: root for c, places in pairs if not all(run_dir.complete(place, c) for place in places)}
    if missing:
        sweep.run([(root, config) for config, root in missing.items()], lab.console, tolerated)
    ended = [[place for place in places if (place / "result.json").exists()] for places in folders]
    lab.used.update(place for places in ended for place in places)
    return [
        Trained(config, [run for place in places for run in run_dir.read(place)])
        for config, places in zip(configs, ended, strict=True)
    ]


def accuracy(trained: Trained) -> np.ndarray:
    """Test accuracy after the last epoch, in percent."""
    return 100 * trained.result("last_test_accuracy")


def cost(trained: Trained, setting: Setting) -> np.ndarray:
    """Gradient evaluations, in those of plain training of the setting's length."""
    steps = trained.metric("step")[0] * setting.base.epochs
    return trained.result("gradient_evaluations") / steps


def rows(setting: Setting, trained: Mapping[str, Trained], reference: str) -> Rows:
    """A row for each arm; differences are paired by seed."""
    return {
        f"{setting.name}: {label}": {
            "cost": list(cost(arm, setting)),
            "test %": list(accuracy(arm)),
            f"against {reference}": list(accuracy(arm) - accuracy(trained[reference])),
            "test % at best validation": list(100 * arm.result("test_accuracy")),
            "training %": list(100 * arm.metric("train_accuracy")[-1]),
            **_agreement(arm),
            "seconds": list(arm.result("seconds")),
        }
        for label, arm in trained.items()
    }


def _agreement(arm: Trained) -> dict[str, list[float]]:
    """Cosine of the old and the new gradient, mean over the epochs in which there were two."""
    cosine = arm.metric("cosine")
    if np.isnan(cosine).all(axis=0).any():
        return {}
    return {"cos(g, g*)": list(np.nanmean(cosine, axis=0))}


def above(condition: str, a: Trained, b: Trained) -> Check:
    """Whether `a` ends above `b`: the 95 % interval of the paired difference lies over 0."""
    return Check(condition, below(accuracy(b), accuracy(a)), f"{show(accuracy(a) - accuracy(b))} points")


def no_worse(condition: str, a: Trained, b: Trained, margin: float) -> Check:
    """Whether `a` loses less than a margin against `b`: the 95 % interval of the difference lies over -margin."""
    lead = accuracy(a) - accuracy(b)
    return Check(condition, below(accuracy(b) - margin, accuracy(a)), f"{show(lead)} points")


def curves(
    trained: Mapping[str, Trained], key: str = "val_accuracy", x: str = "epoch", factor: float = 100
) -> list[Line]:
    """A metric over the training, against epochs or gradient evaluations."""
    return [
        Line(label, list(arm.metric(x).mean(axis=1)), [list(values) for values in factor * arm.metric(key)])
        for label, arm in trained.items()
    ]


def described(config: Config, base: Config) -> str:
    """The method and what else sets a configuration apart from the base; equal ones share a folder by it.

    Example:
      >>> described(stretch(method(Config(), "sam", radius=0.1), 2), Config())
      'sam(radius=0.1) epochs=40'
    """
    apart = [
        f"{field.name}={getattr(config, field.name)}"
        for field in dataclasses.fields(Config)
        if not field.name.startswith(("method", "label")) and getattr(config, field.name) != getattr(base, field.name)
    ]
    return " ".join([dataclasses.replace(config, label="").title, *apart])
