r"""How much the loss increases around the parameters."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import check_count, check_number
from pugd_optax._norms import norm, widen
from pugd_optax.ascents import normalize, offset
from pugd_optax.noise import as_key, draw


def gradient_norm(loss_fn: Callable[[optax.Params], jax.Array], params: optax.Params) -> jax.Array:
    r"""$\|\nabla L(w)\|$ over all parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> gradient_norm(lambda w: 0.5 * jnp.sum(w**2), jnp.array([3.0, 4.0]))
      Array(5., dtype=float32)
    """
    return norm(jax.grad(loss_fn)(params))


def sharpness(
    loss_fn: Callable[[optax.Params], jax.Array],
    params: optax.Params,
    radius: float = 0.05,
    *,
    ascent: optax.GradientTransformation | None = None,
) -> jax.Array:
    r"""The gap used by SAM: how much the loss increases along the gradient.

    $$L(w + \rho\, g / \|g\|) - L(w)$$

    To first order this is the largest increase in the ball, of which it is a lower bound. It costs one gradient and one
    loss evaluation, so logging it every hundred steps costs almost nothing.

    Args:
      loss_fn: `params -> loss`, a scalar.
      params: $w$.
      radius: $\rho \ge 0$. In float32, an increase below about 1e-7 of the loss, or a step below 1e-7 of each
        parameter, is lost in rounding.
      ascent: another direction in place of `pugd_optax.normalize()`, for example
        `optax.chain(scale_by_abs_params(), normalize())` for PUGD's.

    Returns:
      A scalar; 0 if the gradient is 0, or its norm or squared norm is outside of float32 (below 1e-19, above 1e19).

    Raises:
      ValueError: if `radius` is negative.

    Example:
      >>> import jax.numpy as jnp
      >>> print(f"{sharpness(lambda w: 0.5 * jnp.sum(w**2), jnp.array([3.0, 4.0]), radius=0.1):.3f}")
      0.505

    References:
      Foret, Kleiner, Mobahi and Neyshabur, Sharpness-Aware Minimization for Efficiently Improving Generalization, ICLR
      2021, https://arxiv.org/abs/2010.01412
    """
    check_number("radius", radius, low=0)
    ascent = normalize() if ascent is None else ascent
    value, g = jax.value_and_grad(loss_fn)(params)
    eps, _ = ascent.update(jax.tree.map(jnp.conj, g), ascent.init(params), params)
    return loss_fn(offset(params, _scaled(radius, eps))) - value


def average_sharpness(
    loss_fn: Callable[[optax.Params], jax.Array],
    params: optax.Params,
    radius: float = 0.05,
    key: jax.Array | int = 0,
    *,
    samples: int = 100,
) -> jax.Array:
    r"""How much the loss increases on average in a random direction.

    $$\mathbb{E}_\xi\, L(w + \xi) - L(w), \qquad \xi \sim \mathcal{N}\big(0, \tfrac{\rho^2}{d} I\big)$$

    so that the root mean square length of $\xi$ is $\rho$, whatever the number $d$ of parameters. To second order it is
    $\frac{\rho^2}{2d} \operatorname{tr} H$, usually far below `sharpness` at the same radius. Noise is drawn in pairs
    $\pm\xi$, for which the linear term cancels; away from a minimum this term is most of the variance.

    Args:
      loss_fn: `params -> loss`, a scalar.
      params: $w$.
      radius: $\rho \ge 0$. In float32, an increase below about 1e-7 of the loss, or noise $\rho / \sqrt{d}$ below 1e-7
        of a parameter, is lost in rounding: use a larger radius, or float64.
      key: a PRNG key or an integer seed.
      samples: number of evaluations of the loss at perturbed parameters, at least 2 and even.

    Returns:
      A scalar, unbiased, with a standard error proportional to 1 / sqrt(`samples`). The halves of a pair are not
      independent, so `pac_bayes_bound` needs draws of `perturbed_risk` instead.

    Raises:
      ValueError, TypeError: if an argument is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> gap = average_sharpness(lambda w: 0.5 * jnp.sum(w**2), jnp.ones(1000), radius=0.1)
      >>> print(f"{gap:.4f}")
      0.0050
    """
    check_number("radius", radius, low=0)
    check_count("samples", samples, low=2)
    if samples % 2:
        raise ValueError(f"samples={samples}: noise is drawn in pairs. Fix: samples={samples + 1}.")
    key, scale, value = as_key(key), radius / math.sqrt(_size(params)), loss_fn(params)

    def pair(i: jax.Array) -> jax.Array:
        xi = draw(key, i, params)
        up, down = (loss_fn(offset(params, _scaled(sign * scale, xi))) for sign in (1, -1))
        return ((up - value) + (down - value)) / 2

    return jnp.mean(jax.lax.map(pair, jnp.arange(samples // 2)))


def _size(params: optax.Params) -> int:
    return sum(x.size for x in jax.tree.leaves(params))


def _scaled(factor: float, tree: optax.Updates) -> optax.Updates:
    return jax.tree.map(lambda x: factor * widen(x), tree)
