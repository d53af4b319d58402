"""Weighting the old gradient against the perturbed one beats PUGD's plain sum.

**Statement.** *Radius-Timing-Scale in PUGD Optimization*; draft, code and runs of its author at
https://github.com/eeyzs1/CV_RTS: PUGD's g + g* gives the old gradient too much weight; a scale s(t) in s g + g*, on a
schedule or following the gradients, does better. The schedules reported are the best of dozens, with one seed each.

**Setting.** As `rts.early`. PUGD with s constant (infinity is normalised SGD, 1 is PUGD, 0.25 the mix of GNP, 0 a
normalised SAM along PUGD's direction), falling along a quarter of a cosine to 0 with mean 1, and by the rules
`norm_ratio` and `cosine`. The direction is a unit vector whatever s is, so steps before momentum are equally long.

**Hyperparameters.** Learning rate and weight decay of each variant.

**Success criteria.** In each setting, by test accuracy after the last epoch: less of the old gradient (s = 0.25), the
schedule and the rule `norm_ratio` are each above s = 1. Also tested: s = 1 is above s = infinity.
"""

import math

from experiments.claims.claim import Line, Panel
from experiments.claims.conditions import Condition
from experiments.claims.rts.settings import SETTINGS
from experiments.claims.setting import Setting, Variant
from experiments.claims.study import Outcome, Study, rows
from experiments.claims.variants import method
from experiments.report.stats import show

PUGD = "s = 1"
INFINITY = "s = inf"
CONSTANT = {INFINITY: "1e6", "s = 4": "4", PUGD: "1", "s = 0.25": "0.25", "s = 0": "0"}
RIVALS = ("s = 0.25", "s falls", "s = |g*| / |g|")
SCALES = CONSTANT | {
    "s falls": f"quarter:cos:{math.pi / 2:.6g}:0.0",
    "s = |g*| / |g|": "norm_ratio",
    "s = cos(g, g*)": "cosine",
}


def variants(setting: Setting) -> dict[str, Variant]:
    """PUGD and every other weighting; at smoke scale those of the success criteria alone."""
    labels = (PUGD, INFINITY, *RIVALS) if setting.tiny else (PUGD, *(label for label in SCALES if label != PUGD))
    return {label: Variant(method(setting.base, "pugd", scale=SCALES[label])) for label in labels}


def _conditions(outcome: Outcome) -> list[Condition]:
    return [
        *(outcome.above(f"{label} above s = 1", label, PUGD) for label in RIVALS),
        outcome.above("s = 1 above s = inf", PUGD, INFINITY, "extra"),
    ]


def _panels(outcome: Outcome) -> list[Panel]:
    constant = {label: outcome[label] for label in CONSTANT if label in outcome.variants}
    share = [1 / (1 + float(CONSTANT[label])) for label in constant]
    line = Line("each at its own rate", share, [list(variant.accuracy) for variant in constant.values()])
    x = "weight of the perturbed gradient, 1 / (1 + s)"
    return [
        Panel(outcome.setting.name, x, "test accuracy, %", [line]),
        outcome.curves("training", constant, "train_accuracy"),
    ]


def _summary(outcome: Outcome) -> str:
    keys = ("cosine", "grad_norm", "perturbed_grad_norm")
    cosine, old, new = (show(outcome[PUGD].metric(key)[-1]) for key in keys)
    return f"in PUGD's last epoch cos(g, g*) is {cosine}, |g| {old} and |g*| {new}."


STUDY = Study(SETTINGS, variants, _conditions, _panels, _summary, lambda outcome: rows(outcome, PUGD))
