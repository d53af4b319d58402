"""Radius, timing and scale work together: each helps, and all three more than the sum of their parts.

**Statement.** *Radius-Timing-Scale in PUGD Optimization*; draft, code and runs of its author at
https://github.com/eeyzs1/CV_RTS: its abstract speaks of the synergy of radius and timing, and of three controls that
complete one another. Pairs and the three together are not among the author's runs.

**Setting.** As `rts.early`. PUGD at radius 1, with each subset of the paper's shapes: R, the radius falls along half a
cosine from 2; T, PUGD from a quarter of the training on; S, s falls along a quarter of a cosine from 1.57.

**Hyperparameters.** Learning rate and weight decay of each of the eight variants.

**Success criteria.** In each setting, by test accuracy after the last epoch: R, T and S are each above PUGD, and the
gain of the three together exceeds the sum of their three gains, the synergy. Also tested: the main effect of each over
all four pairs of variants that differ in it alone, and the synergy of each pair, are above 0.
"""

import itertools
import math

import numpy as np

from experiments.claims.claim import Line, Panel
from experiments.claims.conditions import Condition, above
from experiments.claims.rts.settings import SETTINGS
from experiments.claims.setting import Setting, Variant
from experiments.claims.study import MARGIN, Outcome, Study, rows
from experiments.claims.variants import method
from experiments.report.stats import show

PUGD, FACTORS = "PUGD", "RTS"
ON = {"radius": "cosine:2.0:0.0", "when": "after:0.25", "scale": f"quarter:cos:{math.pi / 2:.6g}:0.0"}
SUBSETS = tuple("".join(s) for n in range(4) for s in itertools.combinations(FACTORS, n))


def variants(setting: Setting) -> dict[str, Variant]:
    """PUGD with every subset of the three."""
    return {subset or PUGD: Variant(_config(setting, subset)) for subset in SUBSETS}


def _config(setting: Setting, subset: str):
    chosen = {key: text for factor, (key, text) in zip(FACTORS, ON.items(), strict=True) if factor in subset}
    if "T" in subset:  # the options of rts_pugd that are not named have schedules of their own
        chosen = {"radius": "1.0", "scale": "1.0"} | chosen
        return method(setting.base, "rts_pugd", **{key: chosen[key] for key in ON})
    return method(setting.base, "pugd", **chosen)


def gain(outcome: Outcome, subset: str) -> np.ndarray:
    """Points above PUGD, [seeds]."""
    return outcome[subset or PUGD].accuracy - outcome[PUGD].accuracy


def synergy(outcome: Outcome, subset: str) -> np.ndarray:
    """What a subset gains beyond the sum of what its members gain alone, in points, [seeds]."""
    return gain(outcome, subset) - sum(gain(outcome, factor) for factor in subset)


def main_effect(outcome: Outcome, factor: str) -> np.ndarray:
    """The mean gain of a factor over all variants without it, in points, [seeds]."""
    pairs = [("".join(f for f in FACTORS if f in s or f == factor), s) for s in SUBSETS if factor not in s]
    return np.mean([gain(outcome, more) - gain(outcome, less) for more, less in pairs], axis=0)


def _conditions(outcome: Outcome) -> list[Condition]:
    asked = {f"synergy of {' and '.join(pair)}": synergy(outcome, pair) for pair in SUBSETS if len(pair) == 2}
    asked |= {f"main effect of {factor}": main_effect(outcome, factor) for factor in FACTORS}
    together = outcome.named("gain of the three above the sum of the three gains")
    return [
        *(outcome.above(f"{factor} above PUGD", factor, PUGD) for factor in FACTORS),
        above(together, synergy(outcome, FACTORS), margin=MARGIN, unit="points"),
        *(above(outcome.named(k), v, margin=MARGIN, kind="extra", unit="points") for k, v in asked.items()),
    ]


def _panels(outcome: Outcome) -> list[Panel]:
    lines = [Line(subset, [0.0], [list(gain(outcome, subset))]) for subset in SUBSETS if subset]
    return [Panel(outcome.setting.name, "test accuracy above PUGD's, points", "", lines, kind="points")]


def _summary(outcome: Outcome) -> str:
    gains = ", ".join(f"{subset} {show(gain(outcome, subset))}" for subset in SUBSETS if subset)
    return f"points above PUGD: {gains}; synergy of the three {show(synergy(outcome, FACTORS))}."


STUDY = Study(SETTINGS, variants, _conditions, _panels, _summary, lambda outcome: rows(outcome, PUGD))
