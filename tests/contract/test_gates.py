"""Every method with a gate: inactive steps skip the second gradient, and errors name the missing argument."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from pugd_optax import timing
from tests.contract.given import assert_tree_close, build, gated_method
from tests.problems import classifier, examples, extra_args


@gated_method
def test_missing_parameters_show_the_fix(name):
    tx, params, extra = build(name), classifier(), extra_args(examples())
    with pytest.raises(ValueError, match=r"params is None.*tx\.update\(grads, state, params"):
        tx.update(params, tx.init(params), **extra)


@gated_method
def test_missing_gradient_function_shows_the_fix(name):
    tx, params = build(name), classifier()
    with pytest.raises(ValueError, match=r"needs \w+_fn=.*Fix: tx\.update\(grads, state, params, \w+_fn="):
        tx.update(params, tx.init(params), params)


@gated_method
def test_masked_leaves_show_the_fix(name):
    params, extra = classifier(), extra_args(examples())
    tx = optax.masked(build(name), {"dense": True, "gain": False})
    with pytest.raises(ValueError, match=r"MaskedNode.*Fix: put it in front"):
        tx.update(params, tx.init(params), params, **extra)


def counted(extra: dict[str, Any], calls: list[int]) -> dict[str, Any]:
    """`extra` with functions that count their evaluations at run time, not while tracing."""

    def counting(function):
        def call(params):
            jax.debug.callback(lambda: calls.append(1))
            return function(params)

        return call

    return {k: counting(v) if callable(v) else v for k, v in extra.items()}


@gated_method
def test_second_gradient_is_skipped_on_inactive_steps(name):
    """With a traced decision, the functions are evaluated on the two active steps of six only."""
    tx, calls, active = build(name, when=timing.every(3, offset=1)), [], []

    @jax.jit
    def step(params, state, data):
        extra = counted(extra_args(data), calls)
        return tx.update(jax.tree.map(jnp.ones_like, params), state, params, **extra)

    params, state = classifier(), tx.init(classifier())
    for _ in range(6):
        before = len(calls)
        _, state = jax.block_until_ready(step(params, state, examples()))
        jax.effects_barrier()
        active.append(len(calls) - before)
    assert [n > 0 for n in active] == [False, True, False, False, True, False]
    assert int(optax.tree.get(state, "step")) == 6


@gated_method
def test_active_overrides_the_gate(name):
    """A Python bool decides while tracing, and False traces no function. A traced bool decides at run time."""
    tx, params, traced, calls = build(name, when=timing.after(100)), classifier(), [], []
    extra = counted(extra_args(examples()), calls)
    grads = jax.tree.map(jnp.ones_like, params)

    def update(state, active):
        watched = {k: (lambda p, f=v: traced.append(1) or f(p)) if callable(v) else v for k, v in extra.items()}
        return tx.update(grads, state, params, active=active, **watched)

    state = tx.init(params)
    jax.eval_shape(lambda s: update(s, False), state)
    assert not traced
    jax.eval_shape(lambda s: update(s, True), state)
    assert traced
    compiled = jax.jit(update)
    for active in (False, True, False):
        calls.clear()
        _, after = jax.block_until_ready(compiled(state, jnp.asarray(active)))
        jax.effects_barrier()
        assert bool(optax.tree.get(after, "active")) == active
        assert bool(calls) == active


@gated_method
def test_static_and_traced_decisions_agree(name):
    params, data = classifier(), examples()

    def update(state, gate):
        extra = extra_args(data)
        return build(name, when=gate).update(extra["grad_fn"](params), state, params, **extra)

    traced = jax.jit(lambda state, when: update(state, lambda step: (step >= 0) == when))
    for when in (True, False):
        static, init = jax.jit(lambda state, when=when: update(state, when)), build(name, when=when).init
        outputs = [static(static(init(params))[1]), traced(traced(init(params), when)[1], when)]
        assert_tree_close(*outputs)
