"""The direction of steepest ascent in any p-norm, as an ascent."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pugd_optax._norms import AxisName, behind_roots, inverse, largest, times, total, unit, widen


def dual_norm(p: float = 2.0, *, per_tensor: bool = False) -> optax.GradientTransformationExtraArgs:
    r"""The direction of steepest ascent in the unit ball of a p-norm, $\|\epsilon\|_p \le 1$.

    $$\epsilon = \frac{\mathrm{sign}(g) \odot |g|^{q-1}}{\big(\|g\|_q^q\big)^{1/p}}, \qquad
      \frac1p + \frac1q = 1$$

    $p = 2$ is `normalize`; $p = \infty$ is the sign, which moves every parameter by the same distance; $p = 1$ moves
    only the largest entry, or several equally large ones in equal parts.

    Args:
      p: in [1, inf], a Python number. Radii for different p are not comparable: at the same $\|\epsilon\|_2$, the
        radius of $p = \infty$ is smaller by the square root of the number of parameters.
      per_tensor: one ball for every tensor instead of one for the whole tree.

    Returns:
      A stateless transformation; zero stays zero, and `norm_axis_name` works as in `normalize`. For $p$ other than 2
      and $\infty$ the gradient is read twice, first for its largest entry.

    Raises:
      ValueError, TypeError: if `p` is below 1 or no Python number.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> g = {"w": jnp.array([3.0, -1.0, 0.0])}
      >>> for p in (1, 3, float("inf")):
      ...     print([round(float(x), 3) for x in dual_norm(p).update(g, optax.EmptyState())[0]["w"]])
      [1.0, -0.0, 0.0]
      [0.943, -0.544, 0.0]
      [1.0, -1.0, 0.0]

    References:
      Foret, Kleiner, Mobahi and Neyshabur, https://arxiv.org/abs/2010.01412, equation 2; section 3.2 of the
      Radius-Timing-Scale paper uses it for PUGD.
    """
    if isinstance(p, bool) or not isinstance(p, int | float):
        raise TypeError(f"p={p!r}: expected a Python number in [1, inf]. Fix: p=2.")
    if not p >= 1:
        raise ValueError(f"p={p}: expected a number in [1, inf]; below 1 there is no norm. Fix: p=1.")

    def update(updates, state, params=None, *, norm_axis_name: AxisName = None, **extra_args):
        del params, extra_args
        if per_tensor:
            return jax.tree.map(lambda x: _steepest(x, p, norm_axis_name), updates), state
        return _steepest(updates, p, norm_axis_name), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


_NEARLY_ONE = 1e-8
"""Below this excess over 1, the power would make of a largest share that is off by one rounding 0 or infinity."""


def _steepest(g: Any, p: float, axis_name: AxisName) -> Any:
    if p == 2:
        return unit(g, axis_name)
    if math.isinf(p):
        return jax.tree.map(jnp.sign, g)
    scale = inverse(largest(g, axis_name))
    shares = jax.tree.map(lambda x: times(scale, jnp.abs(x)), g)  # in [0, 1]: no power leaves float32 at the top
    if p - 1 < _NEARLY_ONE:
        weights = jax.tree.map(lambda s: (s > 1 - 8 * jnp.finfo(s.dtype).eps).astype(s.dtype), shares)
        length = behind_roots(total(g, jax.tree.map(jnp.sum, weights), axis_name))
    else:
        weights = jax.tree.map(lambda s: s ** (1 / (p - 1)), shares)
        length = total(g, jax.tree.map(lambda s, x: jnp.sum(s * x), shares, weights), axis_name) ** (1 / p)
    direction = lambda s, x: (times(inverse(length), s) * jnp.sign(widen(x))).astype(x.dtype)
    return jax.tree.map(direction, weights, g)
