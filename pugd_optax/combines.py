r"""Combines: `(g, g_star) -> u`, how the old and the new gradient become one.

A combine is a plain function of two trees of one structure: `g`, the gradient at the parameters, and `g_star`, the
gradient at the perturbed parameters. One that changes with time takes a third argument `step`, which
`pugd_optax.reevaluate` fills with its step count. Any function of this form can be given to `reevaluate`.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from pugd_optax import _norms
from pugd_optax._checks import check_number
from pugd_optax._cond import cond
from pugd_optax._norms import cast_like, divide, in_range, norm, safe_ratio, vdot, widen
from pugd_optax._typing import Combine

Scale = optax.ScalarOrSchedule | Literal["norm_ratio", "cosine"]


def replace(g: optax.Updates, g_star: optax.Updates) -> optax.Updates:
    r"""The new gradient alone, $u = g^*$, as SAM does.

    Example:
      >>> replace({"w": 1.0}, {"w": 2.0})
      {'w': 2.0}
    """
    del g
    return g_star


def mix(a: optax.ScalarOrSchedule, b: optax.ScalarOrSchedule) -> Combine:
    r"""A weighted sum, $u = a\,g + b\,g^*$.

    Args:
      a: weight of the gradient at the parameters; a number or a schedule.
      b: weight of the gradient at the perturbed parameters; a number or a schedule.

    Returns:
      A combine.

    Example:
      >>> import jax.numpy as jnp
      >>> mix(0.25, 0.75)({"w": jnp.float32(4.0)}, {"w": jnp.float32(8.0)})
      {'w': Array(7., dtype=float32)}
    """
    check_number("a", a, schedule=True)
    check_number("b", b, schedule=True)

    def combine(g: optax.Updates, g_star: optax.Updates, step: jax.typing.ArrayLike = 0) -> optax.Updates:
        return weighted_sum(_at(a, step), g, _at(b, step), g_star)

    return combine


def unit_sum(scale: Scale = 1.0) -> Combine:
    r"""The unit vector along $s\,g + g^*$, as PUGD does.

    $$u = \frac{s\,g + g^*}{\|s\,g + g^*\|}$$

    Only the ratio of the two matters: $s$ gives the new gradient the share $1/(1+s)$. $s = 1$ is PUGD, $s = 0.25$ the
    mix of GNP's recipes, $s = 0$ a normalised SAM.

    Args:
      scale: $s$, at least 0: a number, a schedule, or one of two rules that follow the gradients: `"norm_ratio"`,
        $s = \|g^*\| / \|g\|$, gives both the same length; `"cosine"`, $s = \max(0, \cos(g, g^*))$, trusts the old
        gradient as far as the new one agrees with it.

    Returns:
      A combine. A sum that is exactly zero or not finite is returned as it is.

    Raises:
      ValueError: if `scale` is an unknown rule or a negative or non-finite number.

    Example:
      >>> import jax.numpy as jnp
      >>> g, g_star = {"w": jnp.array([3.0, 0.0])}, {"w": jnp.array([0.0, 4.0])}
      >>> unit_sum(1.0)(g, g_star)["w"]
      Array([0.6, 0.8], dtype=float32)
    """
    if isinstance(scale, str):
        if scale not in _ADAPTIVE_SCALES:
            raise ValueError(f"scale={scale!r}: expected a number, a schedule or one of {sorted(_ADAPTIVE_SCALES)}.")
        rule = _ADAPTIVE_SCALES[scale]
        return lambda g, g_star: _unit_sum(rule(g, g_star), g, g_star)
    check_number("scale", scale, low=0, schedule=True)

    def combine(g: optax.Updates, g_star: optax.Updates, step: jax.typing.ArrayLike = 0) -> optax.Updates:
        return _unit_sum(_at(scale, step), g, g_star)

    return combine


def decompose(alpha: optax.ScalarOrSchedule) -> Combine:
    r"""The new gradient less a part of the old one that is orthogonal to it, as GSAM does.

    $$u = g^* - \alpha\, g_\perp, \qquad g_\perp = g - \frac{\langle g, g^*\rangle}{\|g^*\|^2}\, g^*$$

    Args:
      alpha: $\alpha$, a number or a schedule; 0 is `replace`.

    Returns:
      A combine.

    Example:
      >>> import jax.numpy as jnp
      >>> g, g_star = {"w": jnp.array([1.0, 1.0])}, {"w": jnp.array([2.0, 0.0])}
      >>> decompose(0.5)(g, g_star)["w"]
      Array([ 2. , -0.5], dtype=float32)
    """
    check_number("alpha", alpha, schedule=True)

    def combine(g: optax.Updates, g_star: optax.Updates, step: jax.typing.ArrayLike = 0) -> optax.Updates:
        a = jnp.asarray(_at(alpha, step))
        return weighted_sum(-a, g, 1.0 + a * projection(g, g_star, norm(g), norm(g_star)), g_star)

    return combine


def projection(g: optax.Updates, onto: optax.Updates, g_norm: jax.Array, onto_norm: jax.Array) -> jax.Array:
    r"""$\langle g, v\rangle / \|v\|^2$, the projection of `g` on `onto`, from their norms; 0 where `onto` is 0.

    Example:
      >>> import jax.numpy as jnp
      >>> g, v = {"w": jnp.array([3.0, 5.0])}, {"w": jnp.array([2.0, 0.0])}
      >>> projection(g, v, norm(g), norm(v))
      Array(1.5, dtype=float32)
    """
    return safe_ratio(_norms.cosine(g, onto, g_norm, onto_norm) * g_norm, onto_norm)


def weighted_sum(
    a: jax.typing.ArrayLike, g: optax.Updates, b: jax.typing.ArrayLike, g_star: optax.Updates
) -> optax.Updates:
    r"""$a\,g + b\,g^*$ summed in float32 or better, in the dtypes of `g`; a weight of 0 drops its term, inf or not.

    Example:
      >>> import jax.numpy as jnp
      >>> weighted_sum(0.0, jnp.array([jnp.inf]), 2.0, jnp.array([3.0]))
      Array([6.], dtype=float32)
    """
    return cast_like(_wide_sum(a, g, b, g_star), g)


def _unit_sum(scale: jax.typing.ArrayLike, g: optax.Updates, g_star: optax.Updates) -> optax.Updates:
    """The unit vector along the sum, its length from the inner products that `reevaluate` reports anyway.

    Where these cancel, or leave the range of float32, the length is measured. The sum itself may overflow float16, its
    unit vector does not.
    """
    g_norm = norm(g)
    s = jnp.asarray(scale, g_norm.dtype)
    terms = (s * g_norm) ** 2 + norm(g_star).astype(g_norm.dtype) ** 2
    square = terms + 2 * s * vdot(g, g_star).astype(g_norm.dtype)
    plain = jnp.sqrt(jnp.maximum(square, 0))
    length = cond(
        in_range(plain) & (square > 0.1 * terms),
        lambda *_: plain,
        lambda *pair: norm(*pair, of=lambda g, g_star: _wide_sum(scale, g, 1.0, g_star)).astype(plain.dtype),
        g,
        g_star,
    )
    return cast_like(divide(_wide_sum(scale, g, 1.0, g_star), length), g)


def _wide_sum(
    a: jax.typing.ArrayLike, g: optax.Updates, b: jax.typing.ArrayLike, g_star: optax.Updates
) -> optax.Updates:
    return jax.tree.map(lambda x, y: _times(a, x) + _times(b, y).astype(widen(x).dtype), g, g_star)


def _times(a: jax.typing.ArrayLike, x: jax.Array) -> jax.Array:
    x = widen(x)
    if isinstance(a, int | float):
        return x if a == 1 else jnp.zeros_like(x) if a == 0 else a * x
    a = jnp.asarray(a, x.real.dtype)
    return jnp.where(a == 0, 0, a * x)


def _at(value: optax.ScalarOrSchedule, step: jax.typing.ArrayLike) -> jax.typing.ArrayLike:
    return value(step) if callable(value) else value


def _norm_ratio(g: optax.Updates, g_star: optax.Updates) -> jax.Array:
    return safe_ratio(norm(g_star), norm(g))


def cosine(g: optax.Updates, g_star: optax.Updates) -> jax.Array:
    r"""$\cos(g, g^*)$ over the whole trees, as a scalar; 0 where one of them is 0 or not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> cosine({"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([1.0, 0.0])})
      Array(0.6, dtype=float32)
    """
    return _norms.cosine(g, g_star, norm(g), norm(g_star))


_ADAPTIVE_SCALES: dict[str, Callable[[optax.Updates, optax.Updates], jax.Array]] = {
    "norm_ratio": _norm_ratio,
    "cosine": lambda g, g_star: jnp.maximum(cosine(g, g_star), 0),
}
