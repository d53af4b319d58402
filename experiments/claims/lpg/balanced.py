"""LPG improves on plain training on balanced data by amplifying the gradients of the hard classes.

**Statement.** The abstract of LPG, https://arxiv.org/abs/2605.29494: perturbing logit gradients by class, adaptively,
gains on balanced data too. Our LPG is a derivation from that abstract; none of the paper's numbers is claimed for it.

**Setting.** 2500 images of Fashion-MNIST, and 2500 of CIFAR-10 (exact pixels, test on 1000), MLP, 30 epochs, batch 128,
cosine learning rate. LPG: classes below the mean confidence are amplified, those above it dampened. Renormalised: the
total weight of a batch stays the same, so that the learning rate does not change. Control: the same edit by rank of the
class counts, which on balanced data is chance. Every variant costs one gradient a step.

**Hyperparameters.** Each variant has two learning rates and two values of a hyperparameter of its own (weight decay;
strength), chosen by accuracy on validation images (2000; CIFAR-10 500), one seed of its own. The settings were fixed
beforehand. Plain training at LPG's rate and weight decay was added after the first table, to separate the effect of its
own choice of decay.

**Success criteria.** In each setting: LPG's test accuracy is above that of plain training. Besides: so is that of
renormalised LPG; and LPG's is above that of the same edit on classes by chance.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from experiments.claims.claim import Panel, Scale
from experiments.claims.conditions import Condition
from experiments.claims.lpg.common import (
    CIFAR10,
    FASHION,
    SMOKE,
    by_class,
    class_panel,
    hyperparameters,
    lpg,
    order,
    plain,
    table,
    untuned,
)
from experiments.claims.study import Outcome, Study
from experiments.claims.workspace import Setting
from experiments.config.schema import Config
from experiments.report.stats import show

_CLOTHES = dataclasses.replace(FASHION, train_size=2500)
_PHOTOS = dataclasses.replace(FASHION, dataset="cifar10_4000", train_size=2500, val_size=500)
SETTINGS: dict[Scale, tuple[Setting, ...]] = {
    "smoke": (Setting("balanced digits", SMOKE, seeds=2, choosing_seeds=1, candidates=1),),
    "full": (
        Setting("Fashion-MNIST 2500", _CLOTHES, seeds=6, choosing_seeds=1, candidates=4),
        Setting("CIFAR-10 2500", _PHOTOS, seeds=6, choosing_seeds=1, candidates=4),
    ),
    "paper": (
        Setting(
            "CIFAR-10, WRN-28-10",
            dataclasses.replace(CIFAR10, model="wrn28_10", weight_decay=5e-4),
            seeds=3,
            choosing_seeds=1,
            candidates=2,
        ),
    ),
}

RENORMALISED, CHANCE = "LPG, renormalised", "LPG, classes by chance"


def candidates(setting: Setting, chosen: Mapping[str, Config]) -> dict[str, list[Config]]:
    """The candidates of each variant."""
    del chosen
    return {
        "plain": plain(setting),
        "LPG": lpg(setting),
        RENORMALISED: lpg(setting, renormalize=True),
        CHANCE: lpg(setting, rule="long_tail"),
    }


def _conditions(outcome: Outcome) -> list[Condition]:
    return [
        outcome.above("LPG above plain training", "LPG", "plain"),
        outcome.above("renormalised LPG above plain training", RENORMALISED, "plain", "extra"),
        outcome.above("LPG above classes by chance", "LPG", CHANCE, "extra"),
    ]


def _panels(outcome: Outcome) -> list[Panel]:
    return [class_panel(outcome, "plain", "LPG", RENORMALISED)]


def _summary(outcome: Outcome) -> str:
    plain, gain = by_class(outcome["plain"]), by_class(outcome["LPG"]) - by_class(outcome["plain"])
    hard = np.argsort(plain.mean(axis=0))
    half = len(hard) // 2
    low, high = (show(gain[:, classes].mean(axis=1)) for classes in (hard[:half], hard[half:]))
    return (
        f"{order(outcome)}. LPG moves the accuracy of the harder half of the classes by {low} points and that of the "
        f"easier half by {high}. Hyperparameters: {hyperparameters(outcome)}."
    )


STUDY = Study(SETTINGS, (candidates, untuned), _conditions, _panels, _summary, table)
