"""A convolution whose gradient stays fast inside `lax.cond`, `scan` and `while_loop` on CPU.

XLA's CPU compiler turns a convolution into its fast form only in the entry computation, or if it is written in the
layout NHWC x HWIO. The gradients that JAX derives are in other layouts: inside a loop or a branch they fall back to a
kernel some forty times slower. Here both are written in the fast layout, with the transposes spelt out.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Pads = tuple[tuple[int, int], ...]
Pair = tuple[int, ...]


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    **options: Any,
) -> jax.Array:
    """`jax.lax.conv_general_dilated` with the fast gradient, to be given to `flax.nnx.Conv(conv_general_dilated=...)`.

    Images NHWC, kernels HWIO, two spatial axes, one feature group and no dilation of the input: what image models use.
    Anything else goes to JAX's own function, gradient included.
    """
    fits = lhs.ndim == 4 and feature_group_count == 1 and tuple(lhs_dilation or (1, 1)) == (1, 1)
    layout = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    fits &= layout == lax.conv_dimension_numbers(lhs.shape, rhs.shape, ("NHWC", "HWIO", "NHWC"))
    if not fits:
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            **options,
        )
    dilation = tuple(rhs_dilation or (1, 1))
    if isinstance(padding, str):
        window = [(k - 1) * d + 1 for k, d in zip(rhs.shape[:2], dilation, strict=True)]
        padding = lax.padtype_to_pads(lhs.shape[1:3], window, window_strides, padding)
    pads = tuple((int(low), int(high)) for low, high in padding)
    precision, preferred = options.get("precision"), options.get("preferred_element_type")
    return _conv(lhs, rhs, tuple(window_strides), pads, dilation, precision, preferred)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5, 6))
def _conv(x: jax.Array, w: jax.Array, strides: Pair, pads: Pads, dilation: Pair, precision: Any, preferred: Any):
    return _fast(x, w, strides, pads, (1, 1), dilation, precision, preferred)


def _forward(x, w, strides, pads, dilation, precision, preferred):
    return _conv(x, w, strides, pads, dilation, precision, preferred), (x, w)


def _backward(strides, pads, dilation, precision, preferred, saved, dy):
    del preferred
    x, w = saved
    dy = dy.astype(x.dtype)
    sizes = list(zip(x.shape[1:3], w.shape[:2], dy.shape[1:3], strides, pads, dilation, strict=True))
    # By the image: spread dy out by the strides, slide the flipped kernel over it, outputs become inputs.
    around = [_image_pads(*size) for size in sizes]
    flipped = jnp.flip(w, (0, 1)).transpose(0, 1, 3, 2)
    dx = _fast(dy, flipped, (1, 1), around, strides, dilation, precision, x.dtype)
    # By the kernel: slide dy over the image, the sum over examples taking the place of the sum over channels.
    around = [_kernel_pads(*size) for size in sizes]
    dw = _fast(x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3), dilation, around, (1, 1), strides, precision, w.dtype)
    return dx, dw.transpose(1, 2, 0, 3)


_conv.defvjp(_forward, _backward)


def _image_pads(image: int, kernel: int, out: int, stride: int, pads: tuple[int, int], dilation: int):
    window, spread = (kernel - 1) * dilation + 1, (out - 1) * stride + 1
    low = window - 1 - pads[0]
    return low, image + window - 1 - spread - low


def _kernel_pads(image: int, kernel: int, out: int, stride: int, pads: tuple[int, int], dilation: int):
    window, spread = (kernel - 1) * dilation + 1, (out - 1) * stride + 1
    return pads[0], window + spread - 1 - image - pads[0]


def _fast(x, w, strides, pads, spread, dilation, precision, preferred) -> jax.Array:
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, w, strides, pads, spread, dilation, layout, precision=precision, preferred_element_type=preferred
    )
