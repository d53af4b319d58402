"""Gradient functions built from a model's logits, and methods that weight sharpness by class."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax

from pugd_optax._checks import LOGIT_ARGS, check_extra_args, check_trees
from pugd_optax._class_checks import membership
from pugd_optax._norms import cast_like, widen
from pugd_optax._typing import Mask
from pugd_optax.ascents import normalize, restrict
from pugd_optax.logits import LogitLoss, multiplicative
from pugd_optax.reevaluate import reevaluate
from pugd_optax.schedules import Radius
from pugd_optax.through_logits import mean_cross_entropy, pulled_back
from pugd_optax.timing import When


def loss_of_logits(method: str, logits_fn: Any, labels: Any, where: Any, logit_loss: LogitLoss | None) -> LogitLoss:
    """The loss as a function of the logits, or an error that says what the method needs."""
    if logits_fn is None or (labels is None and logit_loss is None):
        raise ValueError(_NO_LOGITS.format(method=method, name="logits_fn" if logits_fn is None else "labels"))
    return functools.partial(mean_cross_entropy, labels=labels, where=where) if logit_loss is None else logit_loss


def class_weighted(
    method: str,
    weights: Callable[[], jax.Array],
    *,
    radius: Radius,
    when: When,
    mask: Mask | None,
    report: bool,
) -> optax.GradientTransformationExtraArgs:
    r"""SAM on a class-weighted part of the loss, and the gradient at $w$ on the rest.

    $$L_c = \tfrac1n \sum_i c_{y_i} \ell_i, \qquad \epsilon = \rho\,\frac{\nabla L_c(w)}{\|\nabla L_c(w)\|}, \qquad
      u = \nabla (L - L_c)(w) + \nabla L_c(w + \epsilon)$$
    """
    inner = reevaluate(restrict(normalize(), mask), _exchange, radius=radius, when=when, report=report)

    def update(
        updates, state, params=None, *, logits_fn: Any = None, labels=None, where=None, logit_loss=None, **extra_args
    ):
        check_trees(updates, params)
        check_extra_args(extra_args, LOGIT_ARGS)
        loss = loss_of_logits(method, logits_fn, labels, where, logit_loss)
        if labels is None:
            raise ValueError(_NO_LOGITS.format(method=method, name="labels"))

        def weighted(logits: jax.Array) -> jax.Array:
            members = membership(labels, logits, where)
            return multiplicative(jax.grad(loss)(logits), members, weights().astype(widen(logits).dtype) - 1)

        part = lambda p: pulled_back(*jax.vjp(logits_fn, p), weighted, updates)
        given = {"grad_fn": part, "ascent_grad_fn": part, "value_fn": None}
        return inner.update(updates, state, params, **(extra_args | given))

    return optax.GradientTransformationExtraArgs(inner.init, update)


def _exchange(g: optax.Updates, g_star: optax.Updates, followed: optax.Updates) -> optax.Updates:
    """The gradient, in which the part that the ascent followed is evaluated at the perturbed point."""
    return cast_like(jax.tree.map(lambda x, y, z: widen(x) + (widen(y) - widen(z)), g, g_star, followed), g)


_NO_LOGITS = (
    "{name} is None: {method} needs logits_fn= and labels= of the batch. "
    "Fix: tx.update(grads, state, params, logits_fn=lambda p: model.apply(p, x), labels=y); with value_and_grad, "
    "extra_args=dict(logits_fn=..., labels=y)."
)
