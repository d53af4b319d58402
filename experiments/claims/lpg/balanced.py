"""LPG improves on plain training on balanced data by amplifying the gradients of the classes that are hard.

**Paper.** The abstract of LPG, https://arxiv.org/abs/2605.29494: perturbing logit gradients by class, adaptively, gains
on balanced data too. Our LPG is a derivation from that abstract, and none of the paper's figures is claimed for it.

**Setting.** 2500 images of Fashion-MNIST, and 2500 of CIFAR-10 (exact pixels, test on 1000), perceptron, 30 epochs,
batch 128, cosine learning rate. LPG: classes below the mean confidence amplified, those above it dampened.
Renormalised: the total weight of a batch unchanged, so that no learning rate changes. Control: the same edit by rank of
the class counts, which on balanced data is chance. Every arm costs one gradient a step.

**Chosen.** Each arm's learning rate among two and one knob of its own among two (weight decay; strength), by accuracy
on validation images (2000; CIFAR-10 500), one seed of its own. The settings were fixed beforehand. Plain training at
LPG's rate and weight decay was added after the first table, to tell what its own choice of decay does.

**Decides.** In each setting LPG's test accuracy is above that of plain training; so is that of renormalised LPG; and
LPG's is above that of the same edit on classes by chance.
"""

import dataclasses

import numpy as np

from experiments.claims.claim import Check, Finding
from experiments.claims.lpg.arms import (
    CIFAR10,
    FASHION,
    SMOKE,
    Arms,
    by_class,
    chosen,
    class_panel,
    lpg,
    order,
    plain,
    table,
)
from experiments.claims.study import Lab, Scale, Setting, above, across, choose, train
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
UNTUNED = "plain, rate and decay as LPG"
RENORMALISED, CHANCE = "LPG, renormalised", "LPG, classes by chance"


def run(scale: Scale, first_seed: int, lab: Lab) -> Finding:
    """Every arm in every setting."""
    return across(SETTINGS[scale], lambda setting: _find(setting, first_seed, lab), lab)


def candidates(setting: Setting) -> dict[str, list[Config]]:
    """What each arm chooses among."""
    return {
        "plain": plain(setting),
        "LPG": lpg(setting),
        RENORMALISED: lpg(setting, renormalize=True),
        CHANCE: lpg(setting, rule="long_tail"),
    }


def _find(setting: Setting, first_seed: int, lab: Lab) -> Finding:
    tried = candidates(setting)
    picked = choose(setting, tried, lab)
    untuned = dataclasses.replace(tried["plain"][0], lr=picked["LPG"].lr)
    arms = train(setting, picked | {UNTUNED: untuned}, first_seed, lab)
    panels = [class_panel(setting, {k: arms[k] for k in ("plain", "LPG", RENORMALISED)})]
    return Finding(table(setting, arms), panels, _checks(setting, arms), _reading(setting, arms))


def _checks(setting: Setting, arms: Arms) -> list[Check]:
    return [
        above(f"{setting.name}: LPG above plain training", arms["LPG"], arms["plain"]),
        above(f"{setting.name}: renormalised LPG above plain training", arms[RENORMALISED], arms["plain"]),
        above(f"{setting.name}: LPG above {CHANCE.removeprefix('LPG, ')}", arms["LPG"], arms[CHANCE]),
    ]


def _reading(setting: Setting, arms: Arms) -> str:
    gain = by_class(arms["LPG"]) - by_class(arms["plain"])
    hard = np.argsort(by_class(arms["plain"]).mean(axis=0))
    half = len(hard) // 2
    low, high = (show(gain[:, classes].mean(axis=1)) for classes in (hard[:half], hard[half:]))
    return (
        f"{setting.name}: {order(arms)}. LPG moves the accuracy of the harder half of the classes by {low} points and "
        f"that of the easier half by {high}. Chosen: {chosen(arms)}."
    )
