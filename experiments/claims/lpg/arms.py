"""What the claims about LPG share: settings, candidates of each arm, columns and panels.

Every arm chooses among as many candidates: one to three learning rates, each with two values of a knob of its own.
Small: a perceptron on subsets of Fashion-MNIST, MNIST and CIFAR-10, a ResNet-8 on digits. Paper: the settings in use
for long-tailed and noisy CIFAR-10.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.claims.claim import Line, Panel, Rows
from experiments.claims.study import Lab, Setting, Trained, accuracy, grid, method, rows, train
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
"""Networks whose learning rate is chosen; the others take that of their setting."""
STRENGTHS = ({"eps": 0.1, "d_eps": 0.25}, {"eps": 0.3, "d_eps": 0.5})
SWEEP = (0.1, 0.3, 0.6, 0.9)
"""Strengths of the sweep: the same eps for every class, d_eps 0."""
PARTS = {"head": slice(0, 3), "medium": slice(3, 7), "tail": slice(7, 10)}
"""Of ten classes in the order of falling count."""

Arms = Mapping[str, Trained]


def plain(setting: Setting, config: Config | None = None) -> list[Config]:
    """Learning rate and weight decay."""
    config = setting.base if config is None else config
    return _rated(setting, grid(config, weight_decay=(config.weight_decay, 5 * config.weight_decay)))


def lpg(setting: Setting, config: Config | None = None, **options: Any) -> list[Config]:
    """Learning rate and strength."""
    config = setting.base if config is None else config
    return _rated(setting, [method(config, "lpg", **strength, **options) for strength in STRENGTHS])


def lpl(setting: Setting, **options: Any) -> list[Config]:
    """Learning rate and bound."""
    return _rated(setting, [method(setting.base, "lpl", eps=eps, **options) for eps in (0.4, 1.0)])


def of_loss(setting: Setting, *losses: str) -> list[Config]:
    """Learning rate and the knob of another loss."""
    return _rated(setting, grid(setting.base, loss=losses))


def reweighted(setting: Setting, *weights: str) -> list[Config]:
    """Learning rate and the knob of class weights."""
    return _rated(setting, grid(setting.base, reweight=weights))


def _rated(setting: Setting, configs: Sequence[Config]) -> list[Config]:
    """Each configuration with each learning rate, as many as the setting tries."""
    rates = RATES[: max(1, setting.candidates // len(configs))] if setting.base.model in SMALL else [setting.base.lr]
    return [rated for config in configs for rated in grid(config, lr=rates)][: setting.candidates]


def by_class(arm: Trained) -> np.ndarray:
    """Test accuracy of each class after the last epoch, in percent, [seeds, classes]."""
    return 100 * arm.result("last_test_accuracy_by_class")


def part(arm: Trained, name: str) -> np.ndarray:
    """Test accuracy of the head, the medium or the tail classes, in percent, [seeds]."""
    return by_class(arm)[:, PARTS[name]].mean(axis=1)


def table(setting: Setting, arms: Arms, reference: str = "plain") -> Rows:
    """Accuracy, balanced accuracy and, under a long tail, that of its parts."""
    made = rows(setting, arms, reference)
    for arm, row in zip(arms.values(), made.values(), strict=True):
        for column in ("seconds", "test % at best validation"):
            del row[column]
        row["balanced test %"] = list(by_class(arm).mean(axis=1))
        if setting.base.imbalance != "none":
            row |= {f"{name} %": list(part(arm, name)) for name in PARTS}
    return made


def class_panel(setting: Setting, arms: Arms) -> Panel:
    """Test accuracy of each class."""
    first = next(iter(arms.values()))
    classes = [float(c) for c in range(by_class(first).shape[1])]
    lines = [Line(label, classes, [list(v) for v in by_class(arm).T]) for label, arm in arms.items()]
    return Panel(f"{setting.name}: by class", "class", "test accuracy, %", lines)


def sweep(setting: Setting, base: Config, kinds: Mapping[str, Mapping[str, Any]], first_seed: int, lab: Lab) -> Panel:
    """Test accuracy over the strength; for the picture only, nothing is chosen by it."""
    arms = {
        (label, eps): method(base, "lpg", eps=eps, d_eps=0.0, **options)
        for label, options in kinds.items()
        for eps in SWEEP
    }
    found = train(setting, {f"{label} {eps}": config for (label, eps), config in arms.items()}, first_seed, lab)
    none = accuracy(train(setting, {"plain": base}, first_seed, lab)["plain"])
    lines = [
        Line(label, [0.0, *SWEEP], [list(none), *(list(accuracy(found[f"{label} {eps}"])) for eps in SWEEP)])
        for label in kinds
    ]
    return Panel(f"{setting.name}: over the strength", "eps", "test accuracy, %", lines)


def chosen(arms: Arms) -> str:
    """What was chosen for each arm, in words."""
    return "; ".join(f"{label}: {_knobs(arm.config)}" for label, arm in arms.items())


def _knobs(config: Config) -> str:
    options = dict(config.method_options)
    knobs = {k: options[k] for k in ("eps", "radius") if k in options} or {
        "decay": f"{config.weight_decay:g}",
        "loss": config.loss,
        "weights": config.reweight,
    }
    said = [f"{k} {v}" for k, v in knobs.items() if v not in ("none", "cross_entropy")]
    return ", ".join([f"rate {config.parts.lr.arguments[0]:g}", *said])


def order(arms: Arms, value=accuracy) -> str:
    """The arms by falling mean."""
    return " > ".join(sorted(arms, key=lambda label: -interval(value(arms[label])).mean))
