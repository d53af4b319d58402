r"""The windows of a convolution as slices of its padded input.

The gradient of the kernel at height i and width j is a sum over pixels, $\sum_{hw} x_{h+i,w+j} d_{hw}$. The products
can be paired in two ways:

- shifts of the image along both axes with the gradient: for a kernel of 3 x 3, nine copies of the image;
- shifts of the image along its width with shifts of the gradient along its height, $x_{h,w+j} d_{h-i,w}$: three copies
  of each, for as many multiplications.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Window(NamedTuple):
    """A convolution along one axis: the sizes of kernel and output, and the arguments of `lax.conv_general_dilated`.

    With a negative `kernel_dilation` the last entry of the kernel comes first in the input.
    """

    kernel: int
    output: int
    stride: int
    padding: tuple[int, int]
    input_dilation: int
    kernel_dilation: int

    @property
    def starts(self) -> list[int]:
        """For each entry of the kernel, the first entry of the padded input that it is multiplied with."""
        starts = [k * abs(self.kernel_dilation) for k in range(self.kernel)]
        return starts if self.kernel_dilation > 0 else starts[::-1]

    def turned(self, inputs: int) -> "Window":
        """The window from the outputs to each of the `inputs`."""
        reach = (self.kernel - 1) * self.kernel_dilation
        low = reach - self.padding[0]
        high = reach + (inputs - 1) * self.input_dilation - low - (self.output - 1) * self.stride
        return Window(self.kernel, inputs, self.input_dilation, (low, high), self.stride, -self.kernel_dilation)


Windows = tuple[Window, ...]


def sides(windows: Windows, sizes: Sequence[int], channels: tuple[int, int], groups: int) -> tuple[Windows, Windows]:
    """The windows along the image, which has these `sizes`, and along the gradient; `channels` are in and out.

    The first axis is moved to the gradient if this copies fewer numbers, and takes no more multiplications. Groups of
    channels stay as they are, because the columns are split into them.
    """
    still = tuple(_still(w.output) for w in windows)
    taps = math.prod(w.kernel for w in windows)
    first = windows[0].kernel if windows else 1
    inputs, outputs = channels
    fewer = taps // first * inputs + first * outputs < taps * inputs + outputs
    if groups == 1 and fewer and sizes[0] <= windows[0].output:
        return (_still(sizes[0]), *windows[1:]), (windows[0].turned(sizes[0]), *still[1:])
    return windows, still


def _still(size: int) -> Window:
    return Window(1, size, 1, (0, 0), 1, 1)


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
    shifted = [_shifted(image, windows, starts) for starts in itertools.product(*(w.starts for w in windows))]
    blocks = [x.reshape(*x.shape[:-1], groups, -1) for x in shifted]
    return [_grouped(x) for x in (blocks if blocks[0].shape[-1] > _THIN else [jnp.concatenate(blocks, axis=-1)])]


_THIN = 16


def _shifted(image: jax.Array, windows: Sequence[Window], starts: Sequence[int]) -> jax.Array:
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


def _grouped(x: jax.Array) -> jax.Array:
    """[batch, ..., group, row] -> [batch, group, position, row]."""
    return jnp.moveaxis(x.reshape(len(x), -1, *x.shape[-2:]), 2, 1)
