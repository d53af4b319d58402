"""`pugd_optax.linen.TrainState` extends Flax's and passes `grad_fn` to the transformation."""

# pyright: reportArgumentType=false

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax.training import train_state

import pugd_optax

X = jax.random.normal(jax.random.key(1), (8, 3))
Y = jnp.sin(X.sum(axis=1, keepdims=True))
TX = optax.chain(pugd_optax.sam(radius=0.3), optax.adam(0.01))


class Network(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Dense(8)(x))
        return nn.Dense(1)(nn.Dropout(0.5, deterministic=not train)(nn.relu(x)))


class TrainState(pugd_optax.linen.TrainState):
    """A subclass with further fields, as one of Flax's TrainState would be written."""

    batch_stats: Any
    key: jax.Array


def create(tx=TX):
    model = Network()
    variables = jax.jit(lambda key: model.init(key, X, train=False))(jax.random.key(0))
    return TrainState.create(apply_fn=model.apply, tx=tx, key=jax.random.key(3), **variables)


def loss_fn(params, state, key):
    variables = {"params": params, "batch_stats": state.batch_stats}
    out, changed = state.apply_fn(variables, X, train=True, rngs={"dropout": key}, mutable=["batch_stats"])
    return jnp.mean((out - Y) ** 2), changed["batch_stats"]


def step(state, **extra):
    key = jax.random.fold_in(state.key, state.step)
    (_, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params, state, key)
    grad_fn = lambda params: jax.grad(loss_fn, has_aux=True)(params, state, key)[0]
    return state.apply_gradients(grads=grads, grad_fn=grad_fn, batch_stats=stats, **extra), (grads, grad_fn, stats)


def compiled(**extra):
    """A compiled step that returns arrays only, without the closures."""

    def run(state):
        after, (grads, _, stats) = step(state, **extra)
        return after, (grads, stats)

    return jax.jit(run)


def test_a_step_is_that_of_the_chain_and_fields_are_replaced():
    @jax.jit
    def both(state):
        after, (grads, grad_fn, stats) = step(state)
        updates, opt_state = TX.update(grads, state.opt_state, state.params, grad_fn=grad_fn)
        return after, (optax.apply_updates(state.params, updates), opt_state, stats)

    state = create()
    for _ in range(3):
        after, expected = both(state)
        got = (after.params, after.opt_state, after.batch_stats)
        chex.assert_trees_all_close(got, expected, rtol=1e-6, atol=1e-7)
        assert (int(after.step), after.tx) == (int(state.step) + 1, TX)
        state = after


def test_one_trace_for_many_steps():
    state = create()
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def once(state):
        return step(state)[0]

    for _ in range(3):
        state = once(state)
    assert isinstance(state, TrainState)


def test_other_extra_arguments_are_handed_on():
    state = create()
    idle, (grads, _) = compiled(active=False)(state)
    plain = create(optax.adam(0.01)).apply_gradients(grads=grads)
    chex.assert_trees_all_close(idle.params, plain.params, rtol=1e-6)
    np.testing.assert_array_equal(optax.tree.get(idle.opt_state, "active"), False)


def test_a_base_optimizer_without_extra_arguments():
    state = create(optax.sgd(0.1))
    after, (grads, _) = compiled()(state)
    expected = jax.tree.map(lambda w, g: w - 0.1 * g, state.params, grads)
    chex.assert_trees_all_close(after.params, expected, rtol=1e-6)


def test_extra_arguments_may_resemble_fields():
    class Logging(pugd_optax.linen.TrainState):
        grad_norm: Any = 0.0
        val_losses: Any = ()

    grad_fn = jax.grad(lambda p: jnp.sum(p["w"] ** 2))
    state = Logging.create(apply_fn=None, params={"w": X}, tx=TX)
    after = state.apply_gradients(grads=grad_fn(state.params), grad_fn=grad_fn, val_loss=2.0, grad_norm=1.0)
    assert after.grad_norm == 1.0


def test_fields_and_methods_are_flax_s():
    ours, theirs = (cls for cls in (pugd_optax.linen.TrainState, train_state.TrainState))
    assert [f.name for f in dataclasses.fields(ours)] == [f.name for f in dataclasses.fields(theirs)]
    assert issubclass(ours, theirs)


def test_errors_name_the_train_state():
    flax_s = train_state.TrainState.create(apply_fn=None, params={"w": X}, tx=TX)
    with pytest.raises(ValueError, match=r"needs grad_fn=.*In place of Flax's TrainState.*pugd_optax.linen.TrainState"):
        flax_s.apply_gradients(grads={"w": X}, grad_fn=lambda p: p)
    inside = create(optax.MultiSteps(TX, 2))
    with pytest.raises(ValueError, match=r"method in front of optax.MultiSteps .* drop it"):
        inside.apply_gradients(grads=inside.params, grad_fn=lambda p: p)
    for mistyped in ("batch_stat", "batchStats", "bn_stats", "batch_statistics"):
        with pytest.raises(TypeError, match=f"{mistyped}= is not a field of the TrainState, .* Fix: batch_stats="):
            create().apply_gradients(grads=create().params, **{mistyped: {}})
