"""A scheduled radius beats the constant one of equal mean.

**Statement.** *Radius-Timing-Scale in PUGD Optimization*; draft, code and runs of its author at
https://github.com/eeyzs1/CV_RTS: schedules of the radius (half a cosine; quarter waves that fall or rise) beat PUGD's
constant 1. Its schedules differ in mean as well as in shape; one seed each.

**Setting.** As `rts.early`. PUGD with the radius constant, falling (half a cosine; a quarter of a cosine) or rising (a
quarter of a sine), from or to 0, scaled to a mean of 1, PUGD's radius. Constants of 0.5 and 1.5 show what the radius
itself is worth.

**Hyperparameters.** By validation accuracy on two seeds of their own: the learning rate, PUGD's in `rts.early` for all
variants; and the schedule and the other constant that are compared.

**Success criteria.** In each setting, by test accuracy after the last epoch: the chosen schedule is above the constant
of equal mean. Besides: above the other constant that validation prefers.

**Observations.** The rising sine has the highest mean in both settings. On the clean images it gains 1.0 ± 0.7 points,
and the falling schedules lose 0.4 ± 0.6 and 0.6 ± 0.7, in the order of their fit (training accuracy 97 %, constant 94
%, falling 93 %). A falling radius starts at about twice the mean and vanishes in the last epoch, cos(g, g*) = 1, where
a step of PUGD is one of normalised SGD. On the digits no shape of mean 1 differs from the constant by more than 0.6 ±
1.2 points.
"""

import math
from collections.abc import Mapping

from experiments.claims.claim import Panel
from experiments.claims.conditions import Condition
from experiments.claims.rts.settings import SETTINGS, rated
from experiments.claims.study import Outcome, Study, rows
from experiments.claims.variants import method
from experiments.claims.workspace import Setting
from experiments.config.schema import Config
from experiments.report.stats import show

CONSTANT = "constant 1"
WAVE = f"{math.pi / 2:.6g}"
"""Height of a quarter wave of mean 1."""
SCHEDULES = {
    "half cosine, falls": "cosine:2.0:0.0",
    "cosine, falls": f"quarter:cos:{WAVE}:0.0",
    "sine, rises": f"quarter:sin:{WAVE}:0.0",
}
OTHERS = {"constant 0.5": "0.5", "constant 1.5": "1.5"}


def tuned(setting: Setting, chosen: Mapping[str, Config]) -> dict[str, list[Config]]:
    """PUGD, whose learning rate is that of all others."""
    del chosen
    return {CONSTANT: rated(setting, method(setting.base, "pugd"))}


def shapes(setting: Setting, chosen: Mapping[str, Config]) -> dict[str, list[Config]]:
    """PUGD with a radius of mean 1 in every shape, and with two other constants."""
    del setting
    pugd = chosen[CONSTANT]
    return {label: [method(pugd, "pugd", radius=radius)] for label, radius in (SCHEDULES | OTHERS).items()}


def _conditions(outcome: Outcome) -> list[Condition]:
    schedule, rival = outcome.preferred(*SCHEDULES), outcome.preferred(*OTHERS)
    return [
        outcome.above(f"{schedule}, above {CONSTANT}, of equal mean", schedule, CONSTANT),
        outcome.above(f"{schedule}, above {rival}", schedule, rival, "extra"),
    ]


def _panels(outcome: Outcome) -> list[Panel]:
    return [
        outcome.curves("radius of mean 1", outcome.only(CONSTANT, *SCHEDULES)),
        outcome.curves("constant radius", outcome.only(CONSTANT, *OTHERS)),
    ]


def _summary(outcome: Outcome) -> str:
    cosine = ", ".join(f"{label} {show(variant.metric('cosine')[-1])}" for label, variant in outcome.variants.items())
    return f"cos(g, g*) in the last epoch: {cosine}."


STUDY = Study(SETTINGS, (tuned, shapes), _conditions, _panels, _summary, lambda outcome: rows(outcome, CONSTANT))
