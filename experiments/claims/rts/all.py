"""Radius, timing and scale together gain 3.2 % on average.

**Statement.** *Radius-Timing-Scale in PUGD Optimization*; draft, code and runs of its author at
https://github.com/eeyzs1/CV_RTS: the abstract claims +3.2 % on average for the three together. No run with the three
together is among the author's; radius with scale gained 0.2 points on CIFAR-10 and 0.3 on CIFAR-100, one seed each.

**Setting.** As `rts.early`, with its three variants and two of RTS: the library's defaults (radius rising with mean 1,
PUGD after a tenth of the training, s = 1), and the paper's shapes (radius half a cosine from 2, PUGD after a quarter, s
falling along a quarter of a cosine from 1.57). RTS takes 1.75 to 1.9 gradient evaluations per step, so the control with
twice the epochs of SGD has slightly more.

**Hyperparameters.** Learning rate and weight decay of each variant; and, by the same validation accuracies, the one of
the two RTS variants that is compared with the others.

**Success criteria.** In each setting, by test accuracy after the last epoch: RTS is above PUGD, and more than 3.2
points above the mean of SGD and PUGD, the baselines. Also tested: it is above SGD with as many epochs, with twice as
many, and, where labels are wrong, stopped early.
"""

import math

from experiments.claims.conditions import Condition, above
from experiments.claims.rts.settings import SETTINGS, references
from experiments.claims.setting import Setting, Variant
from experiments.claims.study import Outcome, Study, above_sgd, courses, rows
from experiments.claims.variants import method

GAIN = 3.2
FORMS = {
    "RTS, defaults": {},
    "RTS, paper's shapes": {
        "radius": "cosine:2.0:0.0",
        "when": "after:0.25",
        "scale": f"quarter:cos:{math.pi / 2:.6g}:0.0",
    },
}


def variants(setting: Setting) -> dict[str, Variant]:
    """SGD, SGD for longer, PUGD, and RTS with the library's defaults and with the paper's shapes."""
    forms = {label: Variant(method(setting.base, "rts_pugd", **options)) for label, options in FORMS.items()}
    return references(setting) | forms


def _conditions(outcome: Outcome) -> list[Condition]:
    winner = outcome.preferred(*FORMS)
    baselines = (outcome["SGD"].accuracy + outcome["PUGD"].accuracy) / 2
    gain = f"{winner}, gains {GAIN} points over the mean of SGD and PUGD"
    return [
        outcome.above(f"{winner}, above PUGD", winner, "PUGD"),
        above(outcome.named(gain), outcome[winner].accuracy, baselines, least=GAIN, margin=0.0, unit="points"),
        *(
            outcome.above(f"{winner}, above {label}", winner, label, "extra")
            for label in outcome.variants
            if label.startswith("SGD")
        ),
    ]


STUDY = Study(SETTINGS, variants, _conditions, courses, above_sgd, lambda outcome: rows(outcome, "PUGD"))
