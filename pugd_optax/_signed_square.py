"""The squared norm of a gradient of weighted losses, whose derivative costs one Hessian-vector product."""

import functools
from typing import Any

import jax
import numpy as np
import optax

from pugd_optax._norms import vdot, widen
from pugd_optax._typing import LossesFn
from pugd_optax.evaluations import hessian_vector_product


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def signed_square(losses_fn: LossesFn, params: optax.Params, coins: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Losses, and the squared norm of the gradient of their sum weighted by `coins`."""
    losses, g = _weighted_gradient(losses_fn, params, coins)
    return losses, vdot(g, g)


def _weighted_gradient(losses_fn: LossesFn, params: optax.Params, weights: jax.Array):
    losses, pull = jax.vjp(losses_fn, params)
    return losses, pull(weights.astype(losses.dtype))[0]


def _signed_forward(losses_fn: LossesFn, params: optax.Params, coins: jax.Array):
    losses, g = _weighted_gradient(losses_fn, params, coins)
    return (losses, vdot(g, g)), (params, coins, g)


def _signed_backward(losses_fn: LossesFn, seen: tuple, cotangents: tuple[jax.Array, jax.Array]):
    """One Hessian-vector product; the gradient is linear in its weights, so `to_losses` is their tangent."""
    (params, coins, g), (to_losses, to_square) = seen, cotangents
    along = jax.tree.map(lambda x: (2 * to_square * widen(x)).astype(x.dtype), g)
    gradient = lambda at: _weighted_gradient(losses_fn, *at)[::-1]  # of the weighted losses, by params and by weights
    product: Any = hessian_vector_product(gradient, (params, coins.astype(to_losses.dtype)), (along, to_losses))
    return product[0], np.zeros(coins.shape, jax.dtypes.float0)


signed_square.defvjp(_signed_forward, _signed_backward)
