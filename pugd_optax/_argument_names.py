"""Argument names used by papers, Keras and PyTorch: the error gives the name used here."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

_THEIRS = {
    "radius": {"rho", "r", "eps", "epsilon", "rho_max"},
    "epsilon": {"rho", "r", "eps", "radius"},
    "step": {"rho", "r", "h", "eps", "epsilon", "radius"},
    "strength": {"lambda", "lambda_", "lam", "lmbda", "weight", "coefficient"},
    "decay": {"lambda", "lambda_", "lam", "lmbda", "beta", "momentum"},
    "sigma": {"std", "stddev", "noise_scale"},
    "every": {"k", "period", "sync_period"},
    "steps": {"k", "n", "num_steps", "inner_iter"},
    "step_size": {"inner_lr", "lr", "learning_rate"},
    "probability": {"p", "prob"},
    "key": {"seed", "rng", "rng_key"},
}
"""For each argument here, its names elsewhere; the first one that the method has is suggested."""

_OF_THE_BASE = {"lr", "learning_rate", "base_optimizer", "optimizer", "momentum", "weight_decay", "b1", "b2"}


def answer_other_names(method: Callable[..., Any]) -> Callable[..., Any]:
    """The same method; for an unknown argument, its error names the argument that is probably meant.

    Complex arrays become real: next to complex parameters, `optax.inject_hyperparams` makes every number complex.
    """
    signature = inspect.signature(method)

    @functools.wraps(method)
    def answering(*args: Any, **kwargs: Any) -> Any:
        for name, value in kwargs.items():
            if name not in signature.parameters:
                remedy = _remedy(method.__name__, name, value, signature.parameters)
                raise TypeError(f"{method.__name__}({name}={value!r}): no such argument. Fix: {remedy}.")
        return method(*map(_real, args), **{name: _real(value) for name, value in kwargs.items()})

    return answering


def _real(value: Any) -> Any:
    return value.real if isinstance(value, jax.Array) and jnp.iscomplexobj(value) else value


def _remedy(method: str, name: str, value: Any, parameters: Iterable[str]) -> str:
    meant = [ours for ours, theirs in _THEIRS.items() if ours in parameters and name.lower() in theirs]
    meant += difflib.get_close_matches(name, parameters, 1)
    if meant:
        return f"pugd_optax.{method}({meant[0]}={value!r})"
    if name in _OF_THE_BASE:
        return f"it belongs to the base optimizer, optax.chain(pugd_optax.{method}(), optax.sgd(0.1))"
    if name == "adaptive":
        return "pugd_optax.asam()"
    return f"one of {', '.join(parameters)}"
