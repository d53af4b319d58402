"""A trial of the first step that finds mistakes which no single transformation can detect."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import check_transformation, is_traced
from pugd_optax._frameworks import EQUINOX, NNX, refuse_model
from pugd_optax._norms import Norms, norm, widen
from pugd_optax._watch import entered
from pugd_optax.reevaluate import ReevaluateState
from pugd_optax.through_logits import LogitState

_SPLIT = "{split}; pugd_optax.check(tx, lambda p, *args: loss_fn({merge}, *args), params, *args)"
_OF_MODEL = {
    NNX: _SPLIT.format(
        split="graphdef, params, rest = nnx.split(model, nnx.Param, ...)",
        merge="nnx.merge(graphdef, p, rest, copy=True)",
    ),
    EQUINOX: _SPLIT.format(
        split="params, static = eqx.partition(model, eqx.is_inexact_array)", merge="eqx.combine(p, static)"
    ),
}


def check(
    tx: optax.GradientTransformation,
    loss_fn: Callable[..., Any],
    params: optax.Params,
    *args: Any,
    has_aux: bool = False,
    extra_args: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> None:
    r"""Try a chain on one step and report what is wrong with it, and how to write it correctly.

    A transformation sees its input, but not where it comes from, so some mistakes go unnoticed and only make training
    worse: an optimizer, clipping or weight decay in front of a method, `optax.MultiSteps` around one, a loss that
    differs between two evaluations, a perturbation that is lost to rounding. `check` runs one step outside of training
    and finds these.

    Args:
      tx: the transformation to check, a method or a chain that contains one.
      loss_fn: `loss_fn(params, *args, **kwargs)`, a scalar, or `(scalar, aux)` with `has_aux`.
      params: the initial parameters, a tree of arrays. For a model of Flax NNX or Equinox, the error shows the call.
      *args: the first batch and any other arguments of the loss.
      has_aux: whether `loss_fn` returns auxiliary output.
      extra_args: further extra arguments of `tx.update`, such as `labels` for `pugd_optax.lpg`.
      **kwargs: keyword arguments of the loss.

    Raises:
      ValueError: lists everything that was found, with the line that fixes it; TypeError for a mistyped argument.

    Example:
      >>> import jax.numpy as jnp, optax, pugd_optax
      >>> loss = lambda w: jnp.sum(w**2)
      >>> pugd_optax.check(optax.chain(pugd_optax.sam(0.05), optax.sgd(0.1)), loss, jnp.array([1.0, 2.0]))
      >>> pugd_optax.check(
      ...     optax.chain(optax.sgd(0.1), pugd_optax.sam(0.05)), loss, jnp.array([1.0, 2.0])
      ... )  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ...
      ValueError: tx has an optimizer before the method: ... Fix: optax.chain(pugd_optax.sam(), optax.sgd(0.1)).
    """
    check_transformation("tx", tx)
    refuse_model(params, _OF_MODEL)
    tx = tx.gradient_transformation() if isinstance(tx, optax.MultiSteps) else tx
    tx, params = optax.with_extra_args_support(tx), jax.tree.map(jnp.asarray, params)

    def evaluate(p: optax.Params) -> tuple[jax.Array, optax.Updates]:
        # Traced again each time, as the two passes of a training step are.
        value, g = jax.jit(lambda p: jax.value_and_grad(loss_fn, has_aux=has_aux)(p, *args, **kwargs))(p)
        return value[0] if has_aux else value, jax.tree.map(jnp.conj, g)

    value, g = evaluate(params)
    trial = _Trial(tx, params, g, {"value": value} | dict(extra_args or {}))
    found = [*_of_accumulation(tx.init(params)), *_of_the_loss(g, evaluate(params)[1])]
    found = found or [*_of_what_enters(trial), *_of_the_distance(trial)]
    if found:
        raise ValueError("\n".join(found))


class _Trial(NamedTuple):
    """One step of a transformation with a gradient that is the same at every point."""

    tx: Any
    params: optax.Params
    g: optax.Updates
    extra: dict[str, Any]

    def run(self) -> tuple[list[optax.Updates], list[optax.Params], optax.OptState]:
        """The gradients that entered re-evaluations, the points of evaluation, and the state afterwards."""
        seen, points, state = self._run()
        if _is_traced(seen):  # inside a `lax.cond`, as of `optax.apply_if_finite`
            with jax.disable_jit():
                seen, points, state = self._run()
        return seen, [p for p in points if not _is_traced(p)], state

    def _run(self) -> tuple[list[optax.Updates], list[optax.Params], optax.OptState]:
        seen, points = [], []
        constant = {"grad_fn": lambda p: points.append(p) or self.g, "active": True}
        token = entered.set(seen)
        try:
            state = self.tx.update(self.g, self.tx.init(self.params), self.params, **(constant | self.extra))[1]
        finally:
            entered.reset(token)
        return seen, points, state

    def distance(self) -> float:
        """How far from the parameters the method evaluates the gradient."""
        points = self.run()[1] or [self.params]
        return float(norm(jax.tree.map(lambda v, w: widen(v) - widen(w), points[-1], self.params)))


def _of_accumulation(state: optax.OptState) -> Iterator[str]:
    if any(_kinds(x.inner_opt_state, ReevaluateState) for x in _kinds(state, optax.MultiStepsState)):
        yield (
            "tx has a method inside optax.MultiSteps, which evaluates the second gradient on every micro-batch and "
            "keeps the last. Fix: optax.chain(method, optax.MultiSteps(optimizer, k).gradient_transformation())."
        )


def _of_the_loss(g: optax.Updates, again: optax.Updates) -> Iterator[str]:
    apart = norm(jax.tree.map(lambda x, y: widen(x) - widen(y), g, again))
    if apart > 1e-2 * norm(g):
        yield (
            "loss_fn has two gradients at one point, so the second pass sees another loss than the first. Fix: give it "
            "its randomness, loss_fn(params, batch, key)."
        )


def _of_what_enters(trial: _Trial) -> Iterator[str]:
    seen, _, state = trial.run()
    length = norm(trial.g)
    if not seen or length == 0 or _kinds(state, LogitState):
        return
    norms = Norms(seen[0], trial.g)
    if norms.cosine < -0.5:
        yield (
            f"tx has an optimizer before the method: what enters the method points against the gradient (cosine "
            f"{norms.cosine:.2f}), and what comes out ascends. Fix: optax.chain(pugd_optax.sam(), optax.sgd(0.1))."
        )
    elif norms.cosine < 0.99 or abs(norms.g / length - 1) > 0.01:
        yield (
            f"tx has a transformation before the method that changes the gradient (length {length:.3g} to "
            f"{norms.g:.3g}, cosine {norms.cosine:.2f}), but not the second one. Fix: put it after, "
            "optax.chain(pugd_optax.sam(), optax.clip_by_global_norm(1.0), optax.sgd(0.1))."
        )


def _of_the_distance(trial: _Trial) -> Iterator[str]:
    if all(jnp.finfo(w.dtype).bits >= 32 for w in jax.tree.leaves(trial.params)):
        return
    params, g = jax.tree.map(lambda x: widen(x), (trial.params, trial.g))
    wanted, made = trial._replace(params=params, g=g).distance(), trial.distance()
    if abs(made - wanted) > 0.2 * wanted:
        yield (
            f"params have too low a precision for the perturbation of this method: length {made:.3g} instead of "
            f"{wanted:.3g}. Fix: keep float32 parameters and cast inside loss_fn."
        )


def _kinds(tree: Any, kind: type) -> list[Any]:
    return [x for x in jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, kind)) if isinstance(x, kind)]


def _is_traced(tree: Any) -> bool:
    return any(map(is_traced, jax.tree.leaves(tree)))
