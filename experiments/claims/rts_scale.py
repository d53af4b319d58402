"""Weighting the old gradient against the perturbed one beats PUGD's plain sum.

**Paper.** *Radius-Timing-Scale in PUGD Optimization*; draft, code and runs of its author at
https://github.com/eeyzs1/CV_RTS: PUGD's g + g* weights the old gradient too much; a scale s(t) in s g + g*, on a
schedule or following the gradients, does better. Best schedules of dozens, one seed each.

**Setting.** As `rts.early`. PUGD with s constant (infinity is normalised SGD, 1 is PUGD, 0.25 the mix of GNP, 0 a
normalised SAM along PUGD's direction), falling along a quarter of a cosine to 0 with mean 1, and by the rules
`norm_ratio` and `cosine`. The direction is a unit vector whatever s, so steps before momentum are equally long.

**Chosen.** By validation accuracy on two seeds of their own: the learning rate, PUGD's in `rts.early` for all; the
weighting that meets PUGD's; and, as control of the effective learning rate, rates of their own for s = infinity and
0.25, among the same three.

**Decides.** In each setting, by test accuracy after the last epoch: the weighting chosen is above s = 1; s = 0.25 is
above s = 1, each at its own rate; s = 1 is above s = infinity, each at its own rate.
"""

import math
from collections.abc import Mapping

from experiments.claims.claim import Check, Finding, Line, Panel, show
from experiments.claims.rts_settings import SETTINGS, rated, tuned_pugd
from experiments.claims.training import (
    Lab,
    Scale,
    Setting,
    Trained,
    above,
    accuracy,
    across,
    choose,
    curves,
    method,
    rows,
    train,
    try_out,
    validation,
)
from experiments.config import Config

PUGD = "s = 1"
CONTROLLED = ("s = inf", "s = 0.25")
CONSTANT = {"s = inf": "1e6", "s = 4": "4", PUGD: "1", "s = 0.25": "0.25", "s = 0": "0"}
SCALES = CONSTANT | {
    "s falls": f"quarter:cos:{math.pi / 2:.6g}:0.0",
    "s = |g*| / |g|": "norm_ratio",
    "s = cos(g, g*)": "cosine",
}


def run(scale: Scale, first_seed: int, lab: Lab) -> Finding:
    """Every weighting at PUGD's rate, two at their own; at smoke scale these and PUGD alone."""
    return across(SETTINGS[scale], lambda setting: _find(setting, first_seed, lab), lab)


def weighted(pugd: Config) -> dict[str, Config]:
    """PUGD with every weighting."""
    return {label: pugd if label == PUGD else method(pugd, "pugd", scale=scale) for label, scale in SCALES.items()}


def _find(setting: Setting, first_seed: int, lab: Lab) -> Finding:
    configs = weighted(tuned_pugd(setting, lab))
    if setting.candidates == 1:
        configs = {label: configs[label] for label in (*CONTROLLED, PUGD)}
    tried = try_out(setting, {label: [config] for label, config in configs.items()}, lab)
    winner = max((label for label in tried if label != PUGD), key=lambda label: validation(tried[label][0]))
    own = choose(setting, {label: rated(setting, configs[label]) for label in CONTROLLED}, lab)
    arms = train(setting, configs | {_own(label): config for label, config in own.items()}, first_seed, lab)
    constant = {label: arms[label] for label in CONSTANT if label in arms}
    panels = [
        _sweep(setting, constant),
        Panel(f"{setting.name}: training", "epoch", "training accuracy, %", curves(constant, "train_accuracy")),
    ]
    return Finding(rows(setting, arms, PUGD), panels, _checks(setting, arms, winner), _reading(setting, arms, own))


def _own(label: str) -> str:
    return f"{label}, own rate"


def _sweep(setting: Setting, constant: Mapping[str, Trained]) -> Panel:
    share = [1 / (1 + float(CONSTANT[label])) for label in constant]
    values = [list(accuracy(arm)) for arm in constant.values()]
    line = Line("PUGD's learning rate", share, values)
    return Panel(setting.name, "weight of the perturbed gradient, 1 / (1 + s)", "test accuracy, %", [line])


def _checks(setting: Setting, arms: Mapping[str, Trained], winner: str) -> list[Check]:
    inf, quarter = (arms[_own(label)] for label in CONTROLLED)
    return [
        above(f"{setting.name}: {winner} above s = 1", arms[winner], arms[PUGD]),
        above(f"{setting.name}: s = 0.25 above s = 1, each at its own rate", quarter, arms[PUGD]),
        above(f"{setting.name}: s = 1 above s = inf, each at its own rate", arms[PUGD], inf),
    ]


def _reading(setting: Setting, arms: Mapping[str, Trained], own: Mapping[str, Config]) -> str:
    rates = ", ".join(f"{label} {config.lr.split(':')[1]}" for label, config in own.items())
    cosine = show(arms[PUGD].metric("cosine")[-1])
    return f"{setting.name}: cos(g, g*) is {cosine} at the end of PUGD; rates of their own: {rates}."
