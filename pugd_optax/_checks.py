"""Argument checks: one error that names the argument, its value and the fix."""

import difflib
import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.core
import numpy as np
import optax

from pugd_optax._frameworks import fix

NO_PARAMS = (
    "params is None, but a perturbation of the parameters needs them. Fix: "
    "tx.update(grads, state, params, grad_fn=grad_fn)."
)
MASKED = (
    "{name} holds optax.MaskedNode leaves: a method that evaluates the loss cannot run inside optax.masked or "
    "optax.partition, which hide parameters from it. Fix: put it in front, "
    "optax.chain(pugd_optax.pugd(mask=mask), optax.masked(...)), with mask= for the parameters to perturb."
)


def check_transformation(name: str, tx: Any) -> None:
    """Refuse what has no `init` and `update`, such as a method that was not called."""
    if not (hasattr(tx, "init") and hasattr(tx, "update")):
        kind = f"the function {tx.__name__}" if hasattr(tx, "__name__") else f"a {type(tx).__name__}"
        raise TypeError(f"{name} is {kind}: expected a transformation. Fix: call the method, pugd_optax.sam(...).")


def check_number(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    below: float = math.inf,
    schedule: bool = False,
) -> None:
    """Refuse a constant that is not a finite number in [low, high] and < below. Traced arrays are not checked.

    Nor is a schedule, if `schedule` says that the argument may be one, and nothing is compared with a traced bound.
    """
    if is_traced(value) or (schedule and callable(value)):
        return
    low, high = -math.inf if is_traced(low) else low, math.inf if is_traced(high) else high
    or_schedule = " or a schedule (step -> number)" if schedule else ""
    if isinstance(value, optax.GradientTransformation):
        fixed = "Fix: optax.chain(method, optimizer), such as optax.chain(pugd_optax.sam(), optax.sgd(0.1))."
        raise TypeError(f"{name} is an optimizer: expected a number{or_schedule}. {fixed}")
    if isinstance(value, str | bool) or not isinstance(value, int | float | np.ndarray | np.generic | jax.Array):
        raise TypeError(f"{name}={value!r}: expected a number{or_schedule}.")
    if np.ndim(value) or not (math.isfinite(value) and low <= float(value) <= high and float(value) < below):
        end = f"{below:g})" if below <= high else f"{high:g}]"
        bounded = f" in [{low:g}, {end}" if math.isfinite(min(high, below)) else f" >= {low:g}"
        raise ValueError(f"{name}={value}: expected one finite number{bounded * math.isfinite(low)}{or_schedule}.")


def check_count(name: str, value: Any, *, low: int = 0, static: bool = False) -> None:
    """Refuse a constant that is not a whole number >= `low`. Traced arrays are not checked, or refused if `static`."""
    if is_traced(value):
        if static:
            raise TypeError(
                f"{name} is traced, but decides what is compiled: expected a Python int. Fix: "
                f"optax.inject_hyperparams(..., static_args=({name!r},))."
            )
        return
    if isinstance(value, bool) or not (isinstance(value, int | np.integer) or _is_integer_array(value)):
        raise TypeError(f"{name}={value!r}: expected a whole number.")
    if value < low:
        raise ValueError(f"{name}={value}: expected a whole number >= {low}.")


def check_sometimes(name: str, value: Any) -> None:
    """Refuse a constant of 0 where it means that a gate is never active."""
    if isinstance(value, int | float | np.number) and value == 0:
        raise ValueError(f"{name}=0: the gate can never be active. Fix: a number above 0, or when=False.")


def check_trees(grads: optax.Updates, params: optax.Params | None) -> None:
    """Refuse a missing `params`, hidden or integer leaves, and gradients that do not match the parameters."""
    if params is None:
        raise ValueError(NO_PARAMS)
    for name, tree in (("grads", grads), ("params", params)):
        nodes = jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, optax.MaskedNode))
        if any(isinstance(node, optax.MaskedNode) for node in nodes):
            raise ValueError(MASKED.format(name=name))
    remedy = fix(params, "pass the gradient of the loss with respect to these parameters")
    check_same("grads", grads, "params", params, remedy)
    check_floating(params)


def check_floating(params: optax.Params) -> None:
    """Refuse integer leaves."""
    for path, w in jax.tree_util.tree_leaves_with_path(params):
        if not jax.numpy.issubdtype(dtype := jax.numpy.result_type(w), np.inexact):
            raise TypeError(
                f"params{jax.tree_util.keystr(path)} has the dtype {dtype}: expected floating-point numbers. "
                "Fix: leave it out of params, and let the loss close over it."
            )


EXTRA_ARGS = ("grad_fn", "value_fn", "ascent_grad_fn", "active", "norm_axis_name")
"""The extra arguments of `update` that `reevaluate` reads."""


LOGIT_ARGS = ("logits_fn", "labels", "where", "logit_loss", "logits_vjp")
"""The extra arguments of `update` that methods read which start from the logits."""


def check_extra_args(names: Iterable[str], known: tuple[str, ...] = EXTRA_ARGS) -> None:
    """Refuse a name that is nearly one of ours: unknown extra arguments are ignored, mistyped ones must not be."""
    for name in names:
        near = [] if name in known else difflib.get_close_matches(name, known, 1, 0.86)
        if near:
            raise TypeError(f"unknown extra argument {name!r} of update. Fix: {near[0]}=.")


def check_same(name: str, tree: Any, like_name: str, like: Any, remedy: str) -> None:
    """Refuse a tree whose structure or shapes differ from those of another."""
    if jax.tree.structure(tree) != jax.tree.structure(like):
        raise ValueError(f"{name} {difference(tree, like_name, like)}. Fix: {remedy}.")
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(like), strict=True):
        if jax.numpy.shape(x) != jax.numpy.shape(y):
            where = jax.tree_util.keystr(path)
            raise ValueError(
                f"{name}{where} has the shape {jax.numpy.shape(x)}, {like_name}{where} has {jax.numpy.shape(y)}. "
                f"Fix: {remedy}."
            )


def difference(tree: Any, like_name: str, like: Any) -> str:
    """How the structure of a tree differs from another's, in short: leaves missing in one, or other containers."""
    mine, theirs = _paths(tree), _paths(like)
    if missing := [path for path in theirs if path not in set(mine)]:
        return f"has another structure: no {_listed(missing)}, which {like_name} has"
    if beside := [path for path in mine if path not in set(theirs)]:
        return f"has another structure: {_listed(beside)}, which {like_name} lacks"
    return f"has another structure: the leaves of {like_name}, but in other containers"


def _paths(tree: Any) -> list[str]:
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def _listed(paths: list[str]) -> str:
    shown = ", ".join(path or "leaf" for path in paths[:3])
    return shown + f" and {len(paths) - 3} more" * (len(paths) > 3)


def is_traced(value: Any) -> bool:
    """Whether a value is not known before the program runs."""
    return isinstance(value, jax.core.Tracer)


def _is_integer_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | jax.Array) and value.ndim == 0 and np.issubdtype(value.dtype, np.integer)
