"""Image classifiers in Flax NNX: CIFAR ResNets, wide ResNet, vision transformers, a fast small network, an MLP.

Every model maps images [n, height, width, channels] to float32 logits [n, classes]. Parameters are float32; `dtype` is
the type of the computation.
"""

import functools
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from flax import nnx

from experiments.config.errors import UsageError, pick
from experiments.models.fast import Fast
from experiments.models.mlp import MLP
from experiments.models.resnet import NORMS, PadShortcut, ResNet, WideResNet
from experiments.models.vit import ViT


def _cifar_resnet(depth: int) -> Callable[..., nnx.Module]:
    blocks = (depth - 2) // 6
    return functools.partial(ResNet, [blocks] * 3, [16, 32, 64], stem=16, shortcut=PadShortcut)


_wide = functools.partial(ResNet, widths=[64, 128, 256, 512], stem=64)

MODELS: dict[str, Callable[..., nnx.Module]] = {
    **{f"resnet{depth}": _cifar_resnet(depth) for depth in (8, 20, 32, 56)},
    "resnet18": functools.partial(_wide, [2, 2, 2, 2]),
    "resnet34": functools.partial(_wide, [3, 4, 6, 3]),
    "resnet50": functools.partial(_wide, [3, 4, 6, 3], sizes=(1, 3, 1), expansion=4),
    "wrn28_10": functools.partial(WideResNet, 28, 10),
    "vit_micro": functools.partial(ViT, 32, 2, 2, 4),
    "vit_tiny": functools.partial(ViT, 192, 12, 3),
    "vit_small": functools.partial(ViT, 384, 12, 6),
    "fast": functools.partial(Fast, [32, 64, 64]),
    "mlp": MLP,
}
SQUARE = ("vit_micro", "vit_tiny", "vit_small", "mlp")
SMALLEST = {"fast": 8}
"""The smallest side of an image, for models that halve it several times."""


def constructor(
    name: str, *, image_shape: Sequence[int], num_classes: int, norm: str = "group", dtype: str = "float32"
) -> Callable[[nnx.Rngs], nnx.Module]:
    """A function of the random streams that creates the model with this name.

    Args:
      name: one of `MODELS`.
      image_shape: height, width and channels of the images, [h, w, c]; only ResNets accept images that are not square.
      num_classes: number of logits.
      norm: `group` (8 channels per group) or `batch`.
      dtype: type of the computation, `float32` or `bfloat16`.

    Example:
      >>> model = constructor("mlp", image_shape=(8, 8, 1), num_classes=10)(nnx.Rngs(0))
      >>> model(jnp.zeros((2, 8, 8, 1))).shape
      (2, 10)
    """
    make = pick("model", name, MODELS)
    height, width, channels = image_shape
    if height != width and name in SQUARE:
        raise UsageError(
            f"--model {name}: requires square images, not {height} x {width}; choose a ResNet, or pad them"
        )
    if min(height, width) < (side := SMALLEST.get(name, 1)):
        raise UsageError(f"--model {name}: requires images of at least {side} x {side} pixels, not {height} x {width}")
    settings = {"channels": channels, "num_classes": num_classes, "image_size": height}
    return lambda rngs: make(**settings, norm=pick("norm", norm, NORMS), dtype=jnp.dtype(dtype), rngs=rngs)
