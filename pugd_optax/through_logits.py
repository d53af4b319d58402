"""The combinator of the logit family: perturb the gradient at the logits, once a step, and pull it back."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pugd_optax import classes
from pugd_optax._checks import check_number, check_trees
from pugd_optax._class_checks import check_logits
from pugd_optax._cross_entropy import cross_entropy
from pugd_optax.logits import LogitLoss

Cotangent = Callable[[LogitLoss, jax.Array], jax.Array]
"""`(logit_loss, logits) -> gradient with respect to the logits`, perturbed."""


class LogitState(NamedTuple):
    """State of `lpg` and `lpl`.

    Attributes:
      classes: what is known of each class.
      strength: (classes,) float32, the signed bound of the last call; only reported. 0 before the first call.
      inner: state of the inner transformation.
    """

    classes: classes.ClassState
    strength: jax.Array
    inner: optax.OptState


def through_logits(
    num_classes: int,
    freeze: Callable[[jax.Array, Any, jax.Array], Cotangent],
    strength: Callable[[classes.ClassState], jax.Array],
    *,
    decay: jax.typing.ArrayLike | None = None,
    inner: optax.GradientTransformation | None = None,
    axis_name: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Replace the gradient by one pulled back from a perturbed logit gradient.

    $$\tilde g = J^\top \tilde G, \qquad \tilde G = \mathrm{cotangent}(\ell, u), \qquad u = \mathrm{logits\_fn}(w)$$

    The per-class state is moved and the perturbation frozen once a step, at $w$; the inner transformation evaluates
    the gradient elsewhere under the same frozen perturbation.

    Args:
      num_classes: number of classes, at least 2.
      freeze: `(logits, labels, strength) -> cotangent`, where `cotangent(logit_loss, logits)` gives $\tilde G$.
      strength: `ClassState -> (classes,)`, the signed bound of each class.
      decay: of the running confidences (see `pugd_optax.classes.observe`).
      inner: what $\tilde g$ goes through, with a `grad_fn` of the same kind. Default: nothing.
      axis_name: a mesh axis over which the batch is split, for the per-class sums.

    Returns:
      An `optax.GradientTransformationExtraArgs`; `update` is described in `pugd_optax.lpg`.
    """
    if decay is not None:
        check_number("decay", decay, low=0, high=1)
    classes.init(num_classes)  # refuses a bad number of classes here and not in `init`
    inner = optax.with_extra_args_support(optax.identity() if inner is None else inner)

    def init(params: optax.Params) -> LogitState:
        return LogitState(classes.init(num_classes), jnp.zeros((num_classes,), jnp.float32), inner.init(params))

    def update(
        updates, state, params=None, *, logits_fn=None, labels=None, logit_loss=None, logits_vjp=None, **extra_args
    ):
        check_trees(updates, params)
        if logits_fn is None or labels is None:
            raise ValueError(_NO_LOGITS.format(name="logits_fn" if logits_fn is None else "labels"))
        loss = functools.partial(_mean_cross_entropy, labels=labels) if logit_loss is None else logit_loss
        logits, pullback = jax.vjp(logits_fn, params) if logits_vjp is None else logits_vjp
        check_logits(logits, num_classes)
        seen = classes.observe(state.classes, logits, labels, decay=decay, axis_name=axis_name)
        t = strength(seen)
        cotangent = freeze(jax.lax.stop_gradient(logits), labels, t)

        def pull_back(logits, pullback):
            (g,) = pullback(cotangent(loss, logits).astype(logits.dtype))
            # Optax's convention for complex parameters is the conjugate of JAX's.
            return jax.tree.map(lambda x, like: jnp.conj(x).astype(like.dtype), g, updates)

        extra_args |= {"grad_fn": lambda p: pull_back(*jax.vjp(logits_fn, p)), "value_fn": None}
        extra_args |= {"logits_fn": logits_fn, "labels": labels, "logit_loss": logit_loss}
        u, inner_state = inner.update(pull_back(logits, pullback), state.inner, params, **extra_args)
        return u, LogitState(seen, t, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


_NO_LOGITS = (
    "{name} is None, but a perturbation of the logits needs the logits and the labels of the batch. Fix: "
    "tx.update(grads, state, params, logits_fn=lambda p: model.apply(p, x), labels=y)."
)


def _mean_cross_entropy(logits: jax.Array, labels: Any) -> jax.Array:
    if jnp.issubdtype(jnp.result_type(labels), jnp.floating):
        return optax.softmax_cross_entropy(logits, jnp.asarray(labels).astype(logits.dtype)).mean()
    return cross_entropy(logits, labels).mean()
