r"""Combines: `(g, g_star) -> u`, how the old and the new gradient are combined.

A combine is a plain function of two trees with the same structure: `g`, the gradient at the parameters, and `g_star`,
the gradient at the perturbed parameters. It can name further arguments: `step`, the step count; `params`; `eps`, the
perturbation; `norms`, the norms and the inner product of the two gradients (`pugd_optax.combines.Norms`), so that no
number is computed twice; `followed`, the gradient that the ascent followed, which is $g$ unless `ascent_grad_fn` gave
another. A combine with memory is a `StatefulCombine`. `pugd_optax.reevaluate` accepts any function of this form.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import check_number
from pugd_optax._norms import Norms as Norms, cast_like, finite_or, inverse, is_zero, safe_ratio, widen
from pugd_optax._typing import Combine

Scale = optax.ScalarOrSchedule | Literal["norm_ratio", "cosine"]


class StatefulCombine(NamedTuple):
    """A combine with memory, which the `idle` function of `pugd_optax.reevaluate` may read as `state`.

    Attributes:
      init: `params -> state`.
      apply: `(g, g_star, *, state, ...) -> (u, state)` on active steps; it may name a combine's further arguments.
    """

    init: Callable[[optax.Params], Any]
    apply: Callable[..., tuple[optax.Updates, Any]]


def replace(g: optax.Updates, g_star: optax.Updates) -> optax.Updates:
    r"""Only the new gradient, $u = g^*$, as in SAM.

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
    r"""The unit vector along $s\,g + g^*$, as in PUGD.

    $$u = \frac{s\,g + g^*}{\|s\,g + g^*\|}$$

    Only the ratio of the two matters: the new gradient has the share $1/(1+s)$. $s = 1$ is PUGD, $s = 0.25$ the mix of
    GNP's recipes, $s = 0$ a normalised SAM.

    Args:
      scale: $s \ge 0$: a number, a schedule, or one of two rules that depend on the gradients: `"norm_ratio"`, $s =
        \|g^*\| / \|g\|$, gives both the same length; `"cosine"`, $s = \max(0, \cos(g, g^*))$, weights the old gradient
        by its agreement with the new one.

    Returns:
      A combine. If the norm of the sum is 0, so is $u$; if it is not finite (above about 1e19 in float32), $u = g^*$.

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
        return lambda g, g_star, norms=None: _unit_sum(rule(norms or Norms(g, g_star)), g, g_star, norms)
    check_number("scale", scale, low=0, schedule=True)

    def combine(g, g_star, step: jax.typing.ArrayLike = 0, norms: Norms | None = None) -> optax.Updates:
        return _unit_sum(_at(scale, step), g, g_star, norms)

    return combine


def decompose(alpha: optax.ScalarOrSchedule) -> Combine:
    r"""The new gradient minus a multiple of the part of the old one that is orthogonal to it, as in GSAM.

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

    def combine(g, g_star, step: jax.typing.ArrayLike = 0, norms: Norms | None = None) -> optax.Updates:
        norms = norms or Norms(g, g_star)
        a = jnp.asarray(_at(alpha, step))
        along = finite_or(0, norms.dot * inverse(norms.g_star) * inverse(norms.g_star))
        return weighted_sum(-a, g, 1.0 + a * along, g_star)

    return combine


def weighted_sum(
    a: jax.typing.ArrayLike, g: optax.Updates, b: jax.typing.ArrayLike, g_star: optax.Updates
) -> optax.Updates:
    r"""$a\,g + b\,g^*$, summed in float32 or better, in the dtypes of `g`; a weight of 0 drops even an infinite term.

    Example:
      >>> import jax.numpy as jnp
      >>> weighted_sum(0.0, jnp.array([jnp.inf]), 2.0, jnp.array([3.0]))
      Array([6.], dtype=float32)
    """
    return cast_like(_wide_sum(a, g, b, g_star), g)


def _unit_sum(scale: jax.typing.ArrayLike, g: optax.Updates, g_star: optax.Updates, norms: Norms | None):
    """The unit vector along the sum, by the norm of the sum itself: exact if the two cancel, at two reads of each.

    The sum is computed twice, once for its norm: XLA would store a sum that both the norm and the output read.
    """
    a, b = _shares(scale)
    length = (norms or Norms(g, g_star)).of(_wide_sum(a, g, b, g_star))
    usable, factor = jnp.isfinite(length), inverse(length)
    share = lambda weight, otherwise: 0.0 if is_zero(weight) else jnp.where(usable, weight * factor, otherwise)
    return weighted_sum(share(a, 0), g, share(b, 1), g_star)


def _shares(scale: jax.typing.ArrayLike) -> tuple[jax.typing.ArrayLike, jax.typing.ArrayLike]:
    """Weights in the ratio of `scale` to 1, neither above 1: a large scale must not overflow the sum."""
    if isinstance(scale, int | float):
        return (scale, 1.0) if scale <= 1 else (1.0, 1 / scale)
    largest = jnp.maximum(scale, 1)
    return scale / largest, 1 / largest


def _wide_sum(
    a: jax.typing.ArrayLike, g: optax.Updates, b: jax.typing.ArrayLike, g_star: optax.Updates
) -> optax.Updates:
    first, second = _weigher(a), _weigher(b)
    return jax.tree.map(lambda x, y: first(x) + second(y).astype(widen(x).dtype), g, g_star)


def _weigher(a: jax.typing.ArrayLike) -> Callable[[jax.Array], jax.Array]:
    """`x -> a * x` in float32 or better; 0 if `a` is 0, whatever `x` is."""
    if isinstance(a, int | float):
        return lambda x: widen(x) if a == 1 else jnp.zeros_like(widen(x)) if is_zero(a) else a * widen(x)
    weight = jnp.asarray(a)
    zero = weight == 0

    def weigh(x: jax.Array) -> jax.Array:
        x = widen(x)
        return jax.lax.select_n(zero, weight.astype(x.real.dtype) * x, jnp.zeros_like(x))

    return weigh


def _at(value: optax.ScalarOrSchedule, step: jax.typing.ArrayLike) -> jax.typing.ArrayLike:
    return value(step) if callable(value) else value


def cosine(g: optax.Updates, g_star: optax.Updates) -> jax.Array:
    r"""$\cos(g, g^*)$ over the whole trees, as a scalar; 0 where one of them is 0 or not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> print(f'{cosine({"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([1.0, 0.0])}):.2f}')
      0.60
    """
    return Norms(g, g_star).cosine


_ADAPTIVE_SCALES: dict[str, Callable[[Norms], jax.Array]] = {
    "norm_ratio": lambda norms: safe_ratio(norms.g_star, norms.g),
    "cosine": lambda norms: jnp.maximum(norms.cosine, 0),
}
