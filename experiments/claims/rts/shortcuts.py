"""A perturbed gradient keeps its gain when the second gradient is on part of the batch or on part of the steps.

**Statement.** Four papers make a perturbed step cheaper than two gradients and report no loss: on some of the examples
(ESAM, https://arxiv.org/abs/2110.03141), on some of the steps, its direction reused in between (LookSAM,
https://arxiv.org/abs/2203.02714), without a second gradient (momentum SAM, https://arxiv.org/abs/2401.12033), on some
of the steps alone (RTS, https://github.com/eeyzs1/CV_RTS). For PUGD: a quarter of the batch, or a reused direction.

**Setting.** As `rts.early`: 350 handwritten digits with a fifth of the training labels wrong, ResNet-8, 20 epochs; if
there is a data folder, also 1000 clean images of Fashion-MNIST, MLP, 30 epochs. RTS is PUGD in the last steps alone,
its radius rising along a quarter of a sine. ESAM's second gradient is on the half of the batch whose loss rises most,
which it finds by a forward pass; LookSAM has the radius 0.1. The cost of a run is counted in gradient evaluations, a
forward pass as a third of one.

**Hyperparameters.** Learning rate and weight decay of each variant, and its own hyperparameter: radius, or weight of
the reused direction.

**Success criteria.** In each setting, by test accuracy after the last epoch: PUGD on a quarter of the batch, PUGD that
reuses its direction on four of five steps, and RTS in half of the steps are each within one point of PUGD; LookSAM and
ESAM are each within one point of SAM. Also tested: the first three are above SGD.

**Observations.** On Fashion-MNIST neither SAM nor PUGD is above SGD, so that there is no gain to keep: the criteria say
there that no shortcut does harm. Momentum SAM is in the table without a criterion: it ends where SGD does.
"""

import dataclasses
import math

from experiments.claims.claim import Line, Panel
from experiments.claims.conditions import Condition
from experiments.claims.rts.settings import SETTINGS
from experiments.claims.setting import Axis, Setting, Variant, option
from experiments.claims.study import Outcome, Study, cost, rows
from experiments.claims.variants import method, stretch
from experiments.config.schema import Config
from experiments.report.stats import interval, show

QUARTER, REUSED, HALF = "PUGD, quarter of the batch", "PUGD, reused on 4 of 5 steps", "RTS, last half"
LOOKSAM, ESAM = "LookSAM, every 5th step", "ESAM, half of the batch"
KEEPS = {QUARTER: "PUGD", REUSED: "PUGD", HALF: "PUGD", LOOKSAM: "SAM", ESAM: "SAM"}
"""A variant and the one whose gain it keeps."""


def shortcuts(setting: Setting) -> dict[str, Variant]:
    """Every variant with the hyperparameter of its own; at smoke scale without those that no criterion asks for."""
    base = setting.base
    quarter, half = (dataclasses.replace(base, second_batch=text) for text in ("0.25", "raised:0.5"))
    radius = option("radius", 0.5, 1.0, 2.0)
    small = option("radius", 0.05, 0.1, 0.2)
    variants = {
        "SGD": Variant(base),
        "SAM": Variant(method(base, "sam"), (small,)),
        "PUGD": Variant(method(base, "pugd"), (radius,)),
        LOOKSAM: Variant(method(base, "looksam", radius=0.1, every=5), (option("alpha", 0.1, 0.2, 0.4),)),
        ESAM: Variant(method(half, "esam"), (option("radius", 0.01, 0.02, 0.05),)),
        QUARTER: Variant(method(quarter, "pugd"), (radius,)),
        REUSED: Variant(method(base, "pugd", idle="reuse", when="every:5"), (radius,)),
        HALF: _late(base, 0.5),
    }
    if setting.tiny:
        return variants
    return variants | {
        "SGD, twice the epochs": Variant(stretch(base, 2)),
        "momentum SAM": Variant(method(base, "momentum_sam"), (small,)),
        "RTS, last tenth": _late(base, 0.1),
        "RTS, last quarter": _late(base, 0.25),
    }


def _late(base: Config, fraction: float) -> Variant:
    """RTS in the last part of training, its radius rising along a quarter of a sine from 0, of such a mean."""
    rising = Axis(
        "mean radius",
        (0.5, 1.0, 2.0),
        lambda config, mean: method(
            config, "rts_pugd", radius=f"quarter:sin:{mean * math.pi / 2:.6g}:0.0", when=f"after:{1 - fraction:g}"
        ),
    )
    return Variant(base, (rising,))


def _conditions(outcome: Outcome) -> list[Condition]:
    above = [outcome.above(f"{label}, above SGD", label, "SGD", "extra") for label in (QUARTER, REUSED, HALF)]
    kept = [outcome.within(f"{label}, within one point of {of}", label, of) for label, of in KEEPS.items()]
    return above + kept


def _panels(outcome: Outcome) -> list[Panel]:
    lines = [
        Line(label, [interval(cost(v, outcome.setting)).mean], [list(v.accuracy)])
        for label, v in outcome.variants.items()
    ]
    x = "gradient evaluations, SGD's are 1"
    return [Panel(outcome.setting.name, x, "test accuracy, %", lines, kind="scatter")]


def _summary(outcome: Outcome) -> str:
    sgd = outcome["SGD"].accuracy
    gains = ", ".join(
        f"{label} {show(v.accuracy - sgd)} at {interval(cost(v, outcome.setting)).mean:.2f}"
        for label, v in outcome.variants.items()
        if label != "SGD"
    )
    return f"points above SGD, and gradient evaluations: {gains}."


STUDY = Study(SETTINGS, shortcuts, _conditions, _panels, _summary, lambda outcome: rows(outcome, "SGD"))
