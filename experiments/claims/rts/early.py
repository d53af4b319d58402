"""PUGD starts slower than SGD and ends higher.

**Statement.** *Radius-Timing-Scale in PUGD Optimization*; draft, code and runs of its author at
https://github.com/eeyzs1/CV_RTS: PUGD is slower than SGD early in training and ends with the better accuracy. In the
author's own runs (one seed, CIFAR-10) SGD leads in about 8 of 400 epochs.

**Setting.** 500 handwritten digits with a fifth of the training labels wrong, ResNet-8 with GroupNorm, 20 epochs; where
a data folder is named, also 1000 clean images of Fashion-MNIST, MLP, 30 epochs. Batch 50, momentum 0.9, weight decay
5e-4, cosine learning rate. Three variants: SGD; SGD with twice the epochs and a schedule of that length, which has
PUGD's gradient evaluations; PUGD at radius 1. Test accuracy is that after the last epoch.

**Hyperparameters.** The learning rate of each variant is chosen among 0.03, 0.1 and 0.3 by validation accuracy on two
seeds of their own. The digits are the demo's setting; length and network of Fashion-MNIST were looked at on two more
seeds.

**Success criteria.** In each setting: PUGD's mean validation accuracy over the first tenth of the epochs is below
SGD's, and its test accuracy above that of SGD with as many epochs. Besides: above that of SGD with as many gradient
evaluations.

**Observations.** On the digits SGD reaches its best epoch early and then learns the wrong labels: its training accuracy
ends at 96 %, PUGD's at 80 %, which is the share of correct labels. Part of PUGD's lead, 1.6 of 5.4 points, therefore
disappears where clean validation data stop the training. Clean images leave nothing of that kind to gain: SGD fits them
all, PUGD fits 94 % and ends 0.7 ± 0.6 points below. PUGD's chosen learning rate is the higher one in both settings
(0.1; SGD 0.03).
"""

import numpy as np

from experiments.claims.claim import Panel, Rows
from experiments.claims.conditions import Condition, above
from experiments.claims.rts.settings import SETTINGS, references
from experiments.claims.study import MARGIN, Outcome, Study, rows
from experiments.claims.workspace import Trained
from experiments.report.stats import show


def _early(variant: Trained) -> np.ndarray:
    """Mean validation accuracy over the first tenth of the epochs, in percent, [seeds]."""
    curve = variant.metric("val_accuracy")
    return 100 * curve[: max(1, len(curve) // 10)].mean(axis=0)


def _table(outcome: Outcome) -> Rows:
    made = rows(outcome, "SGD")
    for variant, row in zip(outcome.variants.values(), made.values(), strict=True):
        row["validation %, first tenth"] = list(_early(variant))
    return made


def _panels(outcome: Outcome) -> list[Panel]:
    return [
        outcome.curves("by epochs", outcome.only("SGD", "PUGD")),
        outcome.curves("by gradients", outcome.variants, x="gradient_evaluations"),
    ]


def _conditions(outcome: Outcome) -> list[Condition]:
    sgd, pugd = _early(outcome["SGD"]), _early(outcome["PUGD"])
    return [
        above(outcome.named("PUGD starts below SGD"), sgd, pugd, margin=MARGIN, unit="points"),
        outcome.above("PUGD ends above SGD, equal epochs", "PUGD", "SGD"),
        outcome.above("PUGD ends above SGD, equal gradient evaluations", "PUGD", "SGD, twice the epochs", "extra"),
    ]


def _summary(outcome: Outcome) -> str:
    sgd, pugd = (outcome[label].metric("val_accuracy").mean(axis=1) for label in ("SGD", "PUGD"))
    behind = np.flatnonzero(pugd < sgd)
    until = f"is last behind SGD in epoch {behind[-1] + 1} of {len(sgd)}" if len(behind) else "is never behind SGD"
    rates = ", ".join(f"{label} {variant.rate}" for label, variant in outcome.variants.items())
    stopped = show(100 * (outcome["PUGD"].result("test_accuracy") - outcome["SGD"].result("test_accuracy")))
    return (
        f"on the mean curve PUGD {until}. With each variant stopped at its best epoch on clean validation data, it "
        f"leads SGD by {stopped} points. Learning rates: {rates}."
    )


STUDY = Study(SETTINGS, (references,), _conditions, _panels, _summary, _table)
