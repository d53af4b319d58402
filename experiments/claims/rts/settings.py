"""Common settings of the studies of radius, timing and scale: data, networks, lengths, grids and references.

Small: 350 handwritten digits with a fifth of the labels wrong on a ResNet-8, and, if there is a data folder, 1000 clean
images of Fashion-MNIST on an MLP. Paper: CIFAR-10 and Tiny ImageNet at 32x32 on a ResNet-18, 200 epochs.
"""

import dataclasses

from experiments.claims.claim import Scale
from experiments.claims.setting import Setting, Variant, decays, rates
from experiments.claims.variants import method, stretch
from experiments.config.schema import Config

AXES = (rates(0.01, 0.03, 0.1, 0.3, 1.0), decays(2e-4, 1e-3, 5e-3))
"""The grid of every variant."""

_SMALL = Config(devices=1, tensorboard=False, checkpoint_every=0)
_DIGITS = dataclasses.replace(
    _SMALL, dataset="digits", noise="symmetric:0.2", model="resnet8", epochs=20, train_size=350, val_size=150
)
_FASHION = dataclasses.replace(_SMALL, dataset="fashion_mnist", model="mlp", epochs=30, train_size=1000, val_size=1000)
_SMOKE = dataclasses.replace(_DIGITS, model="mlp", epochs=4, train_size=100, val_size=100)
_PAPER = Config(dataset="cifar10", model="resnet18", norm="batch", dtype="bfloat16", batch=128, epochs=200)
_RATES = (rates(0.03, 0.1, 0.3),)

SETTINGS: dict[Scale, tuple[Setting, ...]] = {
    "smoke": (Setting("digits", _SMOKE, (rates(0.1),), most_seeds=2, tiny=True),),
    "full": (
        Setting("noisy digits", _DIGITS, AXES),
        Setting("Fashion-MNIST", _FASHION, AXES, optional=True),
    ),
    "paper": (
        Setting("CIFAR-10, ResNet-18", _PAPER, _RATES, choosing_seeds=1, most_seeds=5),
        Setting(
            "Tiny ImageNet",
            dataclasses.replace(_PAPER, dataset="tiny_imagenet_32"),
            _RATES,
            choosing_seeds=1,
            most_seeds=5,
        ),
    ),
}
LONGER, STOPPED = "SGD, twice the epochs", "SGD, stopped early"


def references(setting: Setting) -> dict[str, Variant]:
    """Plain training, PUGD, plain training at PUGD's cost, and, for wrong labels, plain training stopped early."""
    base = setting.base
    found = {
        "SGD": Variant(base),
        "PUGD": Variant(method(base, "pugd")),
        LONGER: Variant(stretch(base, 2)),
    }
    return found | ({STOPPED: Variant(base, stopped=True)} if base.noise != "none" else {})
