"""A claim about trained networks as one record: settings, variants, success criteria, table, panels, summary.

`run` chooses the hyperparameters of every variant on validation data, trains the choices on fresh seeds, and judges
them. A configuration is trained once, whichever study asks for it; an interrupted study continues where it stopped.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.claims import conditions
from experiments.claims.claim import Finding, Line, Panel, Rows, Scale
from experiments.claims.conditions import Condition, Kind
from experiments.claims.workspace import Setting, Trained, Workspace, choose, train, try_out, validation
from experiments.config.schema import Config
from experiments.training.experiment import prepare

MARGIN = 1.0
"""The smallest difference of test accuracies that is of interest, in points."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The trained variants of one setting; `outcome["SGD"]` is one of them."""

    setting: Setting
    variants: Mapping[str, Trained]
    first_seed: int
    workspace: Workspace

    def __getitem__(self, label: str) -> Trained:
        """The variant of that name."""
        return self.variants[label]

    def only(self, *labels: str) -> dict[str, Trained]:
        """Some of the variants."""
        return {label: self.variants[label] for label in labels}

    def named(self, statement: str) -> str:
        """The statement, named after the setting."""
        return f"{self.setting.name}: {statement}"

    def above(self, statement: str, a: str, b: str, kind: Kind = "paper", least: float = 0.0) -> Condition:
        """`a` ends above `b`, in test accuracy after the last epoch; with `least`, by more than that many points."""
        margin = 0.0 if least else MARGIN
        one, two = self[a].accuracy, self[b].accuracy
        return conditions.above(self.named(statement), one, two, margin=margin, least=least, kind=kind, unit="points")

    def within(self, statement: str, a: str, b: str, kind: Kind = "paper") -> Condition:
        """`a` ends within the margin of `b` or above it."""
        one, two = self[a].accuracy, self[b].accuracy
        return conditions.within(self.named(statement), one, two, margin=MARGIN, kind=kind, unit="points")

    def preferred(self, *labels: str) -> str:
        """The variant with the highest validation accuracy on the seeds for choosing."""
        tried = try_out(self.setting, {label: [self[label].config] for label in labels}, self.workspace)
        return max(labels, key=lambda label: validation(tried[label][0]))

    def curves(self, title: str, variants: Mapping[str, Trained], key: str = "val_accuracy", x: str = "epoch") -> Panel:
        """An accuracy over the training, against epochs or gradient evaluations."""
        lines = [
            Line(label, list(t.metric(x).mean(axis=1)), [list(values) for values in 100 * t.metric(key)])
            for label, t in variants.items()
        ]
        name = {"val_accuracy": "validation", "train_accuracy": "training"}[key]
        title = f"{self.setting.name}: {title}".removesuffix(": ")
        return Panel(title, x.replace("_", " "), f"{name} accuracy, %", lines)


Candidates = Callable[[Setting, Mapping[str, Config]], Mapping[str, Sequence[Config]]]
"""`(setting, chosen so far) -> the candidates of each variant`; as many for every variant."""


class Study(NamedTuple):
    """A claim about trained networks.

    Attributes:
      settings: by scale.
      stages: the variants with their candidates; a later stage sees what the earlier ones chose.
      conditions: the success criteria.
      panels: what is plotted.
      summary: what the numbers say, in words.
      table: a row for each variant.
    """

    settings: Mapping[Scale, tuple[Setting, ...]]
    stages: tuple[Candidates, ...]
    conditions: Callable[[Outcome], list[Condition]]
    panels: Callable[[Outcome], list[Panel]]
    summary: Callable[[Outcome], str]
    table: Callable[[Outcome], Rows]


def run(study: Study, scale: Scale, first_seed: int, workspace: Workspace) -> Finding:
    """Run a study; missing data are reported before anything is trained."""
    settings = [s for s in study.settings[scale] if workspace.data_dir is not None or not s.optional]
    for setting in settings:
        prepare(dataclasses.replace(setting.base, data_dir=workspace.data_dir))
    outcomes = [_outcome(study, setting, first_seed, workspace) for setting in settings]
    return Finding(
        rows={name: row for outcome in outcomes for name, row in study.table(outcome).items()},
        panels=[panel for outcome in outcomes for panel in study.panels(outcome)],
        conditions=[condition for outcome in outcomes for condition in study.conditions(outcome)],
        reading=" ".join(f"{outcome.setting.name}: {study.summary(outcome)}" for outcome in outcomes),
    )


def _outcome(study: Study, setting: Setting, first_seed: int, workspace: Workspace) -> Outcome:
    chosen: dict[str, Config] = {}
    for stage in study.stages:
        chosen |= choose(setting, stage(setting, chosen), workspace)
    return Outcome(setting, train(setting, chosen, first_seed, workspace), first_seed, workspace)


def cost(trained: Trained, setting: Setting) -> np.ndarray:
    """Gradient evaluations, as a multiple of those of plain training for the setting's epochs."""
    return trained.result("gradient_evaluations") / (trained.metric("step")[0] * setting.base.epochs)


def rows(outcome: Outcome, reference: str) -> Rows:
    """A row for each variant; differences are paired by seed."""
    setting, against = outcome.setting, outcome[reference].accuracy
    return {
        f"{setting.name}: {label}": {
            "cost": list(cost(variant, setting)),
            "test %": list(variant.accuracy),
            f"against {reference}": list(variant.accuracy - against),
            "test % at best validation": list(100 * variant.result("test_accuracy")),
            "training %": list(100 * variant.metric("train_accuracy")[-1]),
            **_agreement(variant),
            "seconds": list(variant.result("seconds")),
        }
        for label, variant in outcome.variants.items()
    }


def _agreement(variant: Trained) -> dict[str, list[float]]:
    """Cosine of the two gradients, mean over the epochs in which there were two."""
    cosine = variant.metric("cosine")
    if np.isnan(cosine).all(axis=0).any():
        return {}
    return {"cos(g, g*)": list(np.nanmean(cosine, axis=0))}
