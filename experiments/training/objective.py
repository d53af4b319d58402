"""The objective of a run: a loss by name, class weights, and flooding, each given as text.

docs/pages/data.md explains the names. Weights multiply the loss of each example; the mean divides by the number of
examples, not by the sum of the weights.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import pugd_optax
from experiments.config.errors import UsageError
from experiments.config.specs import Spec, spec
from pugd_optax import losses

Losses = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""`(logits, labels, step) -> losses` [batch]; labels are indices [batch] or soft [batch, classes]."""


class Criterion(NamedTuple):
    """The objective of a run, as a function of logits, labels and the step.

    Attributes:
      losses: the loss of each example, [batch]; a `UsageError` if only the loss of a batch is defined.
      mean: their mean, or the quantity that is minimised instead.
    """

    losses: Losses
    mean: Losses


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Softmax cross-entropy; `smoothing` in [0, 1) is the share of each label that is spread over all classes."""
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing={smoothing}: expected a number in [0, 1)")
    plain = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if not smoothing:
        return plain
    return (1 - smoothing) * plain - smoothing * jax.nn.log_softmax(logits).mean(-1)


def focal(logits: jax.Array, labels: jax.Array, gamma: float = 2.0, alpha: float | None = None) -> jax.Array:
    """Focal loss of every class against all others, summed over the classes."""
    one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return optax.sigmoid_focal_loss(logits, one_hot, alpha=alpha, gamma=gamma).sum(-1)


def none(step: jax.Array, labels: jax.Array) -> float:
    """Equal weights."""
    del step, labels
    return 1.0


def class_balanced(step: jax.Array, labels: jax.Array, counts: np.ndarray, beta: float = 0.9999) -> jax.Array:
    """Weights by the effective number of examples, at every step."""
    del step
    return losses.class_balanced_weights(counts, beta)[labels]


def drw(step: jax.Array, labels: jax.Array, counts: np.ndarray, start: int, beta: float = 0.9999) -> jax.Array:
    """The weights of `class_balanced` from step `start` on, and equal weights before."""
    return losses.drw_weights(counts, step, start, beta)[labels]


def _later(function: Callable[..., Any], *later: str) -> Callable[..., Any]:
    """The function split into two calls: first its options, then the arguments named here."""
    signature = inspect.signature(function)
    made: Any = lambda **options: functools.partial(function, **options)
    made.__signature__ = signature.replace(parameters=[p for k, p in signature.parameters.items() if k not in later])
    return made


LOSSES = {
    f.__name__: _later(f, "logits", "labels")
    for f in (
        cross_entropy,
        focal,
        losses.balanced_softmax,
        losses.logit_adjustment,
        losses.ldam,
        losses.gce,
        losses.sce,
    )
}
REWEIGHTS = {f.__name__: _later(f, "step", "labels") for f in (none, class_balanced, drw)}
OF_EXAMPLES = {f.__name__: _later(f, "loss_fn", "has_aux") for f in (pugd_optax.iflood, pugd_optax.soft_ad)}
OF_BATCHES = {"none": lambda: lambda loss_fn: loss_fn, "flood": _later(pugd_optax.flood, "loss_fn", "has_aux")}
FLOODINGS = {**OF_BATCHES, **OF_EXAMPLES}


def criterion(loss: Spec, reweight: Spec, flooding: Spec, counts: np.ndarray, steps: int) -> Criterion:
    """The criterion of a run of `steps` steps with `counts` training examples of each class.

    Example:
      >>> import jax.numpy as jnp
      >>> made = criterion(spec("ldam:0.5:1"), spec("drw:0.8"), spec("none"), np.array([16, 1]), steps=10)
      >>> logits, labels = jnp.array([[0.5, 0.0], [0.0, 0.5]]), jnp.array([0, 1])
      >>> print(jnp.array_str(made.losses(logits, labels, jnp.int32(0)), precision=3))
      [0.576 0.693]
    """
    known = {"counts": counts}
    plain = loss.build("loss", LOSSES, steps=steps, fills=known)
    weights = reweight.build("reweighting", REWEIGHTS, steps=steps, fills=known)
    flooded = flooding.build("flooding", FLOODINGS, steps=steps)
    each = _of_soft_labels(lambda logits, labels, step: weights(step, labels) * plain(logits, labels))
    if flooding.name in OF_BATCHES:
        return Criterion(each if flooding.name == "none" else _refuse(flooding), flooded(_mean(each)))
    one = jax.vmap(flooded(lambda loss: loss[None]))
    each = lambda *args, each=each: one(each(*args))
    return Criterion(each, _mean(each))


def _mean(each: Losses) -> Losses:
    return lambda logits, labels, step: each(logits, labels, step).mean()


def _of_soft_labels(loss: Losses) -> Losses:
    """For an example with two labels, as created by mixup: the losses with each label, weighted by their shares."""

    def mixed(logits: jax.Array, labels: jax.Array, step: jax.Array) -> jax.Array:
        if labels.ndim == 1:
            return loss(logits, labels, step)
        shares, indices = jax.lax.top_k(labels, 2)
        return sum(shares[:, k] * loss(logits, indices[:, k], step) for k in range(2))  # pyright: ignore

    return mixed


def _refuse(flooding: Spec) -> Losses:
    def losses(logits: jax.Array, labels: jax.Array, step: jax.Array) -> jax.Array:
        raise UsageError(
            f"{flooding} is of the mean of a batch, but this method needs a loss of each example; "
            f"use {flooding.text.replace('flood', 'iflood')}"
        )

    return losses


CROSS_ENTROPY = criterion(spec("cross_entropy"), spec("none"), spec("none"), np.ones(0), steps=0)
