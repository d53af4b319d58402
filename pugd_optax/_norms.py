"""Norms and inner products over whole trees, in float32 or better: one pass over the leaves, one square root.

A norm whose square is outside the range of float32 (below about 1e-19, above about 1e19) is 0 or inf. All other numbers
are derived from square roots, for a reason: XLA copies a cheap operation into each of its consumers, and it considers a
sum of one scalar per leaf cheap. If every leaf read such a sum directly, this would cost leaves x leaves additions. A
square root is computed only once.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

AxisName = str | tuple[str, ...] | None


def widen(x: jax.Array) -> jax.Array:
    """`x` in the dtype used for sums: float64 stays, everything shorter becomes float32 (or the complex equivalent)."""
    double = jnp.finfo(x.dtype).bits == 64
    if jnp.iscomplexobj(x):
        return x.astype(jnp.complex128 if double else jnp.complex64)
    return x.astype(jnp.float64 if double else jnp.float32)


def norm(tree: Any, axis_name: AxisName = None) -> jax.Array:
    r"""Global L2 norm $\sqrt{\sum |x|^2}$ of a tree, as a scalar; not finite if an entry is not.

    Args:
      tree: a tree of arrays of any float or complex dtype.
      axis_name: inside `shard_map`, the mesh axes over which leaves are split; along an axis over which a leaf is known
        not to vary, it counts once.

    Example:
      >>> import jax.numpy as jnp
      >>> norm({"a": jnp.array([3.0]), "b": jnp.array([4.0])})
      Array(5., dtype=float32)
    """
    return jnp.sqrt(total(tree, jax.tree.map(_square, tree), axis_name))


def vdot(a: optax.Updates, b: optax.Updates, axis_name: AxisName = None) -> jax.Array:
    """Real inner product `Re sum(conj(a) * b)` of two trees of one structure, as a scalar."""
    # A sum, not jnp.vdot: a dot needs its operands stored, a sum lets XLA compute them on the way.
    return total(a, jax.tree.map(lambda x, y: jnp.sum(_real_product(widen(x), widen(y))), a, b), axis_name)


def largest(tree: Any, axis_name: AxisName = None) -> jax.Array:
    """The largest absolute value of an entry, as a scalar, up to rounding; not finite if an entry is not.

    Example:
      >>> import jax.numpy as jnp
      >>> print(largest({"a": jnp.array([3.0, -5.0]), "b": jnp.zeros(2)}))
      5.0
    """
    tops = jax.tree.map(lambda x: jnp.max(jnp.abs(widen(x)), initial=0.0), tree)
    return behind_roots(total(tree, tops, axis_name, jax.lax.max, jax.lax.pmax))


def average(x: jax.Array, axis_name: AxisName = None) -> jax.Array:
    """The mean of the entries of one array; 0 for an empty one."""
    mean = jnp.sum(x) / float(max(x.size, 1))  # as an int it could exceed int32
    axes = _split_over(x, axis_name)
    return jax.lax.pmean(mean, axes) if axes else mean


class Norms:
    r"""Norms and inner product of the two gradients of a step, each computed when it is first used.

    A combine that names `norms` among its parameters receives one, and shares its numbers with the report.

    Attributes:
      g: $\|g\|$.
      g_star: $\|g^*\|$.
      dot: $\langle g, g^*\rangle$.
      cosine: $\cos(g, g^*)$; 0 where one of the two is 0 or not finite.
      axis_name: the mesh axes over which leaves are split, if any.
    """

    def __init__(self, g: optax.Updates, g_star: optax.Updates, axis_name: AxisName = None):
        self._g, self._g_star, self.axis_name = g, g_star, axis_name

    def of(self, tree: Any) -> jax.Array:
        """The norm of another tree, over the same mesh axes."""
        return norm(tree, self.axis_name)

    @functools.cached_property
    def g(self) -> jax.Array:
        """|g|."""
        return self.of(self._g)

    @functools.cached_property
    def g_star(self) -> jax.Array:
        """|g*|."""
        return self.of(self._g_star)

    @functools.cached_property
    def dot(self) -> jax.Array:
        """<g, g*>."""
        return behind_roots(vdot(self._g, self._g_star, self.axis_name))

    @functools.cached_property
    def cosine(self) -> jax.Array:
        """cos(g, g*)."""
        return finite_or(0, self.dot * inverse(self.g) * inverse(self.g_star))


def inverse(length: jax.Array) -> jax.Array:
    """`1 / length`, and 0 for a length of 0."""
    return jnp.where(length == 0, 0, 1 / jnp.where(length == 0, 1, length))


def unit(tree: Any, axis_name: AxisName = None, sizes: Any = None) -> Any:
    """`tree / |tree|`; zero stays zero, and not finite stays not finite. If given, the norm of `sizes` is used instead.

    Example:
      >>> import jax.numpy as jnp
      >>> unit({"w": jnp.array([3.0, 4.0])})["w"]
      Array([0.6, 0.8], dtype=float32)
    """
    return multiply(inverse(norm(tree if sizes is None else sizes, axis_name)), tree)


def multiply(factor: jax.Array, tree: Any) -> Any:
    """`factor * tree` for a real scalar, computed in the higher of the two precisions, in the dtypes of the tree."""
    return jax.tree.map(lambda x: times(factor, x).astype(x.dtype), tree)


def times(factor: jax.Array, x: jax.Array) -> jax.Array:
    """`factor * x` in the higher of their precisions: a small float64 factor would be 0 in float32."""
    x = widen(x)
    if not jnp.issubdtype(factor.dtype, jnp.inexact):  # of whole numbers and float32 NumPy makes float64
        factor = factor.astype(x.real.dtype)
    x = x.astype(np.promote_types(x.dtype, factor.dtype))
    return factor.astype(x.real.dtype) * x


def cast_like(tree: Any, like: Any) -> Any:
    """`tree` in the dtypes of another."""
    return jax.tree.map(lambda x, y: jnp.asarray(x).astype(y.dtype), tree, like)


def finite_or(otherwise: jax.typing.ArrayLike, x: jax.Array) -> jax.Array:
    """`x` where it is finite."""
    return jnp.where(jnp.isfinite(x), x, jnp.asarray(otherwise, x.dtype))


def is_zero(weight: Any) -> bool:
    """Whether it is a number known to be 0 at trace time; False for schedules and traced values."""
    return isinstance(weight, int | float) and weight == 0


def safe_ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """`numerator / denominator` of two scalars, or 0 if that is not finite."""
    ratio = numerator / jnp.where(denominator == 0, 1, denominator)
    return jnp.where(denominator == 0, 0, finite_or(0, ratio))


@jax.custom_jvp
def behind_roots(x: jax.Array) -> jax.Array:
    """`x` as a signed root times its absolute value: XLA would simplify the square of a plain root."""
    root = jnp.sqrt(jnp.maximum(x, 0)) - jnp.sqrt(jnp.maximum(-x, 0))
    return root * jnp.abs(root)


behind_roots.defjvps(lambda tangent, value, x: tangent)  # that of the root of 0 is infinite


def _square(x: jax.Array) -> jax.Array:
    x = widen(x)
    return jnp.sum(_real_product(x, x))


def _real_product(x: jax.Array, y: jax.Array) -> jax.Array:
    return (jnp.conj(x) * y).real if jnp.iscomplexobj(x) else x * y


def total(
    tree: Any,
    parts: Any,
    axis_name: AxisName,
    add: Callable[..., jax.Array] = jax.lax.add,
    over: Callable[..., jax.Array] = jax.lax.psum,
) -> jax.Array:
    """Sum of one scalar per leaf, in the widest of their dtypes, each over the mesh axes that its leaf varies over."""
    groups: dict[tuple[str, ...], list[jax.Array]] = {}
    for x, scalar in zip(jax.tree.leaves(tree), jax.tree.leaves(parts), strict=True):
        groups.setdefault(_split_over(x, axis_name), []).append(scalar)
    whole = lambda axes, scalars: over(_reduced(scalars, add), axes) if axes else _reduced(scalars, add)
    return _reduced([whole(axes, scalars) for axes, scalars in groups.items()], add)


def _reduced(scalars: list[jax.Array], add: Callable[..., jax.Array]) -> jax.Array:
    widest = jnp.float64 if any(x.dtype == jnp.float64 for x in scalars) else jnp.float32
    wide = [x.astype(widest) for x in scalars]
    return functools.reduce(add, wide) if wide else jnp.zeros((), widest)


def _split_over(x: Any, axis_name: AxisName) -> tuple[str, ...]:
    """Those of the axes along which an array varies; all under `check_vma=False`, where its type does not say."""
    names = axis_names(axis_name)
    is_typed = names and names[0] in axes_of(jax.lax.axis_index(names[0]))
    return tuple(name for name in names if name in axes_of(x)) if is_typed else names


def axis_names(axis_name: AxisName) -> tuple[str, ...]:
    """The names of mesh axes, of which there may be one, several or none."""
    return (axis_name,) if isinstance(axis_name, str) else tuple(axis_name or ())


def axes_of(x: Any) -> frozenset[str]:
    """The mesh axes over which a value, or a value of this type, varies, as far as `shard_map` tracks it."""
    kind = jax.typeof(x) if isinstance(x, jax.Array) else x
    known = getattr(getattr(kind, "manual_axis_type", None), "varying", None) or getattr(kind, "vma", None)
    return known or frozenset()  # JAX 0.7 has no type here outside `shard_map`
