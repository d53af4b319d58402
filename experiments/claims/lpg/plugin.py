"""LPG plugs into other losses and methods and improves each.

**Statement.** The abstract of LPG, https://arxiv.org/abs/2605.29494: it can be plugged into existing methods for
consistent gains. Our LPG is a derivation from that abstract; none of the paper's numbers are claimed for it.

**Setting.** As the first of `lpg.longtail`: Fashion-MNIST subsampled exponentially, the largest class 100 times the
smallest (about 2500 images), MLP, 30 epochs, batch 128, cosine learning rate; the test set is balanced. Hosts:
cross-entropy, LDAM (margins up to 2 logits), logit adjustment, SAM at radius 0.05, PUGD at radius 1; each alone and
with LPG by `long_tail`, whose edit is around the host's loss and, for SAM and PUGD, on both of their gradients. LPG
adds no gradient evaluation.

**Hyperparameters.** Learning rate and weight decay of each variant, and LPG's strength.

**Success criteria.** For each of the five hosts: with LPG the test accuracy is above that without.
"""

import dataclasses

import numpy as np

from experiments.claims.claim import Line, Panel, Scale
from experiments.claims.conditions import Condition
from experiments.claims.lpg.common import (
    CIFAR10,
    FASHION,
    PARTS,
    SMOKE,
    lpg,
    part,
    small,
    table,
)
from experiments.claims.setting import Setting, Variant, rates
from experiments.claims.study import Outcome, Study
from experiments.claims.variants import method
from experiments.report.stats import below, show

_TAIL = dataclasses.replace(FASHION, train_size=10_000, imbalance="exp:100")
SETTINGS: dict[Scale, tuple[Setting, ...]] = {
    "smoke": (
        Setting(
            "long-tailed digits",
            dataclasses.replace(SMOKE, imbalance="exp:10"),
            (rates(0.03),),
            most_seeds=2,
            tiny=True,
        ),
    ),
    "full": (small("ratio 100", _TAIL),),
    "paper": (
        Setting(
            "CIFAR-10, ratio 100",
            dataclasses.replace(CIFAR10, imbalance="exp:100"),
            (),
            choosing_seeds=1,
            most_seeds=3,
        ),
    ),
}

WITH = " + LPG"
LOSSES = {"cross-entropy": "cross_entropy", "LDAM": "ldam:2:1", "logit adjustment": "logit_adjustment:1"}
METHODS = {"SAM": ("sam", 0.05), "PUGD": ("pugd", 1.0)}


def variants(setting: Setting) -> dict[str, Variant]:
    """A host, then the same with LPG; two hosts where nothing is chosen."""
    base, found, hosts = setting.base, {}, slice(1 if setting.tiny else None)
    for host, loss in list(LOSSES.items())[hosts]:
        config = dataclasses.replace(base, loss=loss)
        found |= {host: Variant(config), host + WITH: lpg(config, rule="long_tail")}
    for host, (name, radius) in list(METHODS.items())[hosts]:
        alone = Variant(method(base, name, radius=radius))
        found |= {host: alone, host + WITH: lpg(base, rule="long_tail", inner=f"{name}:{radius}")}
    return found


def _hosts(outcome: Outcome) -> list[str]:
    return [label for label in outcome.variants if not label.endswith(WITH)]


def _moved(outcome: Outcome, name: str, a: str, b: str) -> np.ndarray:
    """Points that `a` is above `b` on a part of the classes."""
    return part(outcome[a], name) - part(outcome[b], name)


def _conditions(outcome: Outcome) -> list[Condition]:
    return [outcome.above(f"{host} with LPG above {host}", host + WITH, host) for host in _hosts(outcome)]


def _panels(outcome: Outcome) -> list[Panel]:
    lines = [
        Line(f"{host}, {name}", [0.0], [list(_moved(outcome, name, host + WITH, host))])
        for host in _hosts(outcome)
        for name in PARTS
    ]
    return [Panel(f"{outcome.setting.name}: what LPG adds", "test accuracy, points", "", lines, kind="points")]


def _summary(outcome: Outcome) -> str:
    gains = {host: outcome[host + WITH].accuracy - outcome[host].accuracy for host in _hosts(outcome)}
    said = ", ".join(f"{host} {show(gain)}" for host, gain in gains.items())
    return f"LPG adds to {said} points.{_without_gain(outcome)}"


def _without_gain(outcome: Outcome) -> str:
    """Where LPG adds nothing: what the host by itself has moved, and what LPG moves then."""
    said = ""
    for host in _hosts(outcome):
        if below(outcome[host].accuracy, outcome[host + WITH].accuracy):
            continue
        own, then = (
            ", ".join(f"{name} {show(_moved(outcome, name, a, b))}" for name in ("head", "tail"))
            for a, b in ((host, "cross-entropy"), (host + WITH, host))
        )
        said += f" Without a gain, {host}: against cross-entropy it moves {own} by itself, and LPG moves {then} more."
    return said


STUDY = Study(SETTINGS, variants, _conditions, _panels, _summary, lambda outcome: table(outcome, "cross-entropy"))
