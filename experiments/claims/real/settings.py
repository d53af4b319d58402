"""Common settings of the claims at real scale: CIFAR-10 and the preset `fast_cifar10`."""

import dataclasses
from typing import Any

from experiments.claims.claim import Scale
from experiments.claims.rts.settings import LONGER
from experiments.claims.setting import Axis, Setting, Variant, decays, field, option, rates
from experiments.claims.variants import method, stretch
from experiments.config.presets.fast_cifar10 import CONFIG
from experiments.config.schema import Config

FAST = dataclasses.replace(CONFIG, tensorboard=False, checkpoint_every=0)
_SMALL = dataclasses.replace(FAST, epochs=5, train_size=4500, val_size=500, devices=1)
_SMOKE = Config(model="mlp", epochs=4, train_size=100, val_size=100, devices=1, tensorboard=False, checkpoint_every=0)


def settings(name: str, few: str = "none", **changes: Any) -> dict[Scale, tuple[Setting, ...]]:
    """A tenth of CIFAR-10 at full scale, all of it at paper scale, digits with the noise `few` at smoke scale.

    At paper scale a run trains on 24 000 images: half of all, without 1000 for validation.

    At paper scale a grid is extended once: two points of it differ by less than the error of one run with 1000
    validation images, and further radii go to 0, where every method is SGD.
    """
    small, whole = (dataclasses.replace(base, **changes) for base in (_SMALL, FAST))
    grid = (_up_and_down(0.05, 0.1, 0.2, 0.4, 0.8), decays(1e-4, 5e-4, 2e-3))
    coarse = (_up_and_down(0.1, 0.2, 0.4),)
    smoke = dataclasses.replace(_SMOKE, noise=few)
    return {
        "smoke": (Setting(f"digits for {name}", smoke, (rates(0.1),), most_seeds=2, tiny=True),),
        "full": (Setting(f"a tenth of {name}", small, grid, most_seeds=10, optional=True),),
        "paper": (Setting(name, whole, coarse, choosing_seeds=1, extensions=1, most_seeds=5),),
    }


def _up_and_down(*values: float) -> Axis:
    return field("lr", *values, name="rate", template="linear_onecycle:{:g}:0.2:0.98:20:100")


def perturbed(setting: Setting) -> dict[str, Variant]:
    """SGD, SGD for longer, and the methods with two gradients per step, each with its radius."""
    base = setting.base
    found = {
        "SGD": Variant(base),
        "SAM": Variant(method(base, "sam"), (option("radius", 0.05, 0.1, 0.2),)),
        "PUGD": Variant(method(base, "pugd"), (option("radius", 0.3, 1.0, 3.0),)),
        LONGER: Variant(stretch(base, 2)),
    }
    if setting.tiny:
        return found
    return found | {
        "ASAM": Variant(method(base, "asam"), (option("radius", 0.5, 1.0, 2.0),)),
        "RTS": Variant(method(base, "rts_pugd")),
    }
