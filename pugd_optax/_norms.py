"""Norms and inner products over whole trees: float32 or better, and safe at every scale."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pugd_optax._cond import cond


def widen(x: jax.Array) -> jax.Array:
    """`x` in the dtype sums are taken in: float64 stays, everything shorter becomes float32 (or its complex twin)."""
    double = jnp.finfo(x.dtype).bits == 64
    if jnp.iscomplexobj(x):
        return x.astype(jnp.complex128 if double else jnp.complex64)
    return x.astype(jnp.float64 if double else jnp.float32)


def vdot(a: optax.Updates, b: optax.Updates) -> jax.Array:
    """Real inner product `Re sum(conj(a) * b)` of two trees of one structure, as a scalar."""
    # A sum, not jnp.vdot: a dot wants its operands stored, a sum lets XLA compute them on the way.
    parts = jax.tree.map(lambda x, y: jnp.sum(_real_product(widen(x), widen(y))), a, b)
    return _total(jax.tree.leaves(parts))


def norm(*trees: Any, of: Callable[..., Any] = lambda tree: tree) -> jax.Array:
    r"""Global L2 norm $\sqrt{\sum |x|^2}$ of the tree `of(*trees)`, as a scalar.

    Squares are summed in float32 (float64 if a leaf is). Where they would overflow or underflow, the tree is first
    divided by its largest entry, so entries of 1e-30 or 1e30 have the right norm; that second reading sits behind a
    `lax.cond` and is not run at ordinary scales. `of` is computed again in there: what it returns is never stored, as
    it would be to cross into the branch. The norm is not finite exactly if the tree holds an inf or a NaN, or if the
    norm itself is beyond the dtype.
    """
    # Without the barrier XLA finds that the caller computes `of` too, shares the two and stores what they share.
    tree = of(*jax.tree.map(jax.lax.optimization_barrier, trees))
    plain = jnp.sqrt(vdot(tree, tree))
    return cond(in_range(plain), lambda *_: plain, lambda *again: _scaled_norm(of(*again)).astype(plain.dtype), *trees)


def in_range(length: jax.Array) -> jax.Array:
    """Whether a norm is far from where its square leaves float32."""
    return (length > 1e-15) & (length < 1e18)


def unit(tree: optax.Updates) -> optax.Updates:
    """`tree / |tree|`; a zero or a non-finite tree comes back as it is, so no new NaN appears.

    Example:
      >>> import jax.numpy as jnp
      >>> unit({"w": jnp.array([3.0, 4.0])})["w"]
      Array([0.6, 0.8], dtype=float32)
    """
    return divide(tree, norm(tree))


def divide(tree: optax.Updates, length: jax.Array) -> optax.Updates:
    """`tree / length`, and `tree` itself where `length` is 0 or not finite."""
    divisor = jnp.where((length > 0) & jnp.isfinite(length), length, 1)
    return jax.tree.map(lambda x: _divide(widen(x), divisor).astype(x.dtype), tree)


def cosine(a: optax.Updates, b: optax.Updates, a_norm: jax.Array, b_norm: jax.Array) -> jax.Array:
    """Cosine of the angle between two trees of these norms; 0 where one of them is 0 or not finite."""
    plain = safe_ratio(safe_ratio(vdot(a, b), a_norm), b_norm)

    def of_units(a: optax.Updates, b: optax.Updates) -> jax.Array:
        product = vdot(divide(a, a_norm), divide(b, b_norm)).astype(plain.dtype)
        return jnp.where(jnp.isfinite(product), product, 0)

    return cond(in_range(a_norm) & in_range(b_norm), lambda *_: plain, of_units, a, b)


def cast_like(tree: optax.Updates, like: optax.Updates) -> optax.Updates:
    """`tree` in the dtypes of another."""
    return jax.tree.map(lambda x, y: jnp.asarray(x).astype(y.dtype), tree, like)


def is_finite(tree: optax.Updates) -> jax.Array:
    """Whether the norm of the tree is finite: no inf, no NaN, and no overflow where it is used."""
    return jnp.isfinite(norm(tree))


def select(choose: jax.Array, a: optax.Updates, b: optax.Updates) -> optax.Updates:
    """`a` if `choose` else `b`, two trees of one structure, in the dtypes of `b`; nothing leaks from the other one."""
    return jax.tree.map(lambda x, y: jnp.where(choose, x.astype(y.dtype), y), a, b)


def safe_ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """`numerator / denominator` of two scalars, and 0 where that is not a finite number."""
    ratio = numerator / jnp.where(denominator == 0, 1, denominator)
    return jnp.where((denominator != 0) & jnp.isfinite(ratio), ratio, 0)


def _real_product(x: jax.Array, y: jax.Array) -> jax.Array:
    return (jnp.conj(x) * y).real if jnp.iscomplexobj(x) else x * y


def _divide(x: jax.Array, divisor: jax.Array) -> jax.Array:
    """`x / divisor` in the longer of their precisions: a small float64 divisor would be 0 in float32."""
    x = x.astype(np.promote_types(x.dtype, divisor.dtype))
    return x / divisor.astype(x.real.dtype)


def _total(scalars: list[jax.Array]) -> jax.Array:
    """Sum of scalars in the widest of their dtypes; a float32 0 for an empty list."""
    return sum(_align(scalars), start=jnp.zeros((), _widest(scalars)))


def _align(scalars: list[jax.Array]) -> list[jax.Array]:
    return [x.astype(_widest(scalars)) for x in scalars]


def _widest(scalars: list[jax.Array]):
    return jnp.float64 if any(x.dtype == jnp.float64 for x in scalars) else jnp.float32


def _scaled_norm(tree: optax.Updates) -> jax.Array:
    leaves = [widen(x) for x in jax.tree.leaves(tree) if x.size]
    if not leaves:
        return jnp.zeros((), jnp.float32)
    top = jnp.max(jnp.stack(_align([jnp.max(jnp.abs(x)) for x in leaves])))
    divisor = jnp.where((top > 0) & jnp.isfinite(top), top, 1)
    scaled = [_divide(x, divisor) for x in leaves]
    return top * jnp.sqrt(vdot(scaled, scaled))
