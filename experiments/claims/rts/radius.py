"""A scheduled radius beats the constant one of equal mean.

**Statement.** *Radius-Timing-Scale in PUGD Optimization*; draft, code and runs of its author at
https://github.com/eeyzs1/CV_RTS: schedules of the radius (half a cosine; quarter waves that fall or rise) beat PUGD's
constant 1. Its schedules differ in mean as well as in shape; one seed each.

**Setting.** As `rts.early`. PUGD with the radius constant, falling (half a cosine, once or four times over, with
restarts; a quarter of a cosine) or rising (a quarter of a sine), from or to 0, scaled to a mean of 1, PUGD's radius.
Constants of 0.5 and 1.5 show what the radius itself is worth.

**Hyperparameters.** Learning rate and weight decay of each variant; and, by the same validation accuracies, the
schedule and the other constant of the last criterion.

**Success criteria.** In each setting, by test accuracy after the last epoch: each of the four schedules is above the
constant of equal mean. At first only the one that validation prefers was tested, and the claim held; but the statement
is about all. Also tested: the schedule that validation prefers is above the other constant that it prefers.
"""

import math

from experiments.claims.claim import Panel
from experiments.claims.conditions import Condition
from experiments.claims.rts.settings import SETTINGS
from experiments.claims.setting import Setting, Variant
from experiments.claims.study import Outcome, Study, rows
from experiments.claims.variants import method
from experiments.report.stats import show

CONSTANT = "constant 1"
WAVE = f"{math.pi / 2:.6g}"
"""Height of a quarter wave of mean 1."""
SCHEDULES = {
    "half cosine, falls": "cosine:2.0:0.0",
    "half cosine, four times": "cosine:2.0:0.0:cycles=4",
    "cosine, falls": f"quarter:cos:{WAVE}:0.0",
    "sine, rises": f"quarter:sin:{WAVE}:0.0",
}
OTHERS = {"constant 0.5": "0.5", "constant 1.5": "1.5"}


def variants(setting: Setting) -> dict[str, Variant]:
    """PUGD with its constant radius, with every schedule of mean 1, and with two other constants; or one of each."""
    shapes, others = ({k: kind[k] for k in list(kind)[: 1 if setting.tiny else None]} for kind in (SCHEDULES, OTHERS))
    radii = {CONSTANT: "1.0"} | shapes | others
    return {label: Variant(method(setting.base, "pugd", radius=radius)) for label, radius in radii.items()}


def _conditions(outcome: Outcome) -> list[Condition]:
    schedule, rival = (outcome.preferred(*outcome.among(labels)) for labels in (SCHEDULES, OTHERS))
    return [
        *(outcome.above(f"{label}, above {CONSTANT}", label, CONSTANT) for label in outcome.among(SCHEDULES)),
        outcome.above(f"{schedule}, above {rival}", schedule, rival, "extra"),
    ]


def _panels(outcome: Outcome) -> list[Panel]:
    return [
        outcome.curves("radius of mean 1", outcome.only(CONSTANT, *outcome.among(SCHEDULES))),
        outcome.curves("constant radius", outcome.only(CONSTANT, *outcome.among(OTHERS))),
    ]


def _summary(outcome: Outcome) -> str:
    cosine = ", ".join(f"{label} {show(variant.metric('cosine')[-1])}" for label, variant in outcome.variants.items())
    return f"cos(g, g*) in the last epoch: {cosine}."


STUDY = Study(SETTINGS, variants, _conditions, _panels, _summary, lambda outcome: rows(outcome, CONSTANT))
