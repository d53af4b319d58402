"""Common parts of the studies of LPG: settings, variants, columns and panels.

Small: an MLP on subsets of Fashion-MNIST, MNIST and CIFAR-10, a ResNet-8 on digits. Paper: the usual settings for
long-tailed and noisy CIFAR-10.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from experiments.claims.claim import Line, Panel, Rows
from experiments.claims.setting import Setting, Variant, decays, field, option, rates
from experiments.claims.study import Outcome, rows
from experiments.claims.variants import method
from experiments.claims.workspace import Trained
from experiments.config.schema import Config
from experiments.report.stats import interval

_QUIET = Config(batch=128, tensorboard=False, checkpoint_every=0)
FASHION = dataclasses.replace(_QUIET, dataset="fashion_mnist", model="mlp", epochs=30, val_size=2000, devices=1)
SMOKE = dataclasses.replace(FASHION, dataset="digits", epochs=4, batch=32, train_size=300, val_size=100)
CIFAR10 = dataclasses.replace(
    _QUIET, dataset="cifar10", model="resnet32", norm="batch", epochs=200, val_size=5000, weight_decay=2e-4
)
AXES = (rates(0.003, 0.01, 0.03, 0.1, 0.3), decays(1e-4, 1e-3, 1e-2))
"""The grid of every variant on the small networks; other networks use the learning rate and decay of their setting."""
PARTS = {"head": slice(0, 3), "medium": slice(3, 7), "tail": slice(7, 10)}
"""Positions among ten classes in order of decreasing count."""


def small(name: str, base: Config) -> Setting:
    """A setting for the data of the small networks."""
    return Setting(name, base, AXES, optional=base.dataset != "digits")


def lpg(config: Config, **options: Any) -> Variant:
    """LPG by a rule with one number per class, with its strength."""
    return Variant(method(config, "lpg", **options), (option("eps", 0.1, 0.2, 0.4, below=0.9),))


def bounded(config: Config, **options: Any) -> Variant:
    """LPG by confusions, with the bound of its targets."""
    bound = option("rule", 2.0, 3.0, 4.5, name="bound", template="confusion:{:g}")
    return Variant(method(config, "lpg", **options), (bound,))


def of_loss(config: Config, template: str, name: str, *values: float, below: float = math.inf) -> Variant:
    """Another loss, with its own hyperparameter."""
    return Variant(config, (field("loss", *values, name=name, template=template, below=below),))


def by_class(variant: Trained) -> np.ndarray:
    """Test accuracy of each class after the last epoch, in percent, [seeds, classes]."""
    return 100 * variant.result("last_test_accuracy_by_class")


def part(variant: Trained, name: str) -> np.ndarray:
    """Test accuracy of the head, the medium or the tail classes, in percent, [seeds]."""
    return by_class(variant)[:, PARTS[name]].mean(axis=1)


def table(outcome: Outcome, reference: str = "plain") -> Rows:
    """Accuracy, balanced accuracy and, under a long tail, that of its parts."""
    made = rows(outcome, reference)
    for variant, row in zip(outcome.variants.values(), made.values(), strict=True):
        if variant.stopped:  # accuracies by class are those of the last epoch
            continue
        row["balanced test %"] = list(by_class(variant).mean(axis=1))
        if outcome.setting.base.imbalance != "none":
            row |= {f"{name} %": list(part(variant, name)) for name in PARTS}
    return made


def class_panel(outcome: Outcome, *labels: str) -> Panel:
    """Test accuracy of each class."""
    variants = outcome.only(*labels)
    classes = [float(c) for c in range(by_class(outcome[labels[0]]).shape[1])]
    lines = [Line(label, classes, [list(v) for v in by_class(variant).T]) for label, variant in variants.items()]
    return Panel(f"{outcome.setting.name}: by class", "class", "test accuracy, %", lines)


def order(outcome: Outcome) -> str:
    """The variants in order of decreasing mean."""
    return " > ".join(sorted(outcome.variants, key=lambda label: -interval(outcome[label].accuracy).mean))
