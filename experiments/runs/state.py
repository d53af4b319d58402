"""All that changes in training, and how far a run has come."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class State(NamedTuple):
    """All that changes in training; `opt_state` holds the states of the method and of the base optimizer."""

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any


def initial(tx: optax.GradientTransformation, params: Any, model_state: Any, seed: int) -> State:
    """The state before the first step; random keys that a method carries are told apart by the seed."""

    def own(x: jax.Array) -> jax.Array:
        return jax.random.fold_in(x, seed) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    return State(jnp.zeros((), jnp.int32), params, model_state, jax.tree.map(own, tx.init(params)))


@dataclasses.dataclass
class Progress:
    """How far a run has come, in numbers.

    Attributes:
      epoch: the epoch under way, from 1.
      within: steps of it that are done.
      seconds: of training so far.
      evaluations: of the gradient so far.
      skipped: steps dropped so far because something was not finite.
      val_loss: after the last whole epoch; NaN before there is one, which a gate leaves out.
      best_epoch: the epoch with the best validation accuracy.
      best_accuracy: that accuracy; below any that there is while there is none.
      metrics: what the steps of the epoch under way reported, a list each.
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
    """All that a run goes on from: the state, parameters and model state of the best epoch, the progress."""

    state: State
    best: tuple[Any, Any]
    progress: Progress
