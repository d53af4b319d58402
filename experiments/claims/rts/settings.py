"""What the studies of radius, timing and scale share: data, networks, lengths, and the variants they are compared with.

Small: 500 handwritten digits with a fifth of the labels wrong on a ResNet-8, and, where a data folder is named, 1000
clean images of Fashion-MNIST on an MLP. Paper: CIFAR-10 and Tiny ImageNet at 32x32 on a ResNet-18, 200 epochs.
"""

import dataclasses
from collections.abc import Mapping

from experiments.claims.claim import Scale
from experiments.claims.variants import grid, method, stretch
from experiments.claims.workspace import Setting
from experiments.config.schema import Config

RATES = ("cosine:0.1:0.0", "cosine:0.03:0.0", "cosine:0.3:0.0")
"""The candidates for the learning rate of every variant."""

_SMALL = Config(train_size=500, val_size=400, devices=1, tensorboard=False, checkpoint_every=0)
_DIGITS = dataclasses.replace(_SMALL, dataset="digits", noise="symmetric:0.2", model="resnet8", epochs=20)
_FASHION = dataclasses.replace(_SMALL, dataset="fashion_mnist", model="mlp", epochs=30, train_size=1000, val_size=1000)
_SMOKE = dataclasses.replace(_DIGITS, model="mlp", epochs=4, train_size=100, val_size=100)
_PAPER = Config(dataset="cifar10", model="resnet18", norm="batch", dtype="bfloat16", batch=128, epochs=200)

SETTINGS: dict[Scale, tuple[Setting, ...]] = {
    "smoke": (Setting("digits", _SMOKE, seeds=2, choosing_seeds=1, candidates=1),),
    "full": (
        Setting("noisy digits", _DIGITS, seeds=6, choosing_seeds=2),
        Setting("Fashion-MNIST", _FASHION, seeds=6, choosing_seeds=2, optional=True),
    ),
    "paper": (
        Setting("CIFAR-10", _PAPER, seeds=5, choosing_seeds=1),
        Setting("Tiny ImageNet", dataclasses.replace(_PAPER, dataset="tiny_imagenet_32"), seeds=5, choosing_seeds=1),
    ),
}
REFERENCES = ("SGD", "PUGD", "SGD, twice the epochs")


def references(setting: Setting, chosen: Mapping[str, Config]) -> dict[str, list[Config]]:
    """Plain training, PUGD, and plain training with PUGD's gradient evaluations."""
    del chosen
    base = setting.base
    configs = (base, method(base, "pugd"), stretch(base, 2))
    return {label: rated(setting, config) for label, config in zip(REFERENCES, configs, strict=True)}


def rated(setting: Setting, config: Config) -> list[Config]:
    """The configuration with each learning rate."""
    return grid(config, lr=RATES[: setting.candidates])
