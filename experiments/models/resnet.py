"""CIFAR ResNets and the wide ResNet."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.models.convolution import conv_general_dilated
from experiments.models.normalization import GroupNorm

Norm = Callable[..., nnx.Module]
NORMS: dict[str, Norm] = {
    "batch": functools.partial(nnx.BatchNorm, momentum=0.9, epsilon=1e-5),
    "group": functools.partial(GroupNorm, num_groups=None, group_size=8, epsilon=1e-5),
}
_HE = nnx.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")


def _conv(inputs: int, outputs: int, size: int, strides: int, dtype: Any, rngs: nnx.Rngs) -> nnx.Conv:
    settings = {"use_bias": False, "kernel_init": _HE, "conv_general_dilated": conv_general_dilated}
    return nnx.Conv(inputs, outputs, (size, size), strides, **settings, dtype=dtype, rngs=rngs)


class PadShortcut(nnx.Module):
    """Parameter-free shortcut: every other pixel, new channels filled with zeros (option A of the ResNet paper)."""

    def __init__(self, inputs: int, outputs: int, strides: int, norm: Norm, dtype: Any, rngs: nnx.Rngs):
        del norm, dtype, rngs
        self.strides, self.extra = strides, outputs - inputs

    def __call__(self, x: jax.Array) -> jax.Array:
        """Shorten and widen."""
        x = x[:, :: self.strides, :: self.strides]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (self.extra // 2, self.extra - self.extra // 2)))


class ConvShortcut(nnx.Module):
    """1x1 convolution and norm (option B)."""

    def __init__(self, inputs: int, outputs: int, strides: int, norm: Norm, dtype: Any, rngs: nnx.Rngs):
        self.conv = _conv(inputs, outputs, 1, strides, dtype, rngs)
        self.norm = norm(outputs, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Project."""
        return self.norm(self.conv(x))


class Block(nnx.Module):
    """Residual block of convolutions of the given sizes; the inner width may be smaller than the outer (bottleneck)."""

    def __init__(self, inputs, width, outputs, strides, sizes, shortcut, norm: Norm, dtype, rngs: nnx.Rngs):
        channels = [inputs] + [width] * (len(sizes) - 1) + [outputs]
        steps = [strides if i == sizes.index(3) else 1 for i in range(len(sizes))]
        shapes = zip(channels[:-1], channels[1:], sizes, steps, strict=True)
        self.convs = nnx.List([_conv(*shape, dtype, rngs) for shape in shapes])
        self.norms = nnx.List([norm(c, dtype=dtype, rngs=rngs) for c in channels[1:]])
        same = strides == 1 and inputs == outputs
        self.shortcut = None if same else shortcut(inputs, outputs, strides, norm, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Shortcut plus convolutions, then ReLU."""
        y = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(y if i == 0 else nnx.relu(y)))
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


LARGE = 128
"""Images with at least this side length use the papers' stem for ImageNet."""


class ResNet(nnx.Module):
    """Stem, stages of residual blocks, global average, linear head; each stage except the first halves the image.

    The stem is a 3x3 convolution; for large images it is a 7x7 convolution and a max-pooling, which each halve the
    image.
    """

    def __init__(
        self,
        depths: Sequence[int],
        widths: Sequence[int],
        *,
        stem: int,
        sizes: Sequence[int] = (3, 3),
        expansion: int = 1,
        shortcut: Callable[..., nnx.Module] = ConvShortcut,
        channels: int,
        num_classes: int,
        norm: Norm,
        dtype: Any,
        rngs: nnx.Rngs,
        image_size: int,
    ):
        self.large = image_size >= LARGE
        self.stem = _conv(channels, stem, *((7, 2) if self.large else (3, 1)), dtype, rngs)
        self.norm = norm(stem, dtype=dtype, rngs=rngs)
        blocks, inputs = [], stem
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            for i in range(depth):
                strides, outputs = (2 if stage and i == 0 else 1), width * expansion
                blocks.append(Block(inputs, width, outputs, strides, sizes, shortcut, norm, dtype, rngs))
                inputs = outputs
        self.blocks = nnx.List(blocks)
        self.head = nnx.Linear(inputs, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of images."""
        x = nnx.relu(self.norm(self.stem(x)))
        x = nnx.max_pool(x, (3, 3), (2, 2), "SAME") if self.large else x
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)).astype(jnp.float32))


class WideBlock(nnx.Module):
    """Pre-activation block of the wide ResNet; if the width changes, the shortcut starts after the activation."""

    def __init__(self, inputs: int, outputs: int, strides: int, norm: Norm, dtype: Any, rngs: nnx.Rngs):
        self.norm1, self.norm2 = norm(inputs, dtype=dtype, rngs=rngs), norm(outputs, dtype=dtype, rngs=rngs)
        self.conv1 = _conv(inputs, outputs, 3, strides, dtype, rngs)
        self.conv2 = _conv(outputs, outputs, 3, 1, dtype, rngs)
        self.shortcut = None if inputs == outputs else _conv(inputs, outputs, 1, strides, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Shortcut plus convolutions."""
        y = nnx.relu(self.norm1(x))
        x = x if self.shortcut is None else self.shortcut(y)
        return x + self.conv2(nnx.relu(self.norm2(self.conv1(y))))


class WideResNet(nnx.Module):
    """WRN-depth-factor, without dropout."""

    def __init__(
        self, depth: int, factor: int, *, channels: int, num_classes: int, norm: Norm, dtype: Any, rngs, image_size=0
    ):
        del image_size
        self.stem = _conv(channels, 16, 3, 1, dtype, rngs)
        blocks, inputs = [], 16
        for stage, width in enumerate((16 * factor, 32 * factor, 64 * factor)):
            for i in range((depth - 4) // 6):
                blocks.append(WideBlock(inputs, width, 2 if stage and i == 0 else 1, norm, dtype, rngs))
                inputs = width
        self.blocks = nnx.List(blocks)
        self.norm = norm(inputs, dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(inputs, num_classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of images."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(nnx.relu(self.norm(x)).mean((1, 2)).astype(jnp.float32))
