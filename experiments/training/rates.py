"""Learning rate and weight decay as data of the step, so that one compiled program works for all their values."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

ROOM = 1024
"""Tables are padded to a multiple of this many steps, so that one program works for runs of several lengths."""

Make = Callable[[optax.Schedule, Any], optax.GradientTransformation]


class Tabulated(NamedTuple):
    """The state of a tabulated optimizer.

    Attributes:
      rates: the learning rate of each step, continued with the last one, [steps or more].
      weight_decay: a number.
      inner: the state of the optimizer.
    """

    rates: jax.Array
    weight_decay: jax.Array
    inner: optax.OptState


def tabulated(make: Make, rates: np.ndarray, weight_decay: float) -> optax.GradientTransformationExtraArgs:
    """The optimizer `make(schedule, weight_decay)` with its schedule as a table in the state.

    A program reads these numbers from the state; the arguments here are only their initial values.

    Example:
      >>> tx = tabulated(lambda lr, decay: optax.sgd(lr), np.array([1.0, 0.5], np.float32), 0.0)
      >>> state = tx.init(jnp.ones(1))
      >>> for _ in range(2):
      ...     update, state = tx.update(jnp.ones(1), state)
      >>> print(update)
      [-0.5]
    """
    start = table(rates), jax.device_put(np.float32(weight_decay))

    def made(rates: jax.Array, weight_decay: jax.Array) -> optax.GradientTransformationExtraArgs:
        return optax.with_extra_args_support(make(lambda step: jnp.take(rates, step, mode="clip"), weight_decay))

    def init(params: optax.Params) -> Tabulated:
        return Tabulated(*start, made(*start).init(params))

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Tabulated]:
        tx = made(state.rates, state.weight_decay)
        updates, inner = tx.update(updates, state.inner, params, **extra_args)
        return updates, state._replace(inner=inner)

    return optax.GradientTransformationExtraArgs(init, update)


def table(rates: np.ndarray) -> jax.Array:
    """The rates in the form of the state.

    Example:
      >>> table(np.ones(3)).shape
      (1024,)
    """
    return jax.device_put(np.pad(rates, (0, -len(rates) % ROOM), mode="edge").astype(np.float32))
