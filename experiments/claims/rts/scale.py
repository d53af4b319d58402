"""Weighting the old gradient against the perturbed one beats PUGD's plain sum.

**Paper.** *Radius-Timing-Scale in PUGD Optimization*; draft, code and runs of its author at
https://github.com/eeyzs1/CV_RTS: PUGD's g + g* weights the old gradient too much; a scale s(t) in s g + g*, on a
schedule or following the gradients, does better. Best schedules of dozens, one seed each.

**Setting.** As `rts.early`. PUGD with s constant (infinity is normalised SGD, 1 is PUGD, 0.25 the mix of GNP, 0 a
normalised SAM along PUGD's direction), falling along a quarter of a cosine to 0 with mean 1, and by the rules
`norm_ratio` and `cosine`. The direction is a unit vector whatever s, so steps before momentum are equally long.

**Chosen.** By validation accuracy on two seeds of their own: the learning rate, PUGD's in `rts.early` for all; and, as
control of the effective learning rate, a rate of its own for s = infinity, among the same three.

**Decides.** In each setting, by test accuracy after the last epoch: less of the old gradient (s = 0.25), the schedule
and the rule `norm_ratio` are each above s = 1; and s = 1 is above s = infinity, each at its own rate.

**Seen.** Weighting the old gradient less costs fit on both data: training accuracy falls from 80 % at s = 1 to 71 % at
0 on the digits, from 94 to 79 % on the clean images, and test accuracy with it. How much of it helps depends on what is
to be gained: on wrong labels s = 1 leads, and normalised descent without a second gradient (s = infinity, own rate)
ends 2.4 ± 1.1 points below it; on clean images more of the old gradient is better, 0.8 ± 0.6 points at s = 4.
"""

import math
from collections.abc import Mapping

from experiments.claims.claim import Check, Finding, Line, Panel
from experiments.claims.rts.settings import rated, settings, tuned_pugd
from experiments.claims.study import (
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
)
from experiments.config.schema import Config
from experiments.report.stats import show

PUGD = "s = 1"
INFINITY, OWN = "s = inf", "s = inf, own rate"
CONSTANT = {INFINITY: "1e6", "s = 4": "4", PUGD: "1", "s = 0.25": "0.25", "s = 0": "0"}
RIVALS = ("s = 0.25", "s falls", "s = |g*| / |g|")
SCALES = CONSTANT | {
    "s falls": f"quarter:cos:{math.pi / 2:.6g}:0.0",
    "s = |g*| / |g|": "norm_ratio",
    "s = cos(g, g*)": "cosine",
}


def run(scale: Scale, first_seed: int, lab: Lab) -> Finding:
    """Every weighting at PUGD's rate, plain unit descent at its own too; at smoke scale those of the checks alone."""
    return across(settings(scale, lab), lambda setting: _find(setting, first_seed, lab), lab)


def weighted(pugd: Config) -> dict[str, Config]:
    """PUGD with every weighting."""
    return {label: pugd if label == PUGD else method(pugd, "pugd", scale=scale) for label, scale in SCALES.items()}


def _find(setting: Setting, first_seed: int, lab: Lab) -> Finding:
    configs = weighted(tuned_pugd(setting, lab))
    if setting.candidates == 1:
        configs = {label: configs[label] for label in (INFINITY, PUGD, *RIVALS)}
    own = choose(setting, {OWN: rated(setting, configs[INFINITY])}, lab)
    arms = train(setting, configs | own, first_seed, lab)
    constant = {label: arms[label] for label in CONSTANT if label in arms}
    panels = [
        _sweep(setting, constant),
        Panel(f"{setting.name}: training", "epoch", "training accuracy, %", curves(constant, "train_accuracy")),
    ]
    return Finding(rows(setting, arms, PUGD), panels, _checks(setting, arms), _reading(setting, arms))


def _sweep(setting: Setting, constant: Mapping[str, Trained]) -> Panel:
    share = [1 / (1 + float(CONSTANT[label])) for label in constant]
    values = [list(accuracy(arm)) for arm in constant.values()]
    line = Line("PUGD's learning rate", share, values)
    return Panel(setting.name, "weight of the perturbed gradient, 1 / (1 + s)", "test accuracy, %", [line])


def _checks(setting: Setting, arms: Mapping[str, Trained]) -> list[Check]:
    return [
        *(above(f"{setting.name}: {label} above s = 1", arms[label], arms[PUGD]) for label in RIVALS),
        above(f"{setting.name}: s = 1 above s = inf, each at its own rate", arms[PUGD], arms[OWN]),
    ]


def _reading(setting: Setting, arms: Mapping[str, Trained]) -> str:
    rates = ", ".join(f"{label} {arms[label].config.parts.lr.arguments[0]:g}" for label in (PUGD, OWN))
    cosine, old, new = (show(arms[PUGD].metric(k)[-1]) for k in ("cosine", "grad_norm", "perturbed_grad_norm"))
    return (
        f"{setting.name}: in PUGD's last epoch cos(g, g*) is {cosine}, |g| {old} and |g*| {new}; "
        f"learning rates: {rates}."
    )
