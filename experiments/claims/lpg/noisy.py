"""LPG improves on plain training where labels are wrong.

**Statement.** The abstract of LPG, https://arxiv.org/abs/2605.29494: consistent gains under noisy labels. It does not
say which classes are amplified there. Ours is a derivation: a label is trusted less the more its class is confused with
another, by confusions that are counted early in training (`confusion`).

**Setting.** Four in ten labels wrong in one of three ways, MLP, 30 epochs, batch 128, cosine learning rate. Symmetric:
2500 images of Fashion-MNIST, 40 % of the labels wrong. Asymmetric: 2500 of MNIST, 40 % of the labels of five digits
replaced by the digit they are mistaken for. Human: 1200 of CIFAR-10 (exact pixels, crops and flips, test on 1000) with
the worst of the labels given by people, CIFAR-10N (https://arxiv.org/abs/2110.12088). And 350 small digits, 40 % of the
labels wrong, on a ResNet-8 with GroupNorm, 20 epochs, batch 32. At paper scale CIFAR-10 with the three kinds. Test and
validation images are clean. LPG with `confusion`; `hard`: the balanced rule of one number per class, which amplifies
low confidence. The other remedies at the same cost of one gradient per step: generalised cross-entropy, and plain
training whose test accuracy is that of its best epoch on clean validation images.

**Hyperparameters.** Learning rate and weight decay of each variant, and its own hyperparameter (bound, strength, q), by
validation accuracy after the last epoch, that of the stopped one by its best.

**Success criteria.** In each setting: LPG's test accuracy is above that of plain training. Also tested: it is within
one point of that of generalised cross-entropy, and above that of plain training stopped early.
"""

import dataclasses

from experiments.claims.claim import Panel, Scale
from experiments.claims.conditions import Condition
from experiments.claims.lpg.common import (
    CIFAR10,
    FASHION,
    SMOKE,
    bounded,
    lpg,
    of_loss,
    order,
    small,
    table,
)
from experiments.claims.setting import Setting, Variant, rates
from experiments.claims.study import Outcome, Study
from experiments.report.stats import show

_SMALL = dataclasses.replace(FASHION, train_size=2500)
_FULL = {
    "symmetric": dataclasses.replace(_SMALL, noise="symmetric:0.4"),
    "asymmetric": dataclasses.replace(_SMALL, dataset="mnist", noise="asymmetric:0.4"),
    "human": dataclasses.replace(_SMALL, dataset="cifar10_4000", train_size=1200, val_size=300, noise="human:worse"),
    "symmetric, ResNet-8": dataclasses.replace(
        SMOKE, model="resnet8", epochs=20, train_size=350, val_size=150, noise="symmetric:0.4"
    ),
}
_PAPER = {
    "CIFAR-10, symmetric": dataclasses.replace(CIFAR10, noise="symmetric:0.4"),
    "CIFAR-10, asymmetric": dataclasses.replace(CIFAR10, noise="asymmetric:0.4"),
    "CIFAR-10, human": dataclasses.replace(CIFAR10, noise="human:worse"),
}
SETTINGS: dict[Scale, tuple[Setting, ...]] = {
    "smoke": (
        Setting(
            "mislabelled digits",
            dataclasses.replace(SMOKE, noise="asymmetric:0.4"),
            (rates(0.03),),
            most_seeds=2,
            tiny=True,
        ),
    ),
    "full": tuple(small(name, base) for name, base in _FULL.items()),
    "paper": tuple(
        Setting(name, dataclasses.replace(base, model="resnet34"), (), choosing_seeds=1, most_seeds=3)
        for name, base in _PAPER.items()
    ),
}

GCE, STOPPED = "generalised cross-entropy", "plain, stopped early"


def variants(setting: Setting) -> dict[str, Variant]:
    """Plain training, also stopped early, LPG, and generalised cross-entropy."""
    base = setting.base
    found = {
        "plain": Variant(base),
        "LPG": bounded(base),
        GCE: of_loss(base, "gce:{:g}", "q", 0.3, 0.5, 0.7, below=1.0),
        STOPPED: Variant(base, stopped=True),
    }
    return found if setting.tiny else found | {"LPG, hard": lpg(base)}


def _conditions(outcome: Outcome) -> list[Condition]:
    return [
        outcome.above("LPG above plain training", "LPG", "plain"),
        outcome.within(f"LPG within one point of {GCE}", "LPG", GCE, "extra"),
        outcome.above("LPG above plain training stopped early", "LPG", STOPPED, "extra"),
    ]


def _panels(outcome: Outcome) -> list[Panel]:
    return [outcome.curves("", outcome.only("plain", "LPG", GCE))]


def _summary(outcome: Outcome) -> str:
    last = {label: variant for label, variant in outcome.variants.items() if not variant.stopped}
    fitted = {label: 100 * variant.metric("train_accuracy")[-1] for label, variant in last.items()}
    said = ", ".join(f"{label} {show(values)}" for label, values in fitted.items())
    return f"{order(outcome)}. Percent of the noisy training labels fitted in the last epoch: {said}."


STUDY = Study(SETTINGS, variants, _conditions, _panels, _summary, table)
