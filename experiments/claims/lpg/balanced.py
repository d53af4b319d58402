"""LPG improves on plain training on balanced data by amplifying the gradients of the hard classes.

**Statement.** The abstract of LPG, https://arxiv.org/abs/2605.29494: perturbing logit gradients by class, adaptively,
gains on balanced data too. Our LPG is a derivation from that abstract; none of the paper's numbers are claimed for it.

**Setting.** 2500 images of Fashion-MNIST, and 1200 of CIFAR-10 (exact pixels, crops and flips, test on 1000), MLP, 30
epochs, batch 128, cosine learning rate. LPG: classes below the mean confidence are amplified, those above it dampened.
Renormalised: the total weight of a batch stays the same, so that the learning rate does not change. Control, classes by
chance: `long_tail` on these class counts, which hardly differ, so that it dampens four classes whether hard or easy,
the same at every seed, and amplifies six. Every variant costs one gradient per step.

**Hyperparameters.** Learning rate and weight decay of each variant, and LPG's strength.

**Success criteria.** In each setting: LPG's test accuracy is above that of plain training. Also tested: so is that of
renormalised LPG; and LPG's is above that of the same edit on classes by chance.
"""

import dataclasses

import numpy as np

from experiments.claims.claim import Panel, Scale
from experiments.claims.conditions import Condition
from experiments.claims.lpg.common import (
    CIFAR10,
    FASHION,
    SMOKE,
    by_class,
    class_panel,
    lpg,
    order,
    small,
    table,
)
from experiments.claims.setting import Setting, Variant, rates
from experiments.claims.study import Outcome, Study
from experiments.report.stats import show

_CLOTHES = dataclasses.replace(FASHION, train_size=2500)
_PHOTOS = dataclasses.replace(FASHION, dataset="cifar10_4000", train_size=1200, val_size=300)
SETTINGS: dict[Scale, tuple[Setting, ...]] = {
    "smoke": (Setting("balanced digits", SMOKE, (rates(0.03),), most_seeds=2, tiny=True),),
    "full": (small("Fashion-MNIST 2500", _CLOTHES), small("CIFAR-10 1200", _PHOTOS)),
    "paper": (
        Setting(
            "CIFAR-10, WRN-28-10",
            dataclasses.replace(CIFAR10, model="wrn28_10", weight_decay=5e-4),
            (),
            choosing_seeds=1,
            most_seeds=3,
        ),
    ),
}

RENORMALISED, CHANCE = "LPG, renormalised", "LPG, classes by chance"


def variants(setting: Setting) -> dict[str, Variant]:
    """Plain training, LPG, and its controls."""
    base = setting.base
    return {
        "plain": Variant(base),
        "LPG": lpg(base),
        RENORMALISED: lpg(base, renormalize=True),
        CHANCE: lpg(base, rule="long_tail"),
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
    hard = np.argsort(np.nanmean(plain, axis=0))
    half = len(hard) // 2
    low, high = (show(gain[:, classes].mean(axis=1)) for classes in (hard[:half], hard[half:]))
    return (
        f"{order(outcome)}. LPG moves the accuracy of the harder half of the classes by {low} points and that of the "
        f"easier half by {high}."
    )


STUDY = Study(SETTINGS, variants, _conditions, _panels, _summary, table)
