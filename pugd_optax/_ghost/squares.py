r"""Squared norms of sums of outer products, one per example, without storing these sums for all layers at once.

The gradient of a matrix for example $i$ is $c_i = \sum_t a_{it} d_{it}^\top$, over the positions $t$ at which it is
used: a dense layer has one position or a sequence of them, a convolution one for each output pixel. Its squared norm is
computed in the cheaper of two forms,

$$\|c_i\|^2 = \sum_{kn} \Big(\sum_t a_{itk} d_{itn}\Big)^2
            = \sum_{tu} \langle a_{it}, a_{iu}\rangle \langle d_{it}, d_{iu}\rangle .$$

The cheaper form is also no larger than the activations: $KN \le T(K+N)$ where the first, $T^2 \le T(K+N)$ where the
second is chosen.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pugd_optax._parts import varying_like

Unfold = Callable[[Any], list[jax.Array]]
"""A linear map from arrays [batch, ...] to blocks [batch, group, position, row] that partition the rows of a matrix."""


def product_norms(unfold: Unfold, a: Any, d: jax.Array) -> jax.Array:
    r"""$\|c_i\|^2$ as [batch], from `a` [batch, ...] and `d` [batch, group, position, column]."""
    if d.shape[2] == 1:
        return jnp.sum(sum(_square(x) for x in unfold(a)) * _square(d), axis=1)
    return _product_norms(unfold, jax.tree.map(lambda x: varying_like(x, d), a), d)


def lookup_norms(ids: jax.Array, d: jax.Array) -> jax.Array:
    r"""$\|c_i\|^2$ of the rows looked up by `ids` [batch, position], from `d` [batch, position, column].

    A negative id stands for no row.
    """
    same = (ids[:, :, None] == ids[:, None, :]) & (ids >= 0)[:, :, None]
    return jnp.sum(same.astype(d.dtype) * _gram(d), axis=(1, 2))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product_norms(unfold: Unfold, a: Any, d: jax.Array) -> jax.Array:
    blocks = unfold(a)
    if _prefers_gram(blocks, d):
        return jnp.sum(sum(_gram(x) for x in blocks) * _gram(d), axis=(1, 2, 3))
    return sum((jnp.sum(outer(x, d) ** 2, axis=(1, 2, 3)) for x in blocks), start=jnp.zeros(len(d), d.dtype))


def _forward(unfold: Unfold, a: Any, d: jax.Array):
    """Computes the gradients too, while the outer products exist; storing those would take batch x parameters."""
    blocks, fold = jax.vjp(unfold, a)
    if _prefers_gram(blocks, d):
        a_gram, d_gram = sum(_gram(x) for x in blocks), _gram(d)
        norms = jnp.sum(a_gram * d_gram, axis=(1, 2, 3))
        return norms, (*fold([d_gram @ x for x in blocks]), a_gram @ d)
    norms, to_blocks, to_d = jnp.zeros(len(d), d.dtype), [], jnp.zeros_like(d)
    for x in blocks:
        c = outer(x, d)
        norms += jnp.sum(c**2, axis=(1, 2, 3))
        to_blocks.append(d @ jnp.swapaxes(c, -1, -2))
        to_d += x @ c
    return norms, (*fold(to_blocks), to_d)


def _backward(unfold: Unfold, halves: tuple[Any, jax.Array], weight: jax.Array):
    del unfold
    return jax.tree.map(lambda x: 2 * jnp.expand_dims(weight, range(1, x.ndim)) * x, halves)


_product_norms.defvjp(_forward, _backward)


def _prefers_gram(blocks: list[jax.Array], d: jax.Array) -> bool:
    """Whether the Gram form needs fewer multiplications, for value and gradient together."""
    positions, rows, columns = d.shape[2], sum(x.shape[3] for x in blocks), d.shape[3]
    return 2 * positions * (rows + columns) < 3 * rows * columns


def _square(x: jax.Array) -> jax.Array:
    return jnp.sum(x**2, axis=(-1, -2))


def _gram(x: jax.Array) -> jax.Array:
    return x @ jnp.swapaxes(x, -1, -2)


def outer(a: jax.Array, d: jax.Array) -> jax.Array:
    r"""$\sum_t a_t d_t^\top$, [..., row, column]."""
    return jnp.swapaxes(a, -1, -2) @ d
