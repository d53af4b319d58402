"""One training step as a pure function."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments.data.batch import Augment, Data
from experiments.runs.state import State
from experiments.training.gate_plan import reevaluations
from experiments.training.objective import CROSS_ENTROPY, Criterion
from experiments.training.passes import Passes
from experiments.training.second_batch import SecondBatch
from pugd_optax.reevaluate import Report


class Metrics(NamedTuple):
    """The report of a step: loss and accuracy of the first pass, and the state of the perturbation."""

    loss: jax.Array
    accuracy: jax.Array
    active: jax.Array
    radius: jax.Array
    cosine: jax.Array
    grad_norm: jax.Array
    perturbed_grad_norm: jax.Array


def make_step(
    graphdef: nnx.GraphDef,
    method: optax.GradientTransformation,
    base: optax.GradientTransformation,
    augment: Augment,
    criterion: Criterion = CROSS_ENTROPY,
    *,
    second: SecondBatch | None = None,
    skip_nonfinite: bool = False,
    microbatches: int = 1,
    average: Callable[[Any], Any] = lambda tree: tree,
):
    """`step(state, data, indices, key, val_loss, *, active) -> (state, metrics)`, a pure function.

    `indices` are the positions of the batch in `data`, or the batch itself, a `HostBatch`. `active` is a Python bool if
    the gate is known in advance, so that an idle step compiles to one gradient, and None if the gate decides. The model
    state (running statistics) is that of the first pass; that of the second pass is discarded.

    Args:
      graphdef: the model without its arrays.
      method: perturbs the gradient.
      base: makes an update of it; its state follows that of the method, as in a chain.
      augment: reads and augments the batch.
      criterion: what is minimised.
      second: the examples of the second gradient; None for the whole batch.
      skip_nonfinite: whether a step whose loss or parameters are not finite changes nothing but the step count.
      microbatches: parts of the batch that pass through the model one after the other.
      average: takes the mean of the floats of a tree over devices that run the step side by side.
    """
    method, base = map(optax.with_extra_args_support, (method, base))

    def step(state: State, data: Data, indices: Any, key: jax.Array, val_loss: jax.Array, *, active: bool | None):
        images, labels = augment(jax.random.fold_in(key, state.step), data, indices)
        passes = Passes(graphdef, state.model_state, images, labels, state.step, criterion, microbatches)
        # The pass through the network is split at the logits, for methods that edit the gradient there.
        logits, pullback, model_state = jax.vjp(passes.forward, state.params, has_aux=True)
        loss, slope = jax.value_and_grad(passes.loss_of)(logits)
        perturbed, method_state = method.update(
            pullback(slope)[0],
            state.opt_state[0],
            state.params,
            grad_fn=lambda params: passes.second(params, second, logits),
            losses_fn=passes.losses,
            logits_fn=passes.logits,
            logits_vjp=(logits, pullback),
            logit_loss=passes.loss_of,
            labels=labels,
            active=active,
            train_loss=loss,
            val_loss=val_loss,
        )
        accuracy = jnp.mean(logits.argmax(-1) == (labels if labels.ndim == 1 else labels.argmax(-1)))
        perturbed, method_state, model_state, loss, accuracy = average(
            (perturbed, method_state, model_state, loss, accuracy)
        )
        updates, base_state = base.update(perturbed, state.opt_state[1], state.params, value=loss)
        params = optax.apply_updates(state.params, updates)
        new = State(state.step + 1, params, model_state, (method_state, base_state))
        metrics = _metrics(loss, accuracy, new.opt_state)
        return _skip_nonfinite(state, new, metrics) if skip_nonfinite else (new, metrics)

    return step


def _skip_nonfinite(old: State, new: State, metrics: Metrics) -> tuple[State, Metrics]:
    """The new state, or the old one one step on; the loss reported is then NaN."""
    fine = jnp.isfinite(metrics.loss) & jnp.stack([jnp.isfinite(w).all() for w in jax.tree.leaves(new.params)]).all()
    kept = jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, old)
    return kept._replace(step=new.step), metrics._replace(loss=jnp.where(fine, metrics.loss, jnp.nan))


def _metrics(loss: jax.Array, accuracy: jax.Array, opt_state: optax.OptState) -> Metrics:
    found = reevaluations(opt_state)
    if not found:
        return Metrics(loss, accuracy, *(jnp.zeros(()) for _ in Metrics._fields[2:]))
    measured = found[0].report or Report(*(jnp.zeros(()) for _ in Report._fields))
    norms = measured.cosine, measured.grad_norm, measured.perturbed_grad_norm
    return Metrics(loss, accuracy, found[0].active, found[0].radius, *norms)
