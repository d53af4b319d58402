"""LPG plugs into other losses and methods and improves each.

**Statement.** The abstract of LPG, https://arxiv.org/abs/2605.29494: it can be plugged into existing methods for
consistent gains. Our LPG is a derivation from that abstract; none of the paper's numbers are claimed for it.

**Setting.** One setting of each of `lpg.longtail`, `lpg.noisy` and `lpg.balanced`, each with the LPG of that claim:
Fashion-MNIST with a long tail of 100 : 1, with `long_tail`; MNIST with 40 % of the labels of five digits mistaken for
another, with `confusion`; 2500 images of Fashion-MNIST, with the default rule. MLP, 30 epochs, batch 128, cosine
learning rate; test sets are balanced and clean. Hosts: cross-entropy, generalised cross-entropy at its q of 0.7, SAM at
radius 0.05, PUGD at radius 1; under a long tail also LDAM (margins up to 2 logits) and logit adjustment, which without
one is cross-entropy. Each host alone and with LPG, whose edit is around the host's loss and, for SAM and PUGD, on both
of their gradients. LPG adds no gradient evaluation.

**Hyperparameters.** Learning rate and weight decay of each variant, and LPG's strength or bound.

**Success criteria.** In each setting and for each host: with LPG the test accuracy is above that without.
"""

import dataclasses
from typing import Any

import numpy as np

from experiments.claims.claim import Line, Panel, Scale
from experiments.claims.conditions import Condition
from experiments.claims.lpg import balanced, longtail, noisy
from experiments.claims.lpg.common import bounded, by_class, lpg, part, table
from experiments.claims.setting import Setting, Variant
from experiments.claims.study import Outcome, Study
from experiments.claims.variants import method
from experiments.config.schema import Config
from experiments.report.stats import below, show


def _settings(scale: Scale) -> tuple[Setting, ...]:
    """A long tail, labels mistaken for one other class, and balanced data."""
    asymmetric = next(s for s in noisy.SETTINGS[scale] if s.base.noise.startswith("asymmetric"))
    return longtail.SETTINGS[scale][0], asymmetric, balanced.SETTINGS[scale][0]


SETTINGS: dict[Scale, tuple[Setting, ...]] = {
    "smoke": _settings("smoke"),
    "full": _settings("full"),
    "paper": _settings("paper"),
}

WITH = " + LPG"
PLAIN = "cross-entropy"
LOSSES = {PLAIN: "cross_entropy", noisy.GCE: "gce:0.7"}
OF_A_TAIL = {"LDAM": "ldam:2:1", "logit adjustment": "logit_adjustment:1"}
HARDLY = 5
"""Percent of a class below which it counts as not learnt."""
METHODS = {"SAM": ("sam", 0.05), "PUGD": ("pugd", 1.0)}


def variants(setting: Setting) -> dict[str, Variant]:
    """A host, then the same with LPG; two hosts where nothing is chosen."""
    base, found, hosts = setting.base, {}, slice(1 if setting.tiny else None)
    losses = LOSSES | (OF_A_TAIL if _long_tailed(setting) else {})
    for host, loss in list(losses.items())[hosts]:
        config = dataclasses.replace(base, loss=loss)
        found |= {host: Variant(config), host + WITH: _with_lpg(setting, config)}
    for host, (name, radius) in list(METHODS.items())[hosts]:
        alone = Variant(method(base, name, radius=radius))
        found |= {host: alone, host + WITH: _with_lpg(setting, base, inner=f"{name}:{radius}")}
    return found


def _with_lpg(setting: Setting, config: Config, **options: Any) -> Variant:
    """LPG by the rule of the task, with the hyperparameter of that rule."""
    if setting.base.noise != "none":
        return bounded(config, **options)
    return lpg(config, **({"rule": "long_tail"} if _long_tailed(setting) else {}), **options)


def _long_tailed(setting: Setting) -> bool:
    return setting.base.imbalance != "none"


def _hosts(outcome: Outcome) -> list[str]:
    return [label for label in outcome.variants if not label.endswith(WITH)]


def _gain(outcome: Outcome, host: str) -> np.ndarray:
    """Points of test accuracy that LPG adds."""
    return outcome[host + WITH].accuracy - outcome[host].accuracy


def _conditions(outcome: Outcome) -> list[Condition]:
    return [outcome.above(f"{host} with LPG above {host}", host + WITH, host) for host in _hosts(outcome)]


def _panels(outcome: Outcome) -> list[Panel]:
    lines = [Line(host, [0.0], [list(_gain(outcome, host))]) for host in _hosts(outcome)]
    return [Panel(f"{outcome.setting.name}: what LPG adds", "test accuracy, points", "", lines, kind="points")]


def _summary(outcome: Outcome) -> str:
    said = ", ".join(f"{host} {show(_gain(outcome, host))}" for host in _hosts(outcome))
    without = _without_gain(outcome) if _long_tailed(outcome.setting) else ""
    return f"LPG adds to {said} points.{without}{_lost(outcome)}"


def _lost(outcome: Outcome) -> str:
    """Where LPG loses: in how many classes hardly an image is recognised, with LPG and without."""
    said = ""
    for host in _hosts(outcome):
        if below(outcome[host + WITH].accuracy, outcome[host].accuracy):
            then, alone = ((by_class(outcome[label]) < HARDLY).sum(axis=1).mean() for label in (host + WITH, host))
            said += f" Classes with less than {HARDLY} % recognised, {host}: {then:.1f} with LPG, {alone:.1f} without."
    return said


def _without_gain(outcome: Outcome) -> str:
    """Where LPG adds nothing: what the host by itself has moved between head and tail, and what LPG moves then."""
    said = ""
    for host in _hosts(outcome):
        if below(outcome[host].accuracy, outcome[host + WITH].accuracy):
            continue
        own, then = (
            ", ".join(f"{name} {show(part(outcome[a], name) - part(outcome[b], name))}" for name in ("head", "tail"))
            for a, b in ((host, PLAIN), (host + WITH, host))
        )
        said += f" Without a gain, {host}: against cross-entropy it moves {own} by itself, and LPG moves {then} more."
    return said


STUDY = Study(SETTINGS, variants, _conditions, _panels, _summary, lambda outcome: table(outcome, PLAIN))
