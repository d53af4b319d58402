"""LPG by confusions gains where labels are mistaken for one other class, and costs little where they are not.

**Statement.** The abstract of LPG, https://arxiv.org/abs/2605.29494: consistent gains under noisy labels. Ours is a
derivation: a label is trusted less the more its class is confused with another (`confusion`). Here nothing is tuned but
the learning rate, and there are clean labels too, because in practice it is not known whether labels are wrong.

**Setting.** As `lpg.noisy`: 2500 images, MLP, 30 epochs, batch 128, cosine learning rate. Asymmetric: MNIST, 40 % of
the labels of five digits replaced by the digit they are mistaken for. Symmetric: Fashion-MNIST, 40 % of the labels
wrong. Clean: Fashion-MNIST. At paper scale CIFAR-10. LPG at its default bound of 3, generalised cross-entropy at its
default q of 0.7; every variant costs one gradient per step. Test and validation images are clean.

**Hyperparameters.** The learning rate of each variant, of five values; weight decay 0.0005.

**Success criteria.** LPG's test accuracy is above that of plain training by 4 points under asymmetric noise, and above
it under symmetric noise. Also tested: it is above that of generalised cross-entropy by 4 points under asymmetric noise
and within 1.5 points of it under symmetric noise; with clean labels it loses at most half a point to plain training.
"""

import dataclasses

from experiments.claims import conditions
from experiments.claims.claim import Panel, Scale
from experiments.claims.conditions import Condition
from experiments.claims.lpg import noisy
from experiments.claims.lpg.common import CIFAR10, FASHION, order, table
from experiments.claims.setting import Setting, Variant, decays, rates
from experiments.claims.study import Outcome, Study
from experiments.claims.variants import method

_AXES = (rates(0.0025, 0.005, 0.01, 0.02, 0.04), decays(5e-4))
_SMALL = {
    **{s.name: s.base for s in noisy.SETTINGS["full"] if s.name in ("asymmetric", "symmetric")},
    "clean": dataclasses.replace(FASHION, train_size=2500),
}
_CLEAN = dataclasses.replace(CIFAR10, model="resnet34")
SETTINGS: dict[Scale, tuple[Setting, ...]] = {
    "smoke": noisy.SETTINGS["smoke"],
    "full": tuple(Setting(name, base, _AXES, most_seeds=10, optional=True) for name, base in _SMALL.items()),
    "paper": (
        *(s for s in noisy.SETTINGS["paper"] if "symmetric" in s.name),
        Setting("CIFAR-10, clean", _CLEAN, (), choosing_seeds=1, most_seeds=3),
    ),
}

GCE = noisy.GCE


def variants(setting: Setting) -> dict[str, Variant]:
    """Plain training, LPG and generalised cross-entropy."""
    base = setting.base
    return {
        "plain": Variant(base),
        "LPG": Variant(method(base, "lpg", rule="confusion:3")),
        GCE: Variant(dataclasses.replace(base, loss="gce:0.7")),
    }


def _conditions(outcome: Outcome) -> list[Condition]:
    noise = outcome.setting.base.parts.noise.name
    if noise == "asymmetric":
        return [
            outcome.above("LPG above plain training by 4 points", "LPG", "plain", least=4.0),
            outcome.above(f"LPG above {GCE} by 4 points", "LPG", GCE, "extra", least=4.0),
        ]
    if noise == "symmetric":
        above = outcome.above("LPG above plain training", "LPG", "plain")
        return [above, _loses_at_most(outcome, 1.5, GCE)]
    return [_loses_at_most(outcome, 0.5, "plain")]


def _loses_at_most(outcome: Outcome, points: float, other: str) -> Condition:
    said = outcome.named(f"LPG loses at most {points:g} points to {other}")
    one, two = outcome["LPG"].accuracy, outcome[other].accuracy
    return conditions.within(said, one, two, margin=points, kind="extra", unit="points")


def _panels(outcome: Outcome) -> list[Panel]:
    return [outcome.curves("", outcome.variants)]


STUDY = Study(SETTINGS, variants, _conditions, _panels, lambda outcome: f"{order(outcome)}.", table)
