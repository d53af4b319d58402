"""A radius steered to one target cosine ends within a point of a radius tuned for each task.

**Statement.** Ours, in the spirit of *Radius-Timing-Scale in PUGD Optimization*
(https://github.com/eeyzs1/CV_RTS), which chooses the radius by hand: with `schedules.target_cosine` one target serves
tasks whose best radii are far apart.

**Setting.** 2500 images, MLP, 30 epochs, batch 128, cosine learning rate: Fashion-MNIST with clean labels and with 40 %
of them wrong, MNIST with 40 % of the labels of five digits replaced by the digit they are mistaken for. SAM with its
radius tuned for each task, SAM at the radius 0.05 of its paper, SAM steered to cos(g, g*) = 0.8 on all tasks, and SGD.

**Hyperparameters.** Learning rate and weight decay of each variant, and the radius of the tuned one. The target 0.8 was
chosen by a pilot on these tasks, on other seeds, at fewer rates.

**Success criteria.** In each setting, by test accuracy after the last epoch: the steered SAM is within one point of the
one whose radius was tuned. Also tested: it is above SAM at radius 0.05, and above SGD.
"""

import dataclasses

from experiments.claims.claim import Panel, Scale
from experiments.claims.conditions import Condition
from experiments.claims.lpg.common import FASHION, SMOKE, small
from experiments.claims.setting import Setting, Variant, option, rates
from experiments.claims.study import Outcome, Study, rows
from experiments.claims.variants import method
from experiments.report.stats import show

TUNED, STEERED, FIXED, PLAIN = "SAM, radius tuned", "SAM, cosine 0.8", "SAM, radius 0.05", "SGD"
_SMALL = dataclasses.replace(FASHION, train_size=2500)
_FULL = {
    "clean": _SMALL,
    "symmetric": dataclasses.replace(_SMALL, noise="symmetric:0.4"),
    "asymmetric": dataclasses.replace(_SMALL, dataset="mnist", noise="asymmetric:0.4"),
}
_PAPER = Setting(
    "CIFAR-10, 100 epochs",
    dataclasses.replace(
        FASHION, dataset="cifar10", model="resnet18", norm="batch", dtype="bfloat16", epochs=100, devices=None
    ),
    (rates(0.03, 0.1, 0.3),),
    choosing_seeds=1,
    most_seeds=3,
)
SETTINGS: dict[Scale, tuple[Setting, ...]] = {
    "smoke": (Setting("clean digits", SMOKE, (rates(0.1),), most_seeds=2, tiny=True),),
    "full": tuple(small(name, base) for name, base in _FULL.items()),
    "paper": (_PAPER,),
}


def variants(setting: Setting) -> dict[str, Variant]:
    """SAM with a tuned, a steered and a fixed radius, and plain training."""
    base = setting.base
    return {
        TUNED: Variant(method(base, "sam"), (option("radius", 0.1, 0.2, 0.5),)),
        STEERED: Variant(method(base, "sam", radius="target_cosine:0.8")),
        FIXED: Variant(method(base, "sam", radius="0.05")),
        PLAIN: Variant(base),
    }


def _conditions(outcome: Outcome) -> list[Condition]:
    return [
        outcome.within("steered within one point of tuned", STEERED, TUNED),
        *(outcome.above(f"steered above {label}", STEERED, label, "extra") for label in (FIXED, PLAIN)),
    ]


def _panels(outcome: Outcome) -> list[Panel]:
    return [outcome.curves("", outcome.variants)]


def _summary(outcome: Outcome) -> str:
    radius = outcome.choices[TUNED].chosen.get("radius")
    cosine = ", ".join(f"{label} {show(outcome[label].metric('cosine')[-1])}" for label in (TUNED, STEERED, FIXED))
    return f"the radius chosen was {radius:g}; cos(g, g*) in the last epoch: {cosine}."


STUDY = Study(SETTINGS, variants, _conditions, _panels, _summary, lambda outcome: rows(outcome, TUNED))
