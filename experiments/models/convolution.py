"""A convolution whose gradient is fast on CPU, also inside `lax.cond`, `scan` and `while_loop`.

XLA's CPU compiler is fast for convolutions in the layout NHWC x HWIO with a small kernel, and for matrix products. It
is slow for six things that occur in JAX's own gradient:

- The gradient with respect to the kernel is a convolution with an image-sized kernel. Here, for small kernels, it is a
  matrix product: shifts of the image along its width as columns, times shifts of the gradient along its height. The
  columns of a few images fit into the cache, so it is computed for a few images at a time.
- The gradient with respect to the image reads the kernel backwards, which XLA's library of fast convolutions (oneDNN,
  see docs/pages/step_costs.md) does not do. Here the kernel is turned beforehand. If the convolution is strided, zeros
  are inserted; here, for few channels, it is the sum of unstrided convolutions, one for each phase of the image.
- Inside a loop or a branch, a convolution in any other layout runs some forty times slower. Here every convolution is
  written in the fast layout, with explicit transposes.
- If the result has fewer positions than the kernel has taps, XLA swaps image and kernel into a slow layout. Here this
  is a matrix product too.
- The operations that compute the image (norm, activation, shortcut) are recomputed, with strided reads, by every
  consumer. Here image and gradient are each computed once, see `_kept`.

All of this is implemented in the forward-mode derivative, whose transpose is the desired gradient. So derivatives of
either mode and any order work; those beyond the first gradient are correct, but no faster than JAX's.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

LAYOUT = ("NHWC", "HWIO", "NHWC")
MOST_TAPS = 9
"""Larger kernels do not use the product, whose columns would need this many times the memory of the image."""
AT_A_TIME = 300_000
"""Size of the columns that are computed together, in numbers: about a megabyte, which fits into the cache of a core."""
THIN = 32
"""The largest number of channels for which the gradient of a strided convolution is divided into phases."""


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    **options: Any,
) -> jax.Array:
    """`jax.lax.conv_general_dilated` with a fast gradient, for `flax.nnx.Conv(conv_general_dilated=...)`.

    Used on CPU for images NHWC, kernels HWIO, two spatial axes, one feature group and no dilation of the input, as in
    image models. Anything else, and everything on accelerators, uses JAX's own function and gradient.
    """
    plain = lhs.ndim == 4 and feature_group_count == batch_group_count == 1 and tuple(lhs_dilation or (1, 1)) == (1, 1)
    layout = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    plain &= jax.default_backend() == "cpu"
    if not plain or layout != lax.conv_dimension_numbers(lhs.shape, rhs.shape, LAYOUT):
        counts = (feature_group_count, batch_group_count)
        return lax.conv_general_dilated(
            lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, *counts, **options
        )
    dilation = tuple(rhs_dilation or (1, 1))
    if isinstance(padding, str):
        sizes = [(k - 1) * d + 1 for k, d in zip(rhs.shape[:2], dilation, strict=True)]
        padding = lax.padtype_to_pads(lhs.shape[1:3], sizes, window_strides, padding)
    pads = [(int(low), int(high)) for low, high in padding]
    windows = (Window(*w) for w in zip(rhs.shape[:2], window_strides, dilation, pads, strict=True))
    return _conv(*windows, tuple(sorted(options.items())), lhs, rhs)


FEW = 2**16
"""Numbers that fit into the cache of a core, a quarter of a megabyte."""


class Window(NamedTuple):
    """A convolution along one axis: number of taps, stride, dilation, and padding before and after."""

    taps: int
    stride: int
    dilation: int
    pads: tuple[int, int]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _conv(height: Window, width: Window, options: Any, x: jax.Array, w: jax.Array) -> jax.Array:
    if _tiny(x, height, width):
        return _by_product(x, w, height, width, options).astype(_type(x, options))
    return _convolve(x, w, LAYOUT, height, width, options)


def _tiny(x: jax.Array, height: Window, width: Window) -> bool:
    """Whether the result has fewer positions than the kernel has taps: XLA would swap the two and be slow."""
    sizes = (_positions(x.shape[axis], window) for axis, window in ((1, height), (2, width)))
    return math.prod(sizes) < height.taps * width.taps


def _positions(size: int, window: Window) -> int:
    return (size + sum(window.pads) - (window.taps - 1) * window.dilation - 1) // window.stride + 1


def _type(x: jax.Array, options: Any) -> Any:
    return dict(options).get("preferred_element_type") or x.dtype


def _convolve(x: jax.Array, w: jax.Array, layout: Any, height: Window, width: Window, options: Any) -> jax.Array:
    parts: Any = zip(height, width, strict=True)
    _, strides, dilation, pads = parts
    return lax.conv_general_dilated(x, w, strides, pads, None, dilation, layout, **dict(options))


def _derivative(height: Window, width: Window, options: Any, primals: Any, tangents: Any) -> tuple[Any, Any]:
    (x, w), (dx, dw) = primals, tangents
    x = _kept(x, w)
    y = _conv(height, width, options, x, w)
    moved = []
    if not isinstance(dx, SymbolicZero) and _tiny(x, height, width):
        moved.append(_by_product(dx, w, height, width, options).astype(y.dtype))
    elif not isinstance(dx, SymbolicZero):
        moved.append(_by_phases(dx, w, height, width, options))
    if not isinstance(dw, SymbolicZero):
        small = height.taps * width.taps <= MOST_TAPS or _tiny(x, height, width)
        moved.append((_in_groups if small else _by_sliding)(x, dw, height, width, options).astype(y.dtype))
    return y, _kept(functools.reduce(jnp.add, moved), w)


_conv.defjvp(_derivative, symbolic_zeros=True)


class Phase(NamedTuple):
    """Every `step`-th pixel from `first` on, and every `step`-th tap from `tap` on, along one axis."""

    step: int
    first: int
    tap: int
    window: Window


def _phases(size: int, window: Window, channels: int) -> list[Phase]:
    """The unstrided convolutions along one axis whose sum is the given one; the given one itself if not divided."""
    stride = window.stride
    if stride == 1 or window.dilation > 1 or channels > THIN:
        return [Phase(1, 0, 0, window)]
    found = []  # each has as many positions as the strided convolution
    for tap in range(min(stride, window.taps)):
        skipped, first = divmod(tap - window.pads[0], stride)
        taps, pixels = len(range(tap, window.taps, stride)), len(range(first, size, stride))
        high = _positions(size, window) - pixels + skipped + taps - 1
        found.append(Phase(stride, first, tap, Window(taps, 1, 1, (-skipped, high))))
    return found


def _by_phases(x: jax.Array, w: jax.Array, height: Window, width: Window, options: Any) -> jax.Array:
    """The convolution in a form whose transpose reads no kernel backwards and, for few channels, no inserted zeros."""
    y, channels = [], w.shape[2]
    phases = (_phases(x.shape[axis], window, channels) for axis, window in ((1, height), (2, width)))
    for rows, columns in itertools.product(*phases):
        image = x[:, rows.first :: rows.step, columns.first :: columns.step]
        kernel = w[rows.tap :: rows.step, columns.tap :: columns.step].transpose(0, 1, 3, 2)
        turned = lax.rev(_turned(kernel), (0, 1))  # the transpose turns it again
        y.append(_convolve(image, turned, ("NHWC", "HWOI", "NHWC"), rows.window, columns.window, options))
    return functools.reduce(jnp.add, y)


def _turned(w: jax.Array) -> jax.Array:
    """The kernel, turned by 180 degrees in a way that XLA does not move into the convolution."""
    for axis in (0, 1):
        taps = [lax.slice_in_dim(w, i, i + 1, axis=axis) for i in range(w.shape[axis])]
        w = jnp.concatenate(taps[::-1], axis)
    return w


def _in_groups(x: jax.Array, dw: jax.Array, height: Window, width: Window, options: Any) -> jax.Array:
    """`_by_product` for groups of images whose columns fit into the cache; a group holds as many images of each device.

    The columns are not stored but computed again for the gradient. Each device adds up its part of the gradient over
    all groups, so that the devices exchange it only once. Images with an explicit sharding are not grouped.
    """
    devices, explicit = jax.device_count(), any(jax.typeof(x).sharding.spec)
    batch = x.shape[0] // devices  # images of one device
    count = _at_a_time(batch, x, height, width)
    if count == batch or x.shape[0] % devices or explicit:
        return _by_product(x, dw, height, width, options)
    groups = x.reshape(devices, -1, count, *x.shape[1:])
    product = jax.vmap(lambda images, kernel: _by_product(images, kernel, height, width, options))
    group = jax.checkpoint(lambda x, w, i: product(lax.dynamic_index_in_dim(x, i, 1, keepdims=False), w))

    def results(w: jax.Array) -> jax.Array:
        kernels = jnp.broadcast_to(w, (devices, *w.shape))
        y = lax.map(lambda i: group(groups, kernels, i), jnp.arange(groups.shape[1])).swapaxes(0, 1)
        return y.reshape(x.shape[0], *y.shape[3:])

    return jax.jvp(results, (jnp.zeros_like(dw),), (dw,))[1]  # before 0.10, JAX transposes a loop only as a derivative


def _at_a_time(batch: int, x: jax.Array, height: Window, width: Window) -> int:
    """Number of images whose columns fit into the cache, a divisor of the batch; all if no divisor fills a quarter."""
    rows, taps = (_positions(x.shape[1], height), height.taps) if height.stride > 1 else (x.shape[1], 1)
    columns = rows * _positions(x.shape[2], width) * taps * width.taps * x.shape[3]  # of one image
    counts = [n for n in range(1, batch + 1) if batch % n == 0 and (n == 1 or n * columns <= AT_A_TIME)]
    return counts[-1] if counts and 4 * counts[-1] * columns >= AT_A_TIME else batch


def _by_sliding(x: jax.Array, dw: jax.Array, height: Window, width: Window, options: Any) -> jax.Array:
    """The convolution in a layout whose transpose with respect to the kernel is in the fast layout."""
    image, kernel = x.transpose(3, 1, 2, 0), dw.transpose(2, 0, 1, 3)
    return _convolve(image, kernel, ("CHWN", "IHWO", "HWNC"), height, width, options).transpose(2, 0, 1, 3)


def _by_product(x: jax.Array, dw: jax.Array, height: Window, width: Window, options: Any) -> jax.Array:
    """The convolution as a product that is linear in the kernel: columns of the image times kernel.

    With a stride there is one column for each tap of the kernel. Otherwise the columns of one row of taps suffice: the
    results of each row are shifted along the height and added. Both transpose to a single product.
    """
    kh, kw, inputs, outputs = dw.shape
    precision = dict(options).get("precision")
    full = jnp.promote_types(x.dtype, jnp.float32)
    columns, dw = _taps(x.astype(full), 2, width), dw.astype(full)
    if height.stride > 1 or kh == 1:
        image = jnp.concatenate([tap for column in columns for tap in _taps(column, 1, height)], -1)
        flat = dw.transpose(1, 0, 2, 3).reshape(-1, outputs)
        return _product(image, flat, precision)
    image = jnp.concatenate(columns, -1)
    parts = _product(image, dw.transpose(1, 2, 0, 3).reshape(kw * inputs, kh * outputs), precision)
    split = lax.split(parts, [outputs] * kh, axis=3)
    spread = (kh - 1) * height.dilation
    placed = [_pad(part, 1, (spread - i * height.dilation, i * height.dilation)) for i, part in enumerate(split)]
    low, high = height.pads
    return _pad(functools.reduce(jnp.add, placed), 1, (low - spread, high - spread))


def _product(image: jax.Array, flat: jax.Array, precision: Any) -> jax.Array:
    product = jnp.matmul(image.reshape(-1, image.shape[-1]), flat, precision=precision)
    return product.reshape(*image.shape[:-1], -1)


def _taps(x: jax.Array, axis: int, window: Window) -> list[jax.Array]:
    """For each tap of the window, the part of the image that it is multiplied with, in output coordinates."""
    x = _pad(x, axis, window.pads)
    last = x.shape[axis] - (window.taps - 1) * window.dilation
    starts = (tap * window.dilation for tap in range(window.taps))
    return [lax.slice_in_dim(x, start, start + last, window.stride, axis) for start in starts]


def _pad(x: jax.Array, axis: int, pads: tuple[int, int]) -> jax.Array:
    """Pad with zeros before and after; negative counts crop."""
    spread = [(*pads, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)]
    return lax.pad(x, jnp.zeros((), x.dtype), spread)


def _kept(x: jax.Array, w: jax.Array) -> jax.Array:
    """`x` in its own memory, computed once for all consumers; small arrays stay in the cache anyway.

    XLA expands barriers before fusion, and then recomputes. It cannot remove a condition that it does not know: here,
    whether a weight is NaN, in which case the result does not matter.
    """
    if x.size < FEW:
        return x
    weight = w[(0,) * w.ndim]
    return lax.cond(weight == weight, lambda x: x, lambda x: jnp.full_like(x, jnp.nan), x)
