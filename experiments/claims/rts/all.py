"""Radius, timing and scale together gain 3.2 % on average.

**Paper.** *Radius-Timing-Scale in PUGD Optimization*; draft, code and runs of its author at
https://github.com/eeyzs1/CV_RTS: the abstract claims +3.2 % on average for the three together. No run with the three
together is among the author's; radius with scale gained 0.2 points on CIFAR-10 and 0.3 on CIFAR-100, one seed each.

**Setting.** As `rts.early`, with its three arms and two of RTS: the library's defaults (radius rising with mean 1, PUGD
after a tenth of the training, s = 1), and the paper's shapes (radius half a cosine from 2, PUGD after a quarter, s
falling along a quarter of a cosine from 1.57). RTS takes 1.75 to 1.9 gradient evaluations a step, so the control with
twice the epochs of SGD has a few more.

**Chosen.** Each arm's learning rate among 0.03, 0.1 and 0.3, and the one of the two RTS arms that meets the others, by
validation accuracy on two seeds of their own.

**Decides.** In each setting, by test accuracy after the last epoch: RTS is above PUGD; above SGD with as many epochs;
above SGD with twice the epochs; and its mean gain over PUGD is 3.2 points or more.

**Seen.** On the digits, of which they were chosen on other seeds, the defaults end with PUGD, 0.0 ± 1.7 points, at 0.95
of its gradients. On Fashion-MNIST, on which nothing was chosen, they end 1.0 ± 0.5 points above PUGD and 0.4 ± 0.2
above SGD. The paper's shapes do as well at 0.87 of the gradients, - 1.0 ± 1.6 and 1.0 ± 0.6 points. Nowhere near 3.2.
"""

import math
from collections.abc import Mapping

from experiments.claims.claim import Check, Finding, Panel
from experiments.claims.rts.settings import REFERENCES, rated, references, settings
from experiments.claims.study import (
    Lab,
    Scale,
    Setting,
    Trained,
    above,
    accuracy,
    across,
    best,
    curves,
    described,
    method,
    rows,
    train,
    try_out,
    validation,
)
from experiments.config.schema import Config
from experiments.report.stats import interval, show

GAIN = 3.2


def run(scale: Scale, first_seed: int, lab: Lab) -> Finding:
    """SGD, SGD for longer, PUGD, and RTS in two forms."""
    return across(settings(scale, lab), lambda setting: _find(setting, first_seed, lab), lab)


def rts(base: Config) -> dict[str, Config]:
    """The library's defaults and the paper's shapes."""
    falling = f"quarter:cos:{math.pi / 2:.6g}:0.0"
    return {
        "RTS, defaults": method(base, "rts_pugd"),
        "RTS, paper's shapes": method(base, "rts_pugd", radius="cosine:2.0:0.0", when="after:0.25", scale=falling),
    }


def _find(setting: Setting, first_seed: int, lab: Lab) -> Finding:
    forms = {label: rated(setting, config) for label, config in rts(setting.base).items()}
    tried = try_out(setting, references(setting) | forms, lab)
    chosen = {label: best(candidates) for label, candidates in tried.items()}
    winner = max(forms, key=lambda label: max(map(validation, tried[label])))
    arms = train(setting, chosen, first_seed, lab)
    panels = [
        Panel(f"{setting.name}: by {x}", x, "validation accuracy, %", curves(arms, x=key))
        for x, key in (("epoch", "epoch"), ("gradient evaluations", "gradient_evaluations"))
    ]
    return Finding(rows(setting, arms, "PUGD"), panels, _checks(setting, arms, winner), _reading(setting, arms, chosen))


def _checks(setting: Setting, arms: Mapping[str, Trained], winner: str) -> list[Check]:
    gain = accuracy(arms[winner]) - accuracy(arms["PUGD"])
    return [
        *(above(f"{setting.name}: {winner}, above {label}", arms[winner], arms[label]) for label in REFERENCES),
        Check(
            f"{setting.name}: {winner}, gains 3.2 points over PUGD", interval(gain).mean >= GAIN, f"{show(gain)} points"
        ),
    ]


def _reading(setting: Setting, arms: Mapping[str, Trained], chosen: Mapping[str, Config]) -> str:
    over = ", ".join(
        f"{label} {show(accuracy(arm) - accuracy(arms['SGD']))}" for label, arm in arms.items() if label != "SGD"
    )
    settings = "; ".join(described(config, setting.base) for config in chosen.values())
    return f"{setting.name}: points above SGD: {over} (chosen: {settings})."
