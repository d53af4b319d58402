"""A radius on a schedule beats the constant one of equal mean.

**Paper.** *Radius-Timing-Scale in PUGD Optimization*; draft, code and runs of its author at
https://github.com/eeyzs1/CV_RTS: schedules of the radius (half a cosine; quarter waves that fall or rise) beat PUGD's
constant 1. Its schedules differ in mean as well as in shape, one seed each.

**Setting.** As `rts.early`. PUGD with the radius constant, falling (half a cosine; a quarter of a cosine) or rising (a
quarter of a sine), from or to 0, stretched to a mean of 1, which is PUGD's radius. Constants of 0.5 and 1.5 show what
the radius itself is worth.

**Chosen.** By validation accuracy on two seeds of their own: the learning rate, PUGD's in `rts.early` for all; and the
schedule and the other constant that meet it.

**Decides.** In each setting, by test accuracy after the last epoch: the schedule chosen is above the constant of equal
mean; and above the other constant that validation prefers.

**Seen.** The rising sine has the highest mean in both settings; on the clean images it gains 1.0 ± 0.7 points, and the
falling schedules lose 0.4 ± 0.6 and 0.6 ± 0.7, in the order of their fit (training accuracy 97 %, constant 94 %,
falling 93 %). A falling radius starts at about twice the mean and is gone in the last epoch, cos(g, g*) = 1, when a
step of PUGD is one of normalised SGD. On the digits no shape of mean 1 differs from the constant by more than 0.6 ± 1.2
points.
"""

import math
from collections.abc import Mapping

from experiments.claims.claim import Check, Finding, Panel
from experiments.claims.rts.settings import settings, tuned_pugd
from experiments.claims.study import (
    Lab,
    Scale,
    Setting,
    Trained,
    above,
    across,
    curves,
    method,
    rows,
    train,
    try_out,
    validation,
)
from experiments.config.schema import Config
from experiments.report.stats import show

CONSTANT = "constant 1"
OTHERS = {"constant 0.5": 0.5, "constant 1.5": 1.5}


def run(scale: Scale, first_seed: int, lab: Lab) -> Finding:
    """Every shape at mean 1, and two other constants."""
    return across(settings(scale, lab), lambda setting: _find(setting, first_seed, lab), lab)


def shapes(pugd: Config) -> dict[str, Config]:
    """PUGD with a radius of mean 1, in every shape; the mean of a quarter wave is 2 / pi of its height."""
    wave = f"{math.pi / 2:.6g}"
    radii = {
        "half cosine, falls": "cosine:2.0:0.0",
        "cosine, falls": f"quarter:cos:{wave}:0.0",
        "sine, rises": f"quarter:sin:{wave}:0.0",
    }
    return {CONSTANT: pugd} | {shape: method(pugd, "pugd", radius=radius) for shape, radius in radii.items()}


def _find(setting: Setting, first_seed: int, lab: Lab) -> Finding:
    pugd = tuned_pugd(setting, lab)
    equal = shapes(pugd)
    others = {label: method(pugd, "pugd", radius=radius) for label, radius in OTHERS.items()}
    schedules = {shape: [config] for shape, config in equal.items() if shape != CONSTANT}
    tried = try_out(setting, schedules | {label: [config] for label, config in others.items()}, lab)
    chosen, rival = (max(labels, key=lambda label: validation(tried[label][0])) for labels in (schedules, OTHERS))
    arms = train(setting, equal | others, first_seed, lab)
    panels = [
        Panel(f"{setting.name}: {title}", "epoch", "validation accuracy, %", curves({k: arms[k] for k in labels}))
        for title, labels in (("radius of mean 1", equal), ("constant radius", (CONSTANT, *OTHERS)))
    ]
    reading = _reading(setting, arms)
    return Finding(rows(setting, arms, CONSTANT), panels, _checks(setting, arms, chosen, rival), reading)


def _checks(setting: Setting, arms: Mapping[str, Trained], chosen: str, rival: str) -> list[Check]:
    return [above(f"{setting.name}: {chosen}, above {label}", arms[chosen], arms[label]) for label in (CONSTANT, rival)]


def _reading(setting: Setting, arms: Mapping[str, Trained]) -> str:
    cosine = ", ".join(f"{label} {show(arm.metric('cosine')[-1])}" for label, arm in arms.items())
    return f"{setting.name}: cos(g, g*) in the last epoch: {cosine}."
