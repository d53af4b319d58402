"""Full-batch gradient descent as one compiled loop, for many seeds at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

LossesFn = Callable[[Any], jax.Array]


def descend(
    tx: optax.GradientTransformation,
    losses_fn: LossesFn,
    params: Any,
    steps: int,
    watch: Callable[[Any], Any] = lambda params: (),
    every: int | None = None,
) -> tuple[Any, Any]:
    """Minimise the mean of `losses_fn(params)`.

    Args:
      tx: a method and its base optimizer.
      losses_fn: `params -> losses` [examples].
      params: the start.
      steps: number of steps.
      watch: a function of the parameters whose value is recorded.
      every: number of steps between records, a divisor of `steps`. Default: only at the end.

    Returns:
      The last parameters, and the records stacked.
    """
    tx = optax.with_extra_args_support(tx)
    grad_fn = jax.grad(lambda params: jnp.mean(losses_fn(params)))
    every = steps if every is None else every

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn, losses_fn=losses_fn)
        return (optax.apply_updates(params, updates), state), None

    def stretch(carry, _):
        carry, _ = jax.lax.scan(step, carry, length=every)
        return carry, watch(carry[0])

    (params, _), records = jax.lax.scan(stretch, (params, tx.init(params)), length=steps // every)
    return params, records


def over_seeds(run: Callable[[jax.Array], Any], first_seed: int, seeds: int) -> Any:
    """`run(key)` for every seed in one compiled call, as NumPy arrays whose first axis is the seed."""
    keys = jax.vmap(jax.random.key)(jnp.arange(first_seed, first_seed + seeds))
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(run))(keys))
