"""A radius on a schedule beats the constant one of equal mean.

**Paper.** *Radius-Timing-Scale in PUGD Optimization*; draft, code and runs of its author at
https://github.com/eeyzs1/CV_RTS: schedules of the radius (half a cosine; quarter waves that fall or rise) beat PUGD's
constant 1. Its schedules differ in mean as well as in shape, one seed each.

**Setting.** As `rts.early`. PUGD with the radius constant, falling (half a cosine; a quarter of a cosine) or rising (a
quarter of a sine), from or to 0, stretched to the same mean; the radius stays at or below 3.

**Chosen.** By validation accuracy on two seeds of their own: the learning rate, PUGD's in `rts.early` for all shapes;
the mean of each shape among 1, 0.5 and 1.5; the schedule that meets the constant.

**Decides.** In each setting, by test accuracy after the last epoch: the schedule chosen at mean 1 is above the constant
of mean 1; the best schedule is above the constant, each at its chosen mean.
"""

import math
from collections.abc import Mapping, Sequence

from experiments.claims.claim import Check, Finding, Line, Panel, show
from experiments.claims.rts_settings import SETTINGS, tuned_pugd
from experiments.claims.training import (
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
from experiments.config import Config

CONSTANT = "constant"
MEANS = (1.0, 0.5, 1.5)


def run(scale: Scale, first_seed: int, lab: Lab) -> Finding:
    """Every shape at mean 1; the best schedule and the constant at their chosen means."""
    return across(SETTINGS[scale], lambda setting: _find(setting, first_seed, lab), lab)


def shapes(pugd: Config, mean: float) -> dict[str, Config]:
    """PUGD with a radius of that mean, in every shape; the mean of a quarter wave is 2 / pi of its height."""
    wave = f"{mean * math.pi / 2:.6g}"
    radii = {
        CONSTANT: f"{mean:g}",
        "half cosine, falls": f"cosine:{2 * mean:g}:0.0",
        "cosine, falls": f"quarter:cos:{wave}:0.0",
        "sine, rises": f"quarter:sin:{wave}:0.0",
    }
    return {shape: method(pugd, "pugd", radius=radius) for shape, radius in radii.items()}


def _find(setting: Setting, first_seed: int, lab: Lab) -> Finding:
    pugd = tuned_pugd(setting, lab)
    by_mean = [shapes(pugd, mean) for mean in MEANS[: setting.candidates]]
    tried = try_out(setting, {shape: [arms[shape] for arms in by_mean] for shape in by_mean[0]}, lab)
    schedules = [shape for shape in tried if shape != CONSTANT]
    equal = max(schedules, key=lambda shape: validation(tried[shape][0]))
    overall = max(schedules, key=lambda shape: max(map(validation, tried[shape])))
    chosen = {f"{shape}, chosen mean": best(tried[shape]) for shape in (CONSTANT, overall)}
    arms = train(setting, by_mean[0] | chosen, first_seed, lab)
    return Finding(
        rows(setting, arms, CONSTANT),
        [_sweep(setting, tried), _training(setting, {shape: arms[shape] for shape in tried})],
        _checks(setting, arms, equal, overall),
        _reading(setting, arms, equal, chosen),
    )


def _checks(setting: Setting, arms: Mapping[str, Trained], equal: str, overall: str) -> list[Check]:
    schedule, constant = (f"{shape}, chosen mean" for shape in (overall, CONSTANT))
    return [
        above(f"{setting.name}: {equal}, above constant, both of mean 1", arms[equal], arms[CONSTANT]),
        above(f"{setting.name}: {overall}, above constant, each at its chosen mean", arms[schedule], arms[constant]),
    ]


def _sweep(setting: Setting, tried: Mapping[str, Sequence[Trained]]) -> Panel:
    order = sorted(range(setting.candidates), key=lambda i: MEANS[i])
    lines = [
        Line(shape, [MEANS[i] for i in order], [list(100 * found[i].metric("val_accuracy")[-1]) for i in order])
        for shape, found in tried.items()
    ]
    return Panel(f"{setting.name}: choosing", "mean radius", "validation accuracy, %", lines)


def _training(setting: Setting, arms: Mapping[str, Trained]) -> Panel:
    return Panel(f"{setting.name}: mean 1", "epoch", "validation accuracy, %", curves(arms))


def _reading(setting: Setting, arms: Mapping[str, Trained], equal: str, chosen: Mapping[str, Config]) -> str:
    lead = show(accuracy(arms[equal]) - accuracy(arms[CONSTANT]))
    means = "; ".join(f"{label}: {described(config, setting.base)}" for label, config in chosen.items())
    return f"{setting.name}: {equal}, leads the constant of mean 1 by {lead} points ({means})."
