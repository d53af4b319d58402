"""The combinator of the logit methods: perturb the gradient at the logits, and pull it back to the parameters."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pugd_optax import classes
from pugd_optax._checks import LOGIT_ARGS, check_count, check_extra_args, check_number, check_trees
from pugd_optax._class_checks import check_logits, check_where, membership
from pugd_optax._cross_entropy import cross_entropy
from pugd_optax._norms import widen
from pugd_optax.logits import LogitLoss, Offsets, Strength, largest_pull

Cotangent = Callable[[LogitLoss, jax.Array], jax.Array]
"""`(logit_loss, logits) -> gradient with respect to the logits`, perturbed."""


class LogitState(NamedTuple):
    """State of `lpg` and `lpl`.

    Attributes:
      classes: the state of each class.
      rule: the memory of a `pugd_optax.classes.BatchRule`; empty for other rules.
      strength: (classes,) float32, the relative difference between the largest gradient of one example of each class
        and that of cross-entropy: the signed bound of the last call, or `largest_pull` - 1 of its offsets. Only for
        reporting. 0 before the first call.
      inner: state of the inner transformation.
    """

    classes: classes.ClassState
    rule: Any
    strength: jax.Array
    inner: optax.OptState


def through_logits(
    num_classes: int,
    freeze: Callable[[jax.Array, jax.Array, Strength], Cotangent],
    rule: classes.BatchRule,
    *,
    decay: jax.typing.ArrayLike | None = None,
    inner: optax.GradientTransformation | None = None,
    axis_name: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Replace the gradient by one pulled back from a perturbed logit gradient.

    $$\tilde g = J^\top \tilde G, \qquad \tilde G = \mathrm{cotangent}(\ell, u), \qquad u = \mathrm{logits\_fn}(w)$$

    The per-class state is updated and the perturbation is fixed once per step, at $w$; the inner transformation
    evaluates the gradient at other points with the same perturbation.

    Args:
      num_classes: number of classes, at least 2.
      freeze: `(logits, members, strength) -> cotangent`, where `cotangent(logit_loss, logits)` gives $\tilde G$ and
        `members` are the labels as soft labels, all 0 for rows that do not count.
      rule: gives the strength for this batch; `signed` makes a rule from a function of `ClassState`.
      decay: decay of the running confidences (see `pugd_optax.classes.observe`).
      inner: a transformation applied to $\tilde g$, with a `grad_fn` of the same kind. Default: none.
      axis_name: a mesh axis over which the batch is split, for the per-class sums.

    Returns:
      An `optax.GradientTransformationExtraArgs`; `update` is described in `pugd_optax.lpg`.
    """
    if decay is not None:
        check_number("decay", decay, low=0, high=1)
    check_count("num_classes", num_classes, low=2, static=True)
    num_classes = int(num_classes)
    jax.eval_shape(lambda: rule.init(num_classes))  # a rule for another number is refused here and not only in `init`
    inner = optax.with_extra_args_support(optax.identity() if inner is None else inner)

    def init(params: optax.Params) -> LogitState:
        none = jnp.zeros((num_classes,), jnp.float32)
        return LogitState(classes.init(num_classes), rule.init(num_classes), none, inner.init(params))

    def update(
        updates,
        state,
        params=None,
        *,
        logits_fn=None,
        labels=None,
        where=None,
        logit_loss=None,
        logits_vjp=None,
        **extra_args,
    ):
        check_trees(updates, params)
        check_extra_args(extra_args, LOGIT_ARGS)
        if logits_fn is None or labels is None:
            raise ValueError(_NO_LOGITS.format(name="logits_fn" if logits_fn is None else "labels"))
        loss = functools.partial(mean_cross_entropy, labels=labels, where=where, axis_name=axis_name)
        loss = loss if logit_loss is None else logit_loss
        logits, pullback = jax.vjp(logits_fn, params) if logits_vjp is None else logits_vjp
        check_logits(logits, num_classes)
        fixed, members = jax.lax.stop_gradient(logits), membership(labels, logits, where)
        seen = classes.observe(state.classes, fixed, members, decay=decay, axis_name=axis_name)
        strength, rule_state = rule.update(state.rule, seen, fixed, members, axis_name)
        perturbed = functools.partial(freeze(fixed, members, strength), loss)
        given = {"logits_fn": logits_fn, "labels": labels, "where": where}
        given |= _at_other_points(logits_fn, loss, perturbed, updates)
        g = pulled_back(logits, pullback, perturbed, updates)
        u, inner_state = inner.update(g, state.inner, params, **(extra_args | given))
        return u, LogitState(seen, rule_state, _reported(strength, num_classes), inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _at_other_points(logits_fn: Any, loss: LogitLoss, perturbed: Any, like: optax.Updates) -> dict[str, Any]:
    """The extra arguments from which an inner transformation computes gradients with the same perturbation."""
    return {
        "grad_fn": lambda p: pulled_back(*jax.vjp(logits_fn, p), perturbed, like),
        "value_fn": None,
        "logit_loss": functools.partial(_with_slope, loss, perturbed),
    }


def pulled_back(
    logits: jax.Array,
    pullback: Callable[[jax.Array], tuple[Any]],
    cotangent: Callable[[jax.Array], jax.Array],
    like: optax.Updates,
) -> optax.Updates:
    r"""$J(w)^\top \mathrm{cotangent}(u)$ from `jax.vjp` of the logits, as Optax expects it, in the dtypes of `like`."""
    (g,) = pullback(cotangent(logits).astype(logits.dtype))
    # Optax's convention for complex parameters is the conjugate of JAX's.
    return jax.tree.map(lambda x, y: jnp.conj(x).astype(y.dtype), g, like)


def _with_slope(loss: LogitLoss, perturbed: Callable[[jax.Array], jax.Array], logits: jax.Array) -> jax.Array:
    """The loss, with the perturbed gradient for its own: for an inner method that starts from the logits itself."""
    fixed = jax.lax.stop_gradient(logits)
    value, slope = loss(fixed), jax.lax.stop_gradient(perturbed(fixed))
    # Without the logits of masked classes: -inf minus -inf is not 0.
    linear = jnp.sum(slope * jnp.where(jnp.isfinite(fixed), logits - fixed, 0))
    return value + linear.astype(value.dtype)


def signed(strength: Callable[[classes.ClassState], jax.Array]) -> classes.BatchRule:
    """A rule without memory, from `ClassState -> (classes,)`, the signed bound of each class."""
    return classes.BatchRule(lambda num_classes: (), lambda state, seen, *_: (strength(seen), state))


def _reported(strength: Strength, num_classes: int) -> jax.Array:
    return largest_pull(strength, num_classes) - 1 if isinstance(strength, Offsets) else strength


_NO_LOGITS = (
    "{name} is None, but a perturbation of the logits needs the logits and the labels of the batch. Fix: "
    "tx.update(grads, state, params, logits_fn=lambda p: model.apply(p, x), labels=y)."
)


def mean_cross_entropy(logits: jax.Array, labels: Any, where: Any = None, axis_name: str | None = None) -> jax.Array:
    """The mean over the rows that count; split over devices, the mean of these is that of the whole batch."""
    soft = jnp.issubdtype(jnp.result_type(labels), jnp.floating)
    if where is None:
        return _losses(logits, jnp.asarray(labels), soft).mean()
    rows = check_where(where, logits)
    safe = jnp.where(rows[..., None] if soft else rows, labels, jnp.zeros((), jnp.result_type(labels)))
    n = rows.sum(dtype=jnp.float32)
    n = n if axis_name is None else jax.lax.pmean(n, axis_name)
    losses = _losses(logits, safe, soft)
    total = jnp.where(rows, widen(losses), 0).sum()
    return (total / jnp.where(n > 0, n, 1).astype(total.dtype)).astype(losses.dtype)


def _losses(logits: jax.Array, labels: jax.Array, soft: bool) -> jax.Array:
    if soft:
        return optax.softmax_cross_entropy(logits, labels.astype(logits.dtype))
    return cross_entropy(logits, labels)
