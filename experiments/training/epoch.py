"""One pass over the training examples, with a compiled step of each kind."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.pipeline import Source
from experiments.runs.memory import give_back
from experiments.runs.state import State
from experiments.training import parallel
from experiments.training.experiment import Experiment

copied = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
"""A copy of the arrays of a tree, made by one program."""


def compile_steps(experiment: Experiment, state: State, train: Source, key: jax.Array) -> float:
    """Run a call of every kind once on a copy, so that later times do not include compilation.

    Of several runs side by side, the first one compiles while the others wait.
    """
    begun = time.perf_counter()
    with experiment.compiling:
        for steps, active in experiment.programs:
            rows = _own_rows(experiment, np.zeros((steps, experiment.config.batch), np.int32))
            feed = next(train.read([rows]))
            jax.block_until_ready(experiment.step(copied(state), train.data, feed, key, np.float32(0), active=active))
    give_back()
    return time.perf_counter() - begun


def never(done: int) -> bool:
    """Do not pause."""
    del done
    return False


def run_epoch(
    experiment: Experiment,
    state: State,
    train: Source,
    key: jax.Array,
    val_loss: jax.Array | np.floating,
    seed: int,
    epoch: int,
    start: int = 0,
    pause: Callable[[int], bool] = never,
):
    """A pass in an order that depends on seed and epoch, from step `start` to its end or until `pause(done)` is true.

    `pause` is called after every call of the step with the number of completed steps of the epoch.

    Returns:
      The state and the metrics of every step taken, at least one.
    """
    order = np.random.default_rng([seed, 4, epoch]).permutation(len(train.data.labels)).astype(np.int32)
    steps, batch = experiment.steps_per_epoch, experiment.config.batch
    order = order[: steps * batch].reshape(steps, batch)
    reported = []
    due = [chunk for chunk in experiment.chunks(epoch) if chunk.stop > start]
    rows = [_own_rows(experiment, order[max(chunk.start, start) : chunk.stop]) for chunk in due]
    for chunk, feed in zip(due, train.read(rows, (seed, epoch)), strict=True):
        state, metrics = experiment.step(state, train.data, feed, key, val_loss, active=chunk.active)
        reported.append(metrics)
        if pause(chunk.stop):
            break
    jax.block_until_ready(state)
    return state, jax.tree.map(lambda *x: np.concatenate(x), *jax.device_get(reported))


def _own_rows(experiment: Experiment, positions: np.ndarray) -> np.ndarray:
    """The rows of the batches [steps, batch] that the devices of this process work on."""
    return positions[:, parallel.local_rows(experiment.layout.mesh, experiment.config.batch)]
