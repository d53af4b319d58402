"""What the studies of LPG share: settings, candidates of each variant, columns and panels.

Every variant has as many candidates: one to three learning rates, each with two values of a hyperparameter of its own.
Small: an MLP on subsets of Fashion-MNIST, MNIST and CIFAR-10, a ResNet-8 on digits. Paper: the settings in use for
long-tailed and noisy CIFAR-10.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.claims.claim import Line, Panel, Rows
from experiments.claims.study import Outcome, rows
from experiments.claims.variants import grid, method
from experiments.claims.workspace import Setting, Trained, train
from experiments.config.schema import Config
from experiments.report.stats import interval

_QUIET = Config(batch=128, tensorboard=False, checkpoint_every=0)
FASHION = dataclasses.replace(_QUIET, dataset="fashion_mnist", model="mlp", epochs=30, val_size=2000, devices=1)
SMOKE = dataclasses.replace(FASHION, dataset="digits", epochs=4, batch=32, train_size=800, val_size=200)
CIFAR10 = dataclasses.replace(
    _QUIET, dataset="cifar10", model="resnet32", norm="batch", epochs=200, val_size=5000, weight_decay=2e-4
)
RATES = ("cosine:0.03:0.0", "cosine:0.1:0.0", "cosine:0.01:0.0")
SMALL = ("mlp", "resnet8")
"""Networks whose learning rate is chosen; the others have that of their setting."""
STRENGTHS = ({"eps": 0.1, "d_eps": 0.25}, {"eps": 0.3, "d_eps": 0.5})
SWEEP = (0.1, 0.3, 0.6, 0.9)
"""Strengths of the sweep: the same eps for every class, d_eps 0."""
PARTS = {"head": slice(0, 3), "medium": slice(3, 7), "tail": slice(7, 10)}
"""Of ten classes in the order of falling count."""
UNTUNED = "plain, rate and decay as LPG"


def plain(setting: Setting, config: Config | None = None) -> list[Config]:
    """Learning rate and weight decay."""
    config = setting.base if config is None else config
    return _rated(setting, grid(config, weight_decay=(config.weight_decay, 5 * config.weight_decay)))


def lpg(setting: Setting, config: Config | None = None, **options: Any) -> list[Config]:
    """Learning rate and strength."""
    config = setting.base if config is None else config
    return _rated(setting, [method(config, "lpg", **strength, **options) for strength in STRENGTHS])


def bounded(setting: Setting) -> list[Config]:
    """Learning rate and the bound of the targets that confusions make."""
    return _rated(setting, [method(setting.base, "lpg", rule=f"confusion:{bound}") for bound in (3.0, 2.0)])


def lpl(setting: Setting, **options: Any) -> list[Config]:
    """Learning rate and bound."""
    return _rated(setting, [method(setting.base, "lpl", eps=eps, **options) for eps in (0.4, 1.0)])


def of_loss(setting: Setting, *losses: str) -> list[Config]:
    """Learning rate and a hyperparameter of another loss."""
    return _rated(setting, grid(setting.base, loss=losses))


def reweighted(setting: Setting, *weights: str) -> list[Config]:
    """Learning rate and a hyperparameter of class weights."""
    return _rated(setting, grid(setting.base, reweight=weights))


def _rated(setting: Setting, configs: Sequence[Config]) -> list[Config]:
    """Each configuration with each learning rate, as many as the setting tries."""
    rates = RATES[: max(1, setting.candidates // len(configs))] if setting.base.model in SMALL else [setting.base.lr]
    return [rated for config in configs for rated in grid(config, lr=rates)][: setting.candidates]


def untuned(setting: Setting, chosen: Mapping[str, Config]) -> dict[str, list[Config]]:
    """Plain training at the learning rate and weight decay of LPG."""
    return {UNTUNED: [dataclasses.replace(setting.base, lr=chosen["LPG"].lr)]}


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
        for column in ("seconds", "test % at best validation"):
            del row[column]
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


def strength_panel(outcome: Outcome, kinds: Mapping[str, Mapping[str, Any]]) -> Panel:
    """Test accuracy over the strength; for the figure only, nothing is chosen by it."""
    base = outcome["plain"].config
    configs = {
        f"{label} {eps}": method(base, "lpg", eps=eps, d_eps=0.0, **options)
        for label, options in kinds.items()
        for eps in SWEEP
    }
    found = train(outcome.setting, configs, outcome.first_seed, outcome.workspace)
    plain = list(outcome["plain"].accuracy)
    lines = [
        Line(label, [0.0, *SWEEP], [plain, *(list(found[f"{label} {eps}"].accuracy) for eps in SWEEP)])
        for label in kinds
    ]
    return Panel(f"{outcome.setting.name}: over the strength", "eps", "test accuracy, %", lines)


def hyperparameters(outcome: Outcome) -> str:
    """What was chosen for each variant, in words."""
    return "; ".join(f"{label}: {_hyperparameters(variant)}" for label, variant in outcome.variants.items())


def _hyperparameters(variant: Trained) -> str:
    config, options = variant.config, dict(variant.config.method_options)
    found = {k: options[k] for k in ("eps", "radius", "rule") if k in options} or {
        "decay": f"{config.weight_decay:g}",
        "loss": config.loss,
        "weights": config.reweight,
    }
    words = [f"{k} {v}" for k, v in found.items() if v not in ("none", "cross_entropy")]
    return ", ".join([f"rate {variant.rate}", *words])


def order(outcome: Outcome) -> str:
    """The variants by falling mean."""
    return " > ".join(sorted(outcome.variants, key=lambda label: -interval(outcome[label].accuracy).mean))
