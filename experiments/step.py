"""One training step as a pure function, and evaluation."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import pugd_optax
from experiments.criteria import CROSS_ENTROPY, Criterion


class State(NamedTuple):
    """All that changes in training: step count, parameters, the rest of the model (running statistics), optimizer."""

    step: jax.Array
    params: Any
    rest: Any
    opt_state: optax.OptState


class Data(NamedTuple):
    """Examples on the device: images uint8 [n, h, w, c], labels [n]; mean and deviation of the channels."""

    images: jax.Array
    labels: jax.Array
    mean: jax.Array
    std: jax.Array

    def normalised(self, images: jax.Array) -> jax.Array:
        """Images as floats of mean 0 and deviation 1."""
        return (images.astype(jnp.float32) - self.mean) / self.std


class Metrics(NamedTuple):
    """What a step reports: clean loss and accuracy of the first pass, and the state of the perturbation."""

    loss: jax.Array
    accuracy: jax.Array
    active: jax.Array
    radius: jax.Array
    cosine: jax.Array
    grad_norm: jax.Array
    perturbed_grad_norm: jax.Array


Augment = Callable[[jax.Array, Data, jax.Array], tuple[jax.Array, jax.Array]]
"""`(key, data, chosen) -> (images, labels)`: normalised images; labels [batch], or soft ones [batch, classes]."""


def initial(tx: optax.GradientTransformation, params: Any, rest: Any, seed: int) -> State:
    """The state before the first step; random keys that a method carries are told apart by the seed."""

    def own(x: jax.Array) -> jax.Array:
        return jax.random.fold_in(x, seed) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    return State(jnp.zeros((), jnp.int32), params, rest, jax.tree.map(own, tx.init(params)))


def forward_factory(graphdef: nnx.GraphDef, rest: Any, images: jax.Array):
    """`forward(params) -> (logits, rest)`, bound to one batch and to the model's state before the step."""

    def forward(params: optax.Params):
        model = nnx.merge(graphdef, params, rest)
        model.train()
        logits = model(images)
        return logits, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))

    return forward


def make_step(
    graphdef: nnx.GraphDef,
    tx: optax.GradientTransformationExtraArgs,
    augment: Augment,
    criterion: Criterion = CROSS_ENTROPY,
    drop: bool = False,
):
    """`step(state, data, chosen, key, val_loss, *, active) -> (state, metrics)`, jitted, its state donated.

    `chosen` holds the positions of the batch. `active` is a Python bool where the gate is known ahead, so that each
    variant compiles to what it uses (on CPU a convolution's gradient inside `lax.cond` is forty times slower), and
    None where the gate decides. Running statistics are those of the first pass: the second pass starts from the same
    state and what it leaves behind is dropped.

    With `drop`, a step whose loss or parameters are not finite changes nothing but the step count.
    """

    @functools.partial(jax.jit, static_argnames="active", donate_argnums=0)
    def step(state: State, data: Data, chosen: jax.Array, key: jax.Array, val_loss: jax.Array, *, active: bool | None):
        images, labels = augment(jax.random.fold_in(key, state.step), data, chosen)
        forward = forward_factory(graphdef, state.rest, images)
        logits_fn = lambda p: forward(p)[0]
        logit_loss = lambda logits: criterion.mean(logits, labels, state.step)
        # The pass through the network is taken apart at the logits, for methods that edit the gradient there.
        logits, pullback, rest = jax.vjp(forward, state.params, has_aux=True)
        loss, slope = jax.value_and_grad(logit_loss)(logits)
        updates, opt_state = tx.update(
            pullback(slope)[0],
            state.opt_state,
            state.params,
            grad_fn=jax.grad(lambda p: logit_loss(logits_fn(p))),
            losses_fn=lambda p: criterion.losses(logits_fn(p), labels, state.step),
            logits_fn=logits_fn,
            logits_vjp=(logits, pullback),
            logit_loss=logit_loss,
            labels=labels,
            active=active,
            train_loss=loss,
            val_loss=val_loss,
        )
        params = optax.apply_updates(state.params, updates)
        accuracy = jnp.mean(logits.argmax(-1) == (labels if labels.ndim == 1 else labels.argmax(-1)))
        new, metrics = State(state.step + 1, params, rest, opt_state), _metrics(loss, accuracy, opt_state)
        return _drop_unless_finite(state, new, metrics) if drop else (new, metrics)

    return step


def _drop_unless_finite(old: State, new: State, metrics: Metrics) -> tuple[State, Metrics]:
    """The new state, or the old one one step on; the loss reported is then NaN."""
    fine = jnp.isfinite(metrics.loss) & jnp.stack([jnp.isfinite(w).all() for w in jax.tree.leaves(new.params)]).all()
    kept = jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, old)
    return kept._replace(step=new.step), metrics._replace(loss=jnp.where(fine, metrics.loss, jnp.nan))


def reevaluations(state: optax.OptState) -> list[pugd_optax.ReevaluateState]:
    """The states of all re-evaluating transformations in a chain."""
    return [x for x in jax.tree.leaves(state, is_leaf=is_reevaluation) if is_reevaluation(x)]


def is_reevaluation(x: object) -> bool:
    """Whether this part of a state belongs to `pugd_optax.reevaluate`."""
    return isinstance(x, pugd_optax.ReevaluateState)


def _metrics(loss: jax.Array, accuracy: jax.Array, opt_state: optax.OptState) -> Metrics:
    found = reevaluations(opt_state)
    reported = (getattr(found[0], name) if found else jnp.zeros(()) for name in Metrics._fields[2:])
    return Metrics(loss, accuracy, *reported)


def evaluate(graphdef: nnx.GraphDef, params: Any, rest: Any, data: Data, chunk: int = 1000) -> tuple[float, float]:
    """Mean cross-entropy and accuracy on all of the examples."""
    parts = [
        _totals(graphdef, params, rest, data, data.images[i : i + chunk], data.labels[i : i + chunk])
        for i in range(0, len(data.labels), chunk)
    ]
    loss, correct = (float(sum(part)) / len(data.labels) for part in zip(*parts, strict=True))
    return loss, correct


def hits(graphdef: nnx.GraphDef, params: Any, rest: Any, data: Data, chunk: int = 1000) -> np.ndarray:
    """Which examples are classified rightly, bool [n]."""
    parts = [
        _hits(graphdef, params, rest, data, data.images[i : i + chunk], data.labels[i : i + chunk])
        for i in range(0, len(data.labels), chunk)
    ]
    return np.concatenate(parts)


@functools.partial(jax.jit, static_argnums=0)
def _hits(graphdef: nnx.GraphDef, params: Any, rest: Any, data: Data, images: jax.Array, labels: jax.Array):
    model = nnx.merge(graphdef, params, rest)
    model.eval()
    return model(data.normalised(images)).argmax(-1) == labels


@functools.partial(jax.jit, static_argnums=0)
def _totals(graphdef: nnx.GraphDef, params: Any, rest: Any, data: Data, images: jax.Array, labels: jax.Array):
    model = nnx.merge(graphdef, params, rest)
    model.eval()
    logits = model(data.normalised(images))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.sum(), jnp.sum(logits.argmax(-1) == labels)
