"""The output of every method has the structure of a gradient, for all float types and in a chain."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.contract.given import assert_tree_close, build, each, every_method, updater
from tests.problems import classifier, examples, extra_args


@every_method
def test_is_a_transformation_with_extra_args(name):
    assert isinstance(build(name), optax.GradientTransformationExtraArgs)


@every_method
def test_swallows_unknown_extra_args(name):
    """Unknown extra arguments do not change the compiled program, even if their names resemble those of the package."""
    tx, params, extra = build(name), classifier(), extra_args(examples())
    names = ("value", "grad", "obj_fn", "step", "count", "mean", "momentum", "direction", "surprise")

    def program(**unknown: float) -> str:
        step = lambda g, state, params: tx.update(g, state, params, **extra, **unknown)
        return jax.jit(step).lower(params, tx.init(params), params).as_text()

    assert program(**dict.fromkeys(names, 1.0)) == program()


@every_method
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_output_is_a_gradient_and_state_is_stable(name, dtype):
    """The output has the structure, shapes and dtypes of the parameters; the state keeps its types, weak ones too."""
    with jax.enable_x64(dtype == "float64"):
        tx, data = build(name), examples()
        params = classifier(dtype)
        state = jax.eval_shape(tx.init, params)

        def update(params, state):
            extra = extra_args(data)
            grads = jax.tree.map(lambda g, w: g.astype(w.dtype), extra["grad_fn"](params), params)
            return tx.update(grads, state, params, **extra)

        u, next_state = jax.eval_shape(update, params, state)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), u) == jax.tree.map(lambda x: (x.shape, x.dtype), params)
        assert state == next_state


@every_method
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_short_floats_stay_close_to_float32(name, dtype):
    """Half-precision parameters give nearly the float32 direction, without overflow, underflow or inexact sums."""
    (tx, update), data = updater(name), examples()

    @jax.jit
    def output(params):
        extra = extra_args(data)
        grads = jax.tree.map(lambda g, w: g.astype(w.dtype), extra["grad_fn"](params), params)
        return tx.update(grads, tx.init(params), params, **extra)[0]

    short, full = output(classifier(dtype)), update(classifier(), tx.init(classifier()), data)[0]
    a, b = (np.concatenate([np.ravel(x).astype(np.float64) for x in jax.tree.leaves(t)]) for t in (short, full))
    assert a @ b > 0.97 * np.linalg.norm(a) * np.linalg.norm(b)


@every_method
def test_gradients_may_be_shorter_than_parameters(name):
    """bfloat16 gradients of float32 parameters give a bfloat16 output."""
    tx, data = build(name), examples()

    def update(params, state):
        extra = extra_args(data)
        grads = jax.tree.map(lambda g: g.astype(jnp.bfloat16), extra["grad_fn"](params))
        return tx.update(grads, state, params, **extra)

    state = jax.eval_shape(tx.init, classifier())
    u, next_state = jax.eval_shape(update, classifier(), state)
    assert {x.dtype for x in jax.tree.leaves(u)} == {jnp.dtype(jnp.bfloat16)}
    assert state == next_state


@every_method
def test_no_implicit_promotion(name, strict_dtypes):
    tx, params = build(name), classifier()

    def update(params, state, data):
        extra = extra_args(data)
        return tx.update(extra["grad_fn"](params), state, params, **extra)

    jax.eval_shape(update, params, tx.init(params), examples())


@each(["pugd", "momentum_sam", "lpg"])
@pytest.mark.parametrize(
    "base",
    [
        optax.chain(optax.clip_by_global_norm(0.1), optax.add_decayed_weights(0.01), optax.sgd(0.1, momentum=0.9)),
        optax.adamw(1e-2),
    ],
    ids=["clip_decay_sgd", "adamw"],
)
def test_stands_first_in_a_chain(name, base):
    """The chain gives the result of its parts applied one after the other."""
    tx, update = updater(name)
    chain = optax.chain(tx, base)
    params, data = classifier(), examples()

    @jax.jit
    def step(params, state):
        extra = extra_args(data)
        return chain.update(extra["grad_fn"](params), state, params, **extra)

    state, own, rest = chain.init(params), tx.init(params), base.init(params)
    for _ in range(2):
        updates, state = step(params, state)
        u, own = update(params, own, data)
        expected, rest = base.update(u, rest, params)
        assert_tree_close(updates, expected)
