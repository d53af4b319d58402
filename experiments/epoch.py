"""One pass over the training examples, with the compiled step of each kind."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.job import Job
from experiments.step import Data, State


def compile_steps(job: Job, state: State, train: Data, key: jax.Array) -> float:
    """Run every variant of the step once on a copy, so that what is timed later is training alone."""
    begun = time.perf_counter()
    chosen = np.zeros(job.config.batch, np.int32)
    for active in job.variants:
        copy = jax.tree.map(jnp.copy, state)
        jax.block_until_ready(job.step(copy, train, chosen, key, jnp.float32(0), active=active))
    return time.perf_counter() - begun


def never(done: int) -> bool:
    """Do not pause."""
    del done
    return False


def run_epoch(
    job: Job,
    state: State,
    train: Data,
    key: jax.Array,
    val_loss: jax.Array,
    seed: int,
    epoch: int,
    start: int = 0,
    pause: Callable[[int], bool] = never,
):
    """A pass in an order that follows from seed and epoch, from step `start` of it to its end or a `pause(done)`.

    `pause` is told after every call of the step how many steps of the epoch are done.

    Returns:
      The state and the metrics of every step taken, at least one.
    """
    order = np.random.default_rng([seed, 4, epoch]).permutation(len(train.labels)).astype(np.int32)
    first = (epoch - 1) * job.steps_per_epoch
    kept = []
    for i in range(start, job.steps_per_epoch):
        active = None if job.recipe.plan is None else bool(job.recipe.plan[first + i])
        chosen = order[i * job.config.batch : (i + 1) * job.config.batch]
        state, metrics = job.step(state, train, chosen, key, val_loss, active=active)
        kept.append(metrics)
        if pause(i + 1):
            break
    jax.block_until_ready(state)
    return state, jax.tree.map(lambda *x: np.stack(x), *jax.device_get(kept))
