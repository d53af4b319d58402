"""What every method promises. `pugd_optax.methods.__all__` names the methods; a new one is tested without an edit."""

import functools
import inspect
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import methods, timing
from tests.problems import classifier, examples, extra_args

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
    """Typed keys as their bits, so that NumPy can read them."""
    is_key = lambda x: isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def assert_tree_close(a: Any, b: Any, rtol: float = 1e-5) -> None:
    chex.assert_trees_all_close(plain(a), plain(b), rtol=rtol, atol=1e-6)


def all_finite(tree: Any) -> bool:
    return all(bool(np.isfinite(np.asarray(x)).all()) for x in jax.tree.leaves(tree))


@functools.cache
def updater(name: str):
    """Transformation, and one compiled `(params, state, data) -> u, state` for all tests that only feed values."""
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
    """Transformation, and a compiled `(params, state, data) -> params, state, _` that takes its first two arguments."""
    tx = build(name)
    chex.clear_trace_counter()  # which is one for the steps of all methods

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    @chex.assert_max_traces(n=1)
    def step(params, state, data):
        extra = extra_args(data)
        u, state = tx.update(extra["grad_fn"](params), state, params, **extra)
        # Every leaf of the state is read: an argument that is not is not donated either.
        return descend(params, u), jax.tree.map(lambda x: x, state), [jnp.ravel(x)[:1] for x in jax.tree.leaves(state)]

    return tx, step


def each(names: list[str]) -> pytest.MarkDecorator:
    """One method, one worker: what is compiled for it is compiled once."""
    return pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in names])


every_method = each(methods.__all__)
gated_method = each([n for n in methods.__all__ if "when" in arguments(n)])


@every_method
def test_is_a_transformation_with_extra_args(name):
    assert isinstance(build(name), optax.GradientTransformationExtraArgs)


@every_method
def test_swallows_unknown_extra_args(name):
    """Those that sound like our own included: they change nothing of the program."""
    tx, params, extra = build(name), classifier(), extra_args(examples())
    names = ("value", "grad", "obj_fn", "step", "count", "mean", "momentum", "direction", "surprise")

    def program(**unknown: float) -> str:
        step = lambda g, state, params: tx.update(g, state, params, **extra, **unknown)
        return jax.jit(step).lower(params, tx.init(params), params).as_text()

    assert program(**dict.fromkeys(names, 1.0)) == program()


@every_method
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_output_is_a_gradient_and_state_is_stable(name, dtype):
    """Same tree, shapes and dtypes out as in; the state keeps its types, weak ones included."""
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
    """The cast costs digits, not the direction: nothing overflows, underflows or is summed in half precision."""
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
    """bfloat16 gradients of float32 parameters."""
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


@every_method
def test_state_is_a_named_tuple_of_its_own_arrays(name):
    tx, params = build(name), classifier()
    state = tx.init(params)
    assert isinstance(state, tuple)
    assert hasattr(state, "_fields")
    leaves = jax.tree.leaves(state)
    assert all(isinstance(x, jax.Array) for x in leaves)
    assert not {id(x) for x in leaves} & {id(x) for x in jax.tree.leaves(params)}
    assert len({id(x) for x in leaves}) == len(leaves), "one array in two places cannot be donated"


@every_method
def test_init_under_jit_and_from_shapes(name):
    tx, params = build(name), classifier()
    state = tx.init(params)
    assert_tree_equal(state, jax.jit(tx.init)(params))
    shapes = jax.eval_shape(tx.init, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(lambda x: (x.shape, x.dtype), state)


@every_method
def test_parameters_and_state_can_be_donated(name):
    (tx, step), params = descending(name), classifier()
    state = tx.init(params)
    for _ in range(2):
        params, state, _ = step(params, state, examples())
    assert all_finite(params)


@every_method
def test_map_params_finds_the_trees_of_the_state(name):
    tx, params = build(name), classifier()
    state = tx.init(params)
    assert_tree_equal(optax.tree.map_params(tx, lambda x: x, state), state)


@every_method
def test_scan_is_a_loop_and_the_loss_falls(name):
    tx, update = updater(name)
    data, params = examples(), classifier()

    def step(carry, _):
        params, state = carry
        u, state = update(params, state, data)
        return (descend(params, u), state), u

    scanned, outputs = jax.lax.scan(step, (params, tx.init(params)), length=20)
    carry = (params, tx.init(params))
    for _ in range(20):
        carry, u = step(carry, None)
    assert_tree_close(jax.tree.map(lambda x: x[-1], outputs), u, rtol=1e-3)
    assert_tree_close(scanned, carry, rtol=1e-3)
    value_fn = extra_args(data)["value_fn"]
    assert value_fn(carry[0]) < 0.9 * value_fn(params)


@every_method
def test_save_and_restore_continue_bit_for_bit(name, tmp_path):
    import orbax.checkpoint as ocp

    tx, update = updater(name)
    params, data = classifier(), examples()
    state = tx.init(params)
    for _ in range(2):
        _, state = update(params, state, data)
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, tx.init(params))
        restored = checkpointer.restore(
            tmp_path / "state",
            ocp.args.PyTreeRestore(shapes, restore_args=ocp.checkpoint_utils.construct_restore_args(shapes)),
        )
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert_tree_equal(update(params, state, data), update(params, restored, data))


@every_method
def test_zero_gradients_stay_finite(name):
    tx, update = updater(name)
    u, state = update(classifier(), tx.init(classifier()), examples(scale=0.0))
    u, state = update(classifier(), state, examples(scale=0.0))
    assert all_finite((u, plain(state)))


@every_method
def test_zero_parameters_stay_finite(name):
    tx, update = updater(name)
    params = jax.tree.map(jnp.zeros_like, classifier())
    u, state = update(params, tx.init(params), examples())
    assert all_finite((u, plain(state)))


@every_method
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_broken_batch_is_not_remembered(name, bad):
    """After a batch with a non-finite loss, a clean one gives a finite output again, for longer than any memory."""
    tx, update = updater(name)
    params, state = classifier(), tx.init(classifier())
    _, state = update(params, state, examples(scale=bad))
    for _ in range(3):
        u, state = update(params, state, examples())
        assert all_finite(u)


@every_method
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_no_new_nan(name, bad):
    """One broken entry in the gradient does not spread."""
    (tx, update), params, data = updater(name), classifier(), examples()
    grads = gradient(params, data)
    grads["dense"]["bias"] = grads["dense"]["bias"].at[1].set(bad)
    u, state = update(params, tx.init(params), data, grads)
    jax.tree.map(lambda x, g: np.testing.assert_array_less(np.isnan(x), np.isnan(g) + 0.5), u, grads)
    v, _ = update(params, state, data)
    assert all_finite(v)


@every_method
def test_one_trace_for_many_steps(name):
    tx, step = descending(name)
    params, state = classifier(), tx.init(classifier())
    for seed in range(4):
        params, state, _ = step(params, state, examples(seed=seed))
    assert all_finite(params)


def numeric(name: str) -> dict[str, float]:
    """The arguments `optax.inject_hyperparams` may turn into traced arrays: those with a number as default."""
    defaults = {k: p.default for k, p in arguments(name).items()}
    return {k: v for k, v in defaults.items() if isinstance(v, float)}


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
    """By itself and through `inject_hyperparams`, which has a counter of its own."""
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


@gated_method
def test_missing_parameters_show_the_mend(name):
    tx, params, extra = build(name), classifier(), extra_args(examples())
    with pytest.raises(ValueError, match=r"params is None.*tx\.update\(grads, state, params"):
        tx.update(params, tx.init(params), **extra)


@gated_method
def test_missing_gradient_function_shows_the_mend(name):
    tx, params = build(name), classifier()
    with pytest.raises(ValueError, match=r"needs \w+_fn=.*Fix: tx\.update\(grads, state, params, \w+_fn="):
        tx.update(params, tx.init(params), params)


@gated_method
def test_masked_leaves_show_the_mend(name):
    params, extra = classifier(), extra_args(examples())
    tx = optax.masked(build(name), {"dense": True, "gain": False})
    with pytest.raises(ValueError, match=r"MaskedNode.*Fix: put it in front"):
        tx.update(params, tx.init(params), params, **extra)


def counted(extra: dict[str, Any], calls: list[int]) -> dict[str, Any]:
    """`extra` with evaluations of the model counted as they run, not as they are traced."""

    def counting(function):
        def call(params):
            jax.debug.callback(lambda: calls.append(1))
            return function(params)

        return call

    return {k: counting(v) if callable(v) else v for k, v in extra.items()}


@gated_method
def test_second_gradient_is_skipped_on_inactive_steps(name):
    """Counted at run time, with the decision traced: two of six steps are active."""
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
    """A Python bool decides while tracing: False never even calls grad_fn. A traced bool decides at run time."""
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


@pytest.mark.parametrize("name", [n for n in methods.__all__ if {"mask", "when"} <= set(arguments(n))])
def test_mask_leaves_the_rest_where_it_is(name):
    """The functions of the parameters see unselected ones unmoved, and some selected ones moved."""
    mask = {"dense": {"kernel": True, "bias": True}, "gain": False}
    tx, params, extra, seen = build(name, mask=mask, when=True), classifier(), extra_args(examples()), []
    watch = lambda function: lambda p: jax.debug.callback(seen.append, p) or function(p)
    watched = {k: watch(v) if callable(v) else v for k, v in extra.items()}
    step, state = jax.jit(lambda g, state: tx.update(g, state, params, **watched)), tx.init(params)
    for _ in range(2):
        _, state = jax.block_until_ready(step(gradient(params, examples()), state))
    jax.effects_barrier()
    assert all(bool(p["gain"] == params["gain"]) for p in seen)
    assert any(not bool(jnp.all(p["dense"]["kernel"] == params["dense"]["kernel"])) for p in seen)


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
    """The chain does what its parts do one after the other."""
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
