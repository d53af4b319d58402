"""The state of a training run and its progress."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class State(NamedTuple):
    """Everything that changes during training; `opt_state` holds the states of the method and of the base optimizer."""

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any


def initial(tx: optax.GradientTransformation, params: Any, model_state: Any, seed: int) -> State:
    """The state before the first step; random keys in the state of a method differ between seeds."""

    def own(x: jax.Array) -> jax.Array:
        return jax.random.fold_in(x, seed) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    return State(jnp.zeros((), jnp.int32), params, model_state, jax.tree.map(own, tx.init(params)))


@dataclasses.dataclass
class Progress:
    """The progress of a run, in numbers.

    Attributes:
      epoch: the current epoch, from 1.
      within: number of completed steps in it.
      seconds: seconds of training so far.
      evaluations: gradient evaluations so far.
      skipped: steps skipped so far because something was not finite.
      val_loss: validation loss after the last complete epoch; NaN before, which gates ignore.
      best_epoch: the epoch with the best validation accuracy.
      best_accuracy: that accuracy; lower than any real one before the first epoch.
      metrics: the reports of the steps in the current epoch, one list per number.
    """

    epoch: int = 1
    within: int = 0
    seconds: float = 0.0
    evaluations: float = 0.0
    skipped: int = 0
    val_loss: float = float("nan")
    best_epoch: int = 0
    best_accuracy: float = -1.0
    metrics: dict[str, list[float]] = dataclasses.field(default_factory=dict)


class Snapshot(NamedTuple):
    """Everything needed to resume a run: the state, parameters and model state of the best epoch, and the progress."""

    state: State
    best: tuple[Any, Any]
    progress: Progress
