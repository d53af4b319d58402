"""The windows of a convolution as slices of its padded input."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Window(NamedTuple):
    """A convolution along one axis: the sizes of kernel and output, and the arguments of `lax.conv_general_dilated`."""

    kernel: int
    output: int
    stride: int
    padding: tuple[int, int]
    input_dilation: int
    kernel_dilation: int


def unfold(image: jax.Array, windows: Sequence[Window], groups: int) -> list[jax.Array]:
    """[batch, part, *spatial, channel] -> blocks [batch, group, part * position, row], one for each kernel offset.

    A row is a kernel offset and a channel of the group.

    With few channels the offsets make one block, since products of thin matrices are slow. Where the windows tile the
    input, as in the patches of a vision transformer, they are one block by a reshape.
    """
    edges = [(0, 0, 0)] * 2 + [(*w.padding, w.input_dilation - 1) for w in windows] + [(0, 0, 0)]
    image = jax.lax.pad(image, jnp.zeros((), image.dtype), edges)
    if all(w.stride == w.kernel and w.kernel_dilation == 1 for w in windows):
        return [_tiles(image, windows, groups)]
    offsets = itertools.product(*(range(w.kernel) for w in windows))
    blocks = [_grouped(_shifted(image, windows, offset), groups) for offset in offsets]
    return blocks if blocks[0].shape[-1] > _THIN else [jnp.concatenate(blocks, axis=-1)]


_THIN = 16


def _shifted(image: jax.Array, windows: Sequence[Window], offset: tuple[int, ...]) -> jax.Array:
    starts = [k * w.kernel_dilation for k, w in zip(offset, windows, strict=True)]
    limits = [start + (w.output - 1) * w.stride + 1 for start, w in zip(starts, windows, strict=True)]
    strides = [1, 1, *(w.stride for w in windows), 1]
    batch, parts, *_, channels = image.shape
    return jax.lax.slice(image, (0, 0, *starts, 0), (batch, parts, *limits, channels), strides)


def _tiles(image: jax.Array, windows: Sequence[Window], groups: int) -> jax.Array:
    batch, parts, *_, channels = image.shape
    image = image[(slice(None), slice(None), *(slice(w.output * w.kernel) for w in windows))]
    image = image.reshape(batch, parts, *(n for w in windows for n in (w.output, w.kernel)), groups, channels // groups)
    n = 2 + 2 * len(windows)
    image = image.transpose(0, n, 1, *range(2, n, 2), *range(3, n, 2), n + 1)
    return image.reshape(batch, groups, parts * math.prod(w.output for w in windows), -1)


def _grouped(x: jax.Array, groups: int) -> jax.Array:
    """[batch, ..., channel] -> [batch, group, position, row]."""
    x = x.reshape(len(x), -1, groups, x.shape[-1] // groups)
    return jnp.moveaxis(x, 2, 1)
