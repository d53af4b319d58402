"""A claim about trained networks as one record: settings, variants, success criteria, table, panels, summary.

`run` chooses the hyperparameters of every variant (`protocol.py`), trains the chosen variants on other data and fresh
seeds, and judges them. Runs that are in a ledger are not trained again.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from experiments.claims import conditions
from experiments.claims.claim import Choice, Finding, Line, Panel, Power, Rows, Scale
from experiments.claims.conditions import Condition, Kind
from experiments.claims.protocol import choose, seeds_for
from experiments.claims.setting import Setting, Variant, at, grid
from experiments.claims.workspace import Trained, Workspace
from experiments.report.stats import show
from experiments.training.experiment import prepare

MARGIN = 1.0
"""The smallest difference of test accuracies that is of interest, in points."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The trained variants of one setting; `outcome["SGD"]` is one of them."""

    setting: Setting
    variants: Mapping[str, Trained]
    choices: Mapping[str, Choice]
    power: Power | None

    def __getitem__(self, label: str) -> Trained:
        """The variant with this name."""
        return self.variants[label]

    def only(self, *labels: str) -> dict[str, Trained]:
        """Some of the variants."""
        return {label: self.variants[label] for label in labels}

    def among(self, labels: Iterable[str]) -> list[str]:
        """The labels that are variants of this setting."""
        return [label for label in labels if label in self.variants]

    def named(self, statement: str) -> str:
        """The statement with the name of the setting."""
        return f"{self.setting.name}: {statement}"

    def above(self, statement: str, a: str, b: str, kind: Kind = "paper", least: float = 0.0) -> Condition:
        """`a` ends above `b`, in test accuracy; with `least`, by more than that many points."""
        margin = 0.0 if least else MARGIN
        one, two = self[a].accuracy, self[b].accuracy
        return conditions.above(self.named(statement), one, two, margin=margin, least=least, kind=kind, unit="points")

    def within(self, statement: str, a: str, b: str, kind: Kind = "paper") -> Condition:
        """`a` ends within the margin of `b` or above it."""
        one, two = self[a].accuracy, self[b].accuracy
        return conditions.within(self.named(statement), one, two, margin=MARGIN, kind=kind, unit="points")

    def preferred(self, *labels: str) -> str:
        """The variant with the highest validation accuracy on the choosing seeds; among equals, the first."""
        return max(labels, key=lambda label: np.mean(self.choices[label].validation or [0.0]))

    def curves(self, title: str, variants: Mapping[str, Trained], key: str = "val_accuracy", x: str = "epoch") -> Panel:
        """An accuracy during training, against epochs or gradient evaluations."""
        lines = [
            Line(label, list(t.course(x)), [list(values) for values in 100 * t.metric(key)])
            for label, t in variants.items()
        ]
        name = {"val_accuracy": "validation", "train_accuracy": "training"}[key]
        return Panel(
            f"{self.setting.name}: {title}".removesuffix(": "), x.replace("_", " "), f"{name} accuracy, %", lines
        )


class Study(NamedTuple):
    """A claim about trained networks.

    Attributes:
      settings: the settings for each scale.
      variants: the variants of a setting; the others are compared with the first.
      conditions: the success criteria.
      panels: what is plotted.
      summary: describes the numbers in words.
      table: a row for each variant.
    """

    settings: Mapping[Scale, tuple[Setting, ...]]
    variants: Callable[[Setting], Mapping[str, Variant]]
    conditions: Callable[[Outcome], list[Condition]]
    panels: Callable[[Outcome], list[Panel]]
    summary: Callable[[Outcome], str]
    table: Callable[[Outcome], Rows]


def run(study: Study, scale: Scale, first_seed: int, workspace: Workspace) -> Finding:
    """Run a study; missing data is reported before anything is trained, also if it leaves no setting."""
    every = study.settings[scale]
    settings = [s for s in every if workspace.data_dir is not None or not s.optional] or every
    for setting in settings:
        prepare(dataclasses.replace(setting.base, data_dir=workspace.data_dir))
    outcomes = [outcome_of(study.variants(setting), setting, first_seed, workspace) for setting in settings]
    return Finding(
        rows={name: row for outcome in outcomes for name, row in study.table(outcome).items()},
        panels=[panel for outcome in outcomes for panel in study.panels(outcome)],
        conditions=[condition for outcome in outcomes for condition in study.conditions(outcome)],
        reading=" ".join(f"{outcome.setting.name}: {study.summary(outcome)}" for outcome in outcomes),
        choices=[choice for outcome in outcomes for choice in outcome.choices.values()],
        powers=[outcome.power for outcome in outcomes if outcome.power],
    )


def outcome_of(variants: Mapping[str, Variant], setting: Setting, first_seed: int, workspace: Workspace) -> Outcome:
    """Choose the hyperparameters of every variant, then train the chosen ones on other data and fresh seeds."""
    choices = choose(setting, variants, workspace)
    power = None
    if all(len(choice.validation) > 1 for choice in choices.values()):
        power = Power(setting.name, *seeds_for(choices, MARGIN), setting.most_seeds)
    count = setting.most_seeds if power is None else min(power.wanted, power.most)
    configs = [
        at(variant.config, grid(setting, variant), tuple(choices[label].chosen.values()))
        for label, variant in variants.items()
    ]
    trained = workspace.train(setting, configs, "second", range(first_seed, first_seed + count))
    found = zip(variants.items(), trained, strict=True)
    return Outcome(setting, {label: t._replace(stopped=v.stopped) for (label, v), t in found}, choices, power)


def courses(outcome: Outcome) -> list[Panel]:
    """Learning curves of all variants, against epochs and against gradient evaluations."""
    return [
        outcome.curves("by epoch", outcome.variants),
        outcome.curves("by gradient evaluations", outcome.variants, x="gradient_evaluations"),
    ]


def above_sgd(outcome: Outcome) -> str:
    """The gain of every variant over the variant named SGD, in words."""
    sgd = outcome["SGD"].accuracy
    over = ", ".join(f"{k} {show(v.accuracy - sgd)}" for k, v in outcome.variants.items() if k != "SGD")
    return f"points above SGD ({show(sgd)} %): {over}."


def cost(trained: Trained, setting: Setting) -> np.ndarray:
    """Gradient evaluations, relative to plain training for the setting's number of epochs."""
    steps = trained.result("steps") / trained.config.epochs
    return trained.result("gradient_evaluations") / (steps * setting.base.epochs)


def rows(outcome: Outcome, reference: str) -> Rows:
    """A row for each variant; differences are paired by seed. Numbers of the last epoch are not a stopped variant's."""
    against = outcome[reference].accuracy
    return {
        outcome.named(label): {
            "cost": list(cost(variant, outcome.setting)),
            "test %": list(variant.accuracy),
            f"against {reference}": list(variant.accuracy - against),
            "validation %": list(variant.validation),
            "its peak %": list(variant.peak),
            "test % at the peak": list(100 * variant.result("test_accuracy")),
            **({} if variant.stopped else {"training %": list(100 * variant.metric("train_accuracy")[-1])}),
            **_agreement(variant),
        }
        for label, variant in outcome.variants.items()
    }


def _agreement(variant: Trained) -> dict[str, list[float]]:
    """Cosine of the two gradients, averaged over the epochs with two gradients."""
    cosine = variant.metric("cosine")
    if np.isnan(cosine).all(axis=0).any():
        return {}
    return {"cos(g, g*)": list(np.nanmean(cosine, axis=0))}
