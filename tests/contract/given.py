"""Builds each method by name, and compiles it once for all tests of the contract."""

import functools
import inspect
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

from pugd_optax import methods
from tests.problems import extra_args

REQUIRED = {
    "total_steps": 8,
    "num_classes": 3,
    "strength": 0.1,
    "step": 0.1,
    "sigma": 0.05,
    "key": 0,
    "counts": (30, 20, 10),
}
"""Values for arguments without a default."""


def arguments(name: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(getattr(methods, name)).parameters)


def required(name: str) -> dict[str, Any]:
    missing = [k for k, p in arguments(name).items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    return {k: REQUIRED[k] for k in missing}


def build(name: str, **given: Any) -> optax.GradientTransformationExtraArgs:
    return getattr(methods, name)(**(required(name) | given))


def assert_tree_equal(a: Any, b: Any) -> None:
    chex.assert_trees_all_equal(plain(a), plain(b))


def plain(tree: Any) -> Any:
    """The tree with typed keys replaced by their bits, which NumPy can read."""
    is_key = lambda x: isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def assert_tree_close(a: Any, b: Any, rtol: float = 1e-5) -> None:
    chex.assert_trees_all_close(plain(a), plain(b), rtol=rtol, atol=1e-6)


@functools.cache
def updater(name: str):
    """The transformation, and a compiled `(params, state, data) -> u, state` that the tests share."""
    tx = build(name)
    step = jax.jit(lambda grads, params, state, data: tx.update(grads, state, params, **extra_args(data)))

    def update(params, state, data, grads=None):
        return step(gradient(params, data) if grads is None else grads, params, state, data)

    return tx, update


@jax.jit
def gradient(params, data):
    return extra_args(data)["grad_fn"](params)


def descend(params: Any, u: Any, lr: float = 0.1) -> Any:
    return jax.tree.map(lambda w, x: w - lr * x, params, u)


@functools.cache
def descending(name: str):
    """The transformation, and a compiled `(params, state, data) -> params, state, _` that donates the first two."""
    tx = build(name)
    chex.clear_trace_counter()  # which is one for the steps of all methods

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    @chex.assert_max_traces(n=1)
    def step(params, state, data):
        extra = extra_args(data)
        u, state = tx.update(extra["grad_fn"](params), state, params, **extra)
        # Reads every leaf of the state, as JAX does not donate an argument that is not used.
        return descend(params, u), jax.tree.map(lambda x: x, state), [jnp.ravel(x)[:1] for x in jax.tree.leaves(state)]

    return tx, step


def each(names: list[str]) -> pytest.MarkDecorator:
    """Parametrizes over methods; all tests of a method run on one worker, so its programs are compiled once."""
    return pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in names])


def numeric(name: str) -> dict[str, float]:
    """The arguments whose default is a float; `optax.inject_hyperparams` may turn these into traced arrays."""
    defaults = {k: p.default for k, p in arguments(name).items()}
    return {k: v for k, v in defaults.items() if isinstance(v, float)}


every_method = each(methods.__all__)


RESTING = [n for n in methods.__all__ if "when" in arguments(n)]
"""Methods that take a gate."""
gated_method = each(RESTING)
