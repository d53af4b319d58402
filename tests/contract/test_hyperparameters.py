"""The numbers, schedules and masks of every method, passed directly and through `optax.inject_hyperparams`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import methods
from tests.contract.given import (
    REQUIRED,
    arguments,
    assert_tree_close,
    build,
    every_method,
    gradient,
    numeric,
    required,
    updater,
)
from tests.problems import classifier, examples, extra_args


@every_method
def test_inject_hyperparams_changes_nothing(name):
    static = set(arguments(name)) - set(numeric(name)) - {k for k, v in REQUIRED.items() if isinstance(v, float)}
    injected = optax.inject_hyperparams(getattr(methods, name), static_args=static)(**required(name))
    tx, update = updater(name)
    params, data = classifier(), examples()

    @jax.jit
    def step(params, state):
        extra = extra_args(data)
        return injected.update(extra["grad_fn"](params), state, params, **extra)

    a, b = injected.init(params), tx.init(params)
    for _ in range(3):
        (u, a), (v, b) = step(params, a), update(params, b, data)
        assert_tree_close(u, v)


@pytest.mark.parametrize("name", [n for n in methods.__all__ if "radius" in numeric(n)])
def test_radius_schedule_advances_once_a_step(name):
    """A schedule gives the same steps passed directly and through `inject_hyperparams`, which has its own counter."""
    schedule = optax.linear_schedule(0.1, 0.5, 4)
    static = set(arguments(name)) - set(numeric(name))
    own = build(name, radius=schedule)
    injected = optax.inject_hyperparams(getattr(methods, name), static_args=static)(**required(name), radius=schedule)
    params, data = classifier(), examples()

    @jax.jit
    def step(params, state, other):
        extra = extra_args(data)
        g = extra["grad_fn"](params)
        u, state = own.update(g, state, params, **extra)
        v, other = injected.update(g, other, params, **extra)
        return u, v, state, other

    state, other = own.init(params), injected.init(params)
    for t in range(4):
        u, v, state, other = step(params, state, other)
        assert_tree_close(u, v)
        np.testing.assert_allclose(other.hyperparams["radius"], schedule(t), rtol=1e-6)
        if optax.tree.get(state, "active"):
            np.testing.assert_allclose(optax.tree.get(state, "radius"), schedule(t), rtol=1e-6)


@pytest.mark.parametrize("name", [n for n in methods.__all__ if "mask" in arguments(n)])
def test_mask_leaves_the_rest_where_it_is(name):
    """The functions are evaluated at unchanged unselected parameters and at changed selected ones."""
    mask = {"dense": {"kernel": True, "bias": True}, "gain": False}
    tx, params, extra, seen = build(name, mask=mask), classifier(), extra_args(examples()), []
    watch = lambda function: lambda p: jax.debug.callback(seen.append, p) or function(p)
    watched = {k: watch(v) if callable(v) else v for k, v in extra.items()}
    step, state = jax.jit(lambda g, state: tx.update(g, state, params, active=True, **watched)), tx.init(params)
    for _ in range(2):
        _, state = jax.block_until_ready(step(gradient(params, examples()), state))
    jax.effects_barrier()
    assert all(bool(p["gain"] == params["gain"]) for p in seen)
    assert any(not bool(jnp.all(p["dense"]["kernel"] == params["dense"]["kernel"])) for p in seen)


@pytest.mark.parametrize("name", [n for n in methods.__all__ if "report" in arguments(n)])
def test_a_report_is_kept_where_it_is_asked_for(name):
    found = [optax.tree.get(build(name, report=on).init(classifier()), "Report") for on in (False, True)]
    assert found[0] is None
    assert found[1] is not None
