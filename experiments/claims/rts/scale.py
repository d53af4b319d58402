"""Weighting the old gradient against the perturbed one beats PUGD's plain sum.

**Statement.** *Radius-Timing-Scale in PUGD Optimization*; draft, code and runs of its author at
https://github.com/eeyzs1/CV_RTS: PUGD's g + g* gives the old gradient too much weight; a scale s(t) in s g + g*, on a
schedule or following the gradients, does better. Best schedules of dozens; one seed each.

**Setting.** As `rts.early`. PUGD with s constant (infinity is normalised SGD, 1 is PUGD, 0.25 the mix of GNP, 0 a
normalised SAM along PUGD's direction), falling along a quarter of a cosine to 0 with mean 1, and by the rules
`norm_ratio` and `cosine`. The direction is a unit vector whatever s is, so steps before momentum are equally long.

**Hyperparameters.** By validation accuracy on two seeds of their own: the learning rate, PUGD's in `rts.early` for all
variants; and, as a control of the effective learning rate, a rate of its own for s = infinity among the same three.

**Success criteria.** In each setting, by test accuracy after the last epoch: less of the old gradient (s = 0.25), the
schedule and the rule `norm_ratio` are each above s = 1. Besides: s = 1 is above s = infinity, each at its own rate.

**Observations.** A smaller weight on the old gradient reduces the fit in both settings: training accuracy falls from 80
% at s = 1 to 71 % at 0 on the digits, from 94 to 79 % on the clean images, and test accuracy with it. How much weight
helps depends on what there is to gain: with wrong labels s = 1 leads, and normalised gradient descent without a second
gradient (s = infinity, own rate) ends 2.4 ± 1.1 points below it; on clean images more of the old gradient is better, by
0.8 ± 0.6 points at s = 4.
"""

import math
from collections.abc import Mapping

from experiments.claims.claim import Line, Panel
from experiments.claims.conditions import Condition
from experiments.claims.rts.settings import SETTINGS, rated
from experiments.claims.study import Outcome, Study, rows
from experiments.claims.variants import method
from experiments.claims.workspace import Setting
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


def tuned(setting: Setting, chosen: Mapping[str, Config]) -> dict[str, list[Config]]:
    """PUGD, whose learning rate is that of all weightings."""
    del chosen
    return {PUGD: rated(setting, method(setting.base, "pugd"))}


def weighted(setting: Setting, chosen: Mapping[str, Config]) -> dict[str, list[Config]]:
    """PUGD with every weighting; at smoke scale with those of the success criteria alone."""
    labels = [label for label in SCALES if label != PUGD]
    labels = [INFINITY, *RIVALS] if setting.candidates == 1 else labels
    return {label: [method(chosen[PUGD], "pugd", scale=SCALES[label])] for label in labels}


def own_rate(setting: Setting, chosen: Mapping[str, Config]) -> dict[str, list[Config]]:
    """Unit gradient descent with a learning rate of its own."""
    return {OWN: rated(setting, chosen[INFINITY])}


def _conditions(outcome: Outcome) -> list[Condition]:
    return [
        *(outcome.above(f"{label} above s = 1", label, PUGD) for label in RIVALS),
        outcome.above("s = 1 above s = inf, each at its own rate", PUGD, OWN, "extra"),
    ]


def _panels(outcome: Outcome) -> list[Panel]:
    constant = {label: outcome[label] for label in CONSTANT if label in outcome.variants}
    share = [1 / (1 + float(CONSTANT[label])) for label in constant]
    line = Line("PUGD's learning rate", share, [list(variant.accuracy) for variant in constant.values()])
    x = "weight of the perturbed gradient, 1 / (1 + s)"
    return [
        Panel(outcome.setting.name, x, "test accuracy, %", [line]),
        outcome.curves("training", constant, "train_accuracy"),
    ]


def _summary(outcome: Outcome) -> str:
    rates = ", ".join(f"{label} {outcome[label].rate}" for label in (PUGD, OWN))
    keys = ("cosine", "grad_norm", "perturbed_grad_norm")
    cosine, old, new = (show(outcome[PUGD].metric(key)[-1]) for key in keys)
    return f"in PUGD's last epoch cos(g, g*) is {cosine}, |g| {old} and |g*| {new}; learning rates: {rates}."


STUDY = Study(
    SETTINGS, (tuned, weighted, own_rate), _conditions, _panels, _summary, lambda outcome: rows(outcome, PUGD)
)
