"""LPG improves on plain training where labels are wrong.

**Paper.** The abstract of LPG, https://arxiv.org/abs/2605.29494: consistent gains under noisy labels. It does not say
which classes are amplified there. Ours, a derivation: amplifying the classes of low confidence would amplify the wrong
labels, so `noisy` dampens them and leaves near-equal ones alone.

**Setting.** Cosine learning rate. Symmetric: 2500 images of Fashion-MNIST, 40 % of the labels wrong. Asymmetric: 2500
of MNIST, 40 % of the labels of five digits mistaken for another. Human: 2500 of CIFAR-10 (exact pixels, test on 1000)
with the worst of the labels that people gave them, CIFAR-10N (https://arxiv.org/abs/2110.12088), about 40 % wrong. All
three on a perceptron, 30 epochs, batch 128; and 500 small digits, 40 % of the labels wrong, on a ResNet-8 with
GroupNorm, 20 epochs, batch 32. At the papers' scale CIFAR-10 with the three kinds. The test set and the validation
images are clean. LPG with `noisy` and a warm-up of a tenth of the steps; `hard`: the balanced rule, which amplifies low
confidence; renormalised: the total weight of a batch unchanged. The other remedy at the same cost of one gradient a
step: generalised cross-entropy.

**Chosen.** Each arm's learning rate among two and one knob of its own among two (weight decay; strength; q), by
accuracy on clean validation images, one seed of its own. The settings were fixed beforehand, but for the human labels:
a ResNet-8 at rate 0.1 hardly trained on them in 8 epochs and gave way to the perceptron before any verdict. Plain
training at LPG's rate and weight decay was added after the first table, to tell what its own choice of decay does.

**Decides.** In each setting: LPG's test accuracy is above that of plain training; so is that of renormalised LPG; and
LPG loses less than one point against generalised cross-entropy.
"""

import dataclasses

import numpy as np

from experiments.claims.claim import Check, Finding, Panel
from experiments.claims.lpg.arms import CIFAR10, FASHION, SMOKE, Arms, chosen, lpg, of_loss, order, plain, table
from experiments.claims.study import Lab, Scale, Setting, above, accuracy, across, choose, curves, no_worse, train
from experiments.config.schema import Config
from experiments.report.stats import show

_SMALL = dataclasses.replace(FASHION, train_size=2500)
_FULL = {
    "symmetric": dataclasses.replace(_SMALL, noise="symmetric:0.4"),
    "asymmetric": dataclasses.replace(_SMALL, dataset="mnist", noise="asymmetric:0.4"),
    "human": dataclasses.replace(_SMALL, dataset="cifar10_4000", val_size=500, noise="human:worse"),
    "symmetric, ResNet-8": dataclasses.replace(
        SMOKE, model="resnet8", epochs=20, train_size=500, val_size=400, noise="symmetric:0.4"
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
            seeds=2,
            choosing_seeds=1,
            candidates=1,
        ),
    ),
    "full": tuple(Setting(name, base, seeds=6, choosing_seeds=1, candidates=4) for name, base in _FULL.items()),
    "paper": tuple(
        Setting(name, dataclasses.replace(base, model="resnet34"), seeds=3, choosing_seeds=1, candidates=2)
        for name, base in _PAPER.items()
    ),
}
UNTUNED = "plain, rate and decay as LPG"
RENORMALISED, GCE = "LPG, renormalised", "generalised cross-entropy"


def run(scale: Scale, first_seed: int, lab: Lab) -> Finding:
    """Every arm under every kind of noise."""
    return across(SETTINGS[scale], lambda setting: _find(setting, first_seed, lab), lab)


def candidates(setting: Setting) -> dict[str, list[Config]]:
    """What each arm chooses among."""
    late = {"rule": "noisy", "warmup_steps": _warmup(setting)}
    arms = {
        "plain": plain(setting),
        "LPG": lpg(setting, **late),
        RENORMALISED: lpg(setting, renormalize=True, **late),
        GCE: of_loss(setting, "gce:0.7", "gce:0.4"),
    }
    if setting.candidates == 1:
        return arms
    return arms | {"LPG, hard": lpg(setting)}


def _warmup(setting: Setting) -> int:
    """A tenth of the steps."""
    examples = setting.base.train_size or 45_000
    return setting.base.epochs * (examples // setting.base.batch) // 10


def _find(setting: Setting, first_seed: int, lab: Lab) -> Finding:
    tried = candidates(setting)
    picked = choose(setting, tried, lab)
    untuned = dataclasses.replace(tried["plain"][0], lr=picked["LPG"].lr)
    arms = train(setting, picked | {UNTUNED: untuned}, first_seed, lab)
    shown = {label: arms[label] for label in ("plain", "LPG", GCE)}
    panels = [Panel(setting.name, "epoch", "validation accuracy, %", curves(shown))]
    return Finding(table(setting, arms), panels, _checks(setting, arms), _reading(setting, arms))


def _checks(setting: Setting, arms: Arms) -> list[Check]:
    return [
        above(f"{setting.name}: LPG above plain training", arms["LPG"], arms["plain"]),
        above(f"{setting.name}: renormalised LPG above plain training", arms[RENORMALISED], arms["plain"]),
        no_worse(f"{setting.name}: LPG no worse than {GCE} less a point", arms["LPG"], arms[GCE], 1.0),
    ]


def _reading(setting: Setting, arms: Arms) -> str:
    fitted = {label: 100 * arm.metric("train_accuracy")[-1] for label, arm in arms.items()}
    said = ", ".join(f"{label} {show(values)}" for label, values in fitted.items())
    means = [[values.mean() for values in by_arm] for by_arm in (fitted.values(), map(accuracy, arms.values()))]
    return (
        f"{setting.name}: {order(arms)}. Percent of the noisy training labels fitted in the last epoch: {said}; over "
        f"the arms its correlation with the test accuracy is {np.corrcoef(means)[0, 1]:.2f}. Chosen: {chosen(arms)}."
    )
