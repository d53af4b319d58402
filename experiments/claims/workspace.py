"""Trainings of studies: runs that are trained once, kept in folders, and chosen on validation data."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console

from experiments.claims.claim import Trainings
from experiments.claims.variants import described
from experiments.config.errors import Diverged
from experiments.config.schema import Config
from experiments.runs import run_dir
from experiments.training import sweep

CHOOSING_SEED = 100
"""Hyperparameters are chosen on seeds from here on."""
FRESH_SEED = 200
"""Verdicts are given on seeds from here on."""


@dataclasses.dataclass(frozen=True)
class Workspace:
    """Where runs are kept, data are found and progress is shown; and the folders of the runs that were used."""

    folder: Path
    data_dir: Path | None
    console: Console
    used: set[Path] = dataclasses.field(default_factory=set)


class Setting(NamedTuple):
    """What all variants of a comparison share.

    Attributes:
      name: for tables and folders.
      base: data, network, length.
      seeds: runs of what was chosen.
      choosing_seeds: runs of each candidate.
      candidates: how many values are tried of what is chosen.
      optional: whether it is left out where no data folder is named.
    """

    name: str
    base: Config
    seeds: int
    choosing_seeds: int
    candidates: int = 3
    optional: bool = False


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

    @property
    def accuracy(self) -> np.ndarray:
        """Test accuracy after the last epoch, in percent, [seeds]."""
        return 100 * self.result("last_test_accuracy")

    @property
    def rate(self) -> str:
        """The learning rate at its height, as it is written."""
        lr = self.config.parts.lr
        return f"{lr.arguments[0] if hasattr(lr, 'arguments') else lr:g}"


def train(
    setting: Setting, variants: Mapping[str, Config], first_seed: int, workspace: Workspace
) -> dict[str, Trained]:
    """Train each variant on the seeds of the verdict."""
    found = _ensure(setting, list(variants.values()), first_seed, setting.seeds, workspace)
    return dict(zip(variants, found, strict=True))


def try_out(
    setting: Setting, variants: Mapping[str, Sequence[Config]], workspace: Workspace
) -> dict[str, list[Trained]]:
    """Train every candidate of every variant on the seeds for choosing; one that diverges is left out.

    Raises:
      ValueError: if the variants differ in the number of their candidates.
      Diverged: if all candidates of a variant do.
    """
    counts = {label: len(candidates) for label, candidates in variants.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"variants {counts}: expected as many candidates for each")
    everything = [config for candidates in variants.values() for config in candidates]
    found = iter(_ensure(setting, everything, CHOOSING_SEED, setting.choosing_seeds, workspace, (Diverged,)))
    tried = {label: [next(found) for _ in candidates] for label, candidates in variants.items()}
    left = {label: [t for t in trained if len(t.runs) == setting.choosing_seeds] for label, trained in tried.items()}
    lost = [label for label, trained in left.items() if not trained]
    if lost:
        raise Diverged(f"{setting.name}: every candidate of {', '.join(lost)} diverged; use smaller learning rates")
    return left


def validation(trained: Trained) -> float:
    """Validation accuracy after the last epoch, mean over seeds: what hyperparameters are chosen by."""
    return float(trained.metric("val_accuracy")[-1].mean())


def choose(setting: Setting, variants: Mapping[str, Sequence[Config]], workspace: Workspace) -> dict[str, Config]:
    """The candidate of each variant with the highest validation accuracy, the first of equals.

    Where each has a single candidate nothing is trained.
    """
    if all(len(candidates) == 1 for candidates in variants.values()):
        return {label: candidates[0] for label, candidates in variants.items()}
    tried = try_out(setting, variants, workspace)
    return {label: max(trained, key=validation).config for label, trained in tried.items()}


def trainings(workspace: Workspace) -> Trainings | None:
    """What a finding rests on, from the folders of its runs; None where nothing was trained."""
    if not workspace.used:
        return None
    about, results = (
        [json.loads((place / name).read_text()) for place in sorted(workspace.used)]
        for name in ("run.json", "result.json")
    )
    seconds = sum(result["seconds"] + result["compile_seconds"] for result in results)
    return Trainings(len(results), seconds, sorted({str(run["commit"]) for run in about}))


def _ensure(
    setting: Setting,
    configs: Sequence[Config],
    first_seed: int,
    seeds: int,
    workspace: Workspace,
    tolerated: tuple[type[Exception], ...] = (),
) -> list[Trained]:
    """The runs of the configurations, trained where they are missing; those that fail as tolerated are left out."""
    root = workspace.folder / setting.name
    common = {"first_seed": first_seed, "seeds": seeds, "resume": True, "data_dir": workspace.data_dir}
    named = [dataclasses.replace(c, label=described(c, setting.base), **common) for c in configs]
    folders = [[run_dir.folder_of(root, c, first_seed + i) for i in range(seeds)] for c in named]
    pairs = zip(named, folders, strict=True)
    missing = {c: root for c, places in pairs if not all(run_dir.complete(place, c) for place in places)}
    if missing:
        sweep.run([(root, config) for config, root in missing.items()], workspace.console, tolerated)
    ended = [[place for place in places if (place / "result.json").exists()] for places in folders]
    workspace.used.update(place for places in ended for place in places)
    return [
        Trained(config, [run for place in places for run in run_dir.read(place)])
        for config, places in zip(configs, ended, strict=True)
    ]
