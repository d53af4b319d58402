"""PUGD starts slower than SGD and ends higher.

**Paper.** *Radius-Timing-Scale in PUGD Optimization*; draft, code and runs of its author at
https://github.com/eeyzs1/CV_RTS: PUGD is slower than SGD early in training and ends with the better accuracy. In
the author's own runs (one seed, CIFAR-10) SGD leads in about 8 of 400 epochs.

**Setting.** 500 handwritten digits with a fifth of the training labels wrong, ResNet-8 with GroupNorm, 20 epochs; where
a data folder is named, also 1000 clean images of Fashion-MNIST, perceptron, 30 epochs. Batch 50, momentum 0.9, weight
decay 5e-4, cosine learning rate. Three arms: SGD, SGD with twice the epochs and a schedule of that length (PUGD's
gradient evaluations), PUGD at radius 1. Test accuracy is that after the last epoch.

**Chosen.** Each arm's learning rate among 0.03, 0.1 and 0.3, by validation accuracy on two seeds of their own. The
digits are the demo's setting; length and network of Fashion-MNIST were looked at on two seeds more.

**Decides.** In each setting: PUGD's mean validation accuracy over the first tenth of the epochs is below SGD's; its
test accuracy is above that of SGD with as many epochs, and above that of SGD with as many gradient evaluations.

**Seen besides.** On the digits SGD reaches its best epoch early and then learns the wrong labels: its training accuracy
ends at 96 %, PUGD's at 80 %, the share of right ones; so part of PUGD's lead, 1.6 of 5.4 points, goes where clean
validation data stop the training. On clean images there is nothing of that kind to gain: SGD fits them all, PUGD fits
94 % and ends 0.7 ± 0.6 points below. PUGD chooses the higher rate in both settings (0.1; SGD 0.03).
"""

from collections.abc import Mapping

import numpy as np

from experiments.claims.claim import Check, Finding, Panel, Rows
from experiments.claims.rts.settings import references, settings
from experiments.claims.study import Lab, Scale, Setting, Trained, above, across, choose, curves, rows, train
from experiments.report.stats import below, show

Arms = Mapping[str, Trained]


def run(scale: Scale, first_seed: int, lab: Lab) -> Finding:
    """The three arms in every setting."""
    return across(settings(scale, lab), lambda setting: _find(setting, first_seed, lab), lab)


def _find(setting: Setting, first_seed: int, lab: Lab) -> Finding:
    arms = train(setting, choose(setting, references(setting), lab), first_seed, lab)
    return Finding(_rows(setting, arms), _panels(setting, arms), _checks(setting, arms), _reading(setting, arms))


def _rows(setting: Setting, arms: Arms) -> Rows:
    table = rows(setting, arms, "SGD")
    for arm, row in zip(arms.values(), table.values(), strict=True):
        row["validation %, first tenth"] = list(_early(arm))
    return table


def _early(arm: Trained) -> np.ndarray:
    """Mean validation accuracy over the first tenth of the epochs, in percent, [seeds]."""
    curve = arm.metric("val_accuracy")
    return 100 * curve[: max(1, len(curve) // 10)].mean(axis=0)


def _panels(setting: Setting, arms: Arms) -> list[Panel]:
    equal = {label: arms[label] for label in ("SGD", "PUGD")}
    return [
        Panel(f"{setting.name}: by epochs", "epoch", "validation accuracy, %", curves(equal)),
        Panel(
            f"{setting.name}: by gradients",
            "gradient evaluations",
            "validation accuracy, %",
            curves(arms, x="gradient_evaluations"),
        ),
    ]


def _checks(setting: Setting, arms: Arms) -> list[Check]:
    sgd, pugd, longer = arms.values()
    start = Check(
        f"{setting.name}: PUGD starts below SGD",
        below(_early(pugd), _early(sgd)),
        f"{show(_early(pugd) - _early(sgd))} points over the first tenth",
    )
    return [
        start,
        above(f"{setting.name}: PUGD ends above SGD, equal epochs", pugd, sgd),
        above(f"{setting.name}: PUGD ends above SGD, equal gradient evaluations", pugd, longer),
    ]


def _reading(setting: Setting, arms: Arms) -> str:
    sgd, pugd = (arms[label].metric("val_accuracy").mean(axis=1) for label in ("SGD", "PUGD"))
    behind = np.flatnonzero(pugd < sgd)
    until = f"is last behind SGD in epoch {behind[-1] + 1} of {len(sgd)}" if len(behind) else "is never behind SGD"
    rates = ", ".join(f"{label} {arm.config.lr.split(':')[1]}" for label, arm in arms.items())
    stopped = show(100 * (arms["PUGD"].result("test_accuracy") - arms["SGD"].result("test_accuracy")))
    return (
        f"{setting.name}: on the mean curve PUGD {until}. With each arm stopped at its best epoch on clean validation "
        f"data, it leads SGD by {stopped} points. Learning rates: {rates}."
    )
