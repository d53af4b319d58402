"""PUGD starts slower than SGD and ends higher.

**Statement.** *Radius-Timing-Scale in PUGD Optimization*; draft, code and runs of its author at
https://github.com/eeyzs1/CV_RTS: PUGD is slower than SGD early in training and ends with the better accuracy. In the
author's own runs (one seed, CIFAR-10) SGD leads in about 8 of 400 epochs.

**Setting.** 350 handwritten digits with a fifth of the training labels wrong, ResNet-8 with GroupNorm, 20 epochs; if
there is a data folder, also 1000 clean images of Fashion-MNIST, MLP, 30 epochs. Batch 50, momentum 0.9, cosine learning
rate. SGD; SGD with twice the epochs and a schedule of that length, which has PUGD's gradient evaluations; PUGD at
radius 1; where labels are wrong, SGD whose test accuracy is that of its best epoch on clean validation images.

**Hyperparameters.** Learning rate and weight decay of each variant, by validation accuracy after the last epoch, that
of the stopped one by its best. The digits are the demo's setting; length and network of Fashion-MNIST were looked at on
two seeds before the protocol.

**Success criteria.** In each setting: PUGD's mean validation accuracy over the first tenth of the epochs is below
SGD's, and its test accuracy after the last epoch above that of SGD with as many epochs. Also tested: above that of SGD
with as many gradient evaluations, and of SGD stopped early.
"""

import numpy as np

from experiments.claims.claim import Panel, Rows
from experiments.claims.conditions import Condition, above
from experiments.claims.rts.settings import LONGER, SETTINGS, STOPPED, references
from experiments.claims.study import MARGIN, Outcome, Study, rows
from experiments.claims.workspace import Trained


def _early(variant: Trained) -> np.ndarray:
    """Mean validation accuracy over the first tenth of the epochs, in percent, [seeds]."""
    curve, epoch = variant.metric("val_accuracy"), variant.course("epoch")
    return 100 * curve[epoch <= max(1, variant.config.epochs // 10)].mean(axis=0)


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
        outcome.above("PUGD ends above SGD, equal gradient evaluations", "PUGD", LONGER, "extra"),
        *(
            outcome.above("PUGD ends above SGD, stopped early", "PUGD", label, "extra")
            for label in outcome.among([STOPPED])
        ),
    ]


def _summary(outcome: Outcome) -> str:
    sgd, pugd = (outcome[label].course("val_accuracy") for label in ("SGD", "PUGD"))
    epoch, behind = outcome["SGD"].course("epoch"), np.flatnonzero(pugd < sgd)
    last = f"last behind SGD in epoch {epoch[behind[-1]]:g} of {epoch[-1]:g}" if len(behind) else "never behind SGD"
    return f"on the mean curve PUGD is {last}."


STUDY = Study(SETTINGS, references, _conditions, _panels, _summary, _table)
