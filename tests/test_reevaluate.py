"""The combinator `reevaluate`: what it passes to its parts, what it reports, and what it leaves unchanged."""

# Optax types every tree as a union that cannot be subscripted, and schedules take any ArrayLike.
# pyright: reportIndexIssue=false, reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import mix, normalize, reevaluate, replace, restrict, timing
from pugd_optax.ascents import ObservingAscent
from pugd_optax.combines import StatefulCombine
from tests.problems import START, batch, gradient, loss, path, start, unit

W0 = {"a": jnp.array([3.0, -4.0]), "b": jnp.array(0.5)}


def quartic(params):
    return sum(jnp.sum(w**4) for w in jax.tree.leaves(params)) / 4


def run(tx, params=None, grads=None, **extra):
    params = W0 if params is None else params
    extra = {"grad_fn": jax.grad(quartic)} | extra
    return tx.update(jax.grad(quartic)(params) if grads is None else grads, tx.init(params), params, **extra)


def reported(state, name):
    return np.asarray(optax.tree.get(state, name))


def test_report_is_what_happened():
    tx = reevaluate(normalize(), mix(0.5, 0.5), radius=0.4, when=timing.every(2), report=True)
    outputs, state = path(tx, steps=3)
    w = START - 0.25 * (outputs[0] + outputs[1])
    g = gradient(w, 2)
    g_star = gradient(w + 0.4 * unit(g), 2)
    np.testing.assert_allclose(outputs[2], (g + g_star) / 2, rtol=1e-9)
    np.testing.assert_allclose(reported(state, "radius"), 0.4, rtol=1e-6)
    np.testing.assert_allclose(reported(state, "grad_norm"), np.linalg.norm(g), rtol=1e-6)
    np.testing.assert_allclose(reported(state, "perturbed_grad_norm"), np.linalg.norm(g_star), rtol=1e-6)
    np.testing.assert_allclose(reported(state, "cosine"), unit(g) @ unit(g_star), rtol=1e-6)
    np.testing.assert_allclose(reported(state, "distance"), 0.4, rtol=1e-6)
    assert (reported(state, "step"), reported(state, "active")) == (3, True)


def test_report_of_an_inactive_step_keeps_the_last_active_one():
    tx = reevaluate(normalize(), radius=0.1, when=timing.every(2), report=True)
    _, on = run(tx)
    _, off = tx.update(W0, on, W0, grad_fn=jax.grad(quartic))
    assert (reported(off, "radius"), reported(off, "active"), reported(off, "step")) == (0.0, False, 2)
    for name in ("grad_norm", "perturbed_grad_norm", "cosine"):
        assert reported(off, name) == reported(on, name)
        assert reported(on, name) > 0


def test_without_a_report_only_the_report_is_missing():
    """Without a report, the output and the rest of the state are the same."""
    u, told = run(reevaluate(normalize(), mix(0.5, 0.5), radius=0.1, report=True))
    silent_u, silent = run(reevaluate(normalize(), mix(0.5, 0.5), radius=0.1))
    chex.assert_trees_all_equal(silent_u, u)
    assert silent == told._replace(report=())


def test_the_distance_is_what_rounding_leaves_of_the_radius():
    """The reported radius is the distance after rounding: at |w| = 1, bfloat16 loses a step of 2^-10."""
    w = jnp.ones(4, jnp.bfloat16)
    for radius, moved in ((2**-6, 2**-6), (2**-9, 0.0)):
        _, state = run(reevaluate(normalize(), radius=radius, report=True), params=w, grads=jnp.ones_like(w))
        np.testing.assert_allclose(reported(state, "radius"), radius)
        np.testing.assert_allclose(reported(state, "distance"), moved)


def test_ascent_gets_everything_and_moves_on_active_steps_only():
    seen = []

    def update(updates, state, params=None, **extra):
        seen.append(extra)
        return updates, state + 1

    ascent = optax.GradientTransformationExtraArgs(lambda params: jnp.zeros((), jnp.int32), update)
    tx = reevaluate(ascent, radius=0.1, when=lambda step: bool(step != 1))
    state = tx.init(W0)
    for step in range(3):
        _, state = tx.update(W0, state, W0, grad_fn=jax.grad(quartic), value=7.0, step=99)
        assert int(optax.tree.get(state, "step")) == step + 1
    assert [int(extra["step"]) for extra in seen] == [0, 2]
    assert all(extra["value"] == 7.0 and callable(extra["grad_fn"]) for extra in seen)
    assert int(optax.tree.get(state, "ascent")) == 2


def test_gate_sees_gradients_and_extra_args_on_every_step():
    seen = []

    def update(state, grads, *, step, **extra):
        seen.append((int(step), float(grads["b"]), extra["value"]))
        return jnp.asarray(False), state + 1

    tx = reevaluate(normalize(), when=timing.Gate(lambda params: jnp.zeros((), jnp.int32), update))
    state = tx.init(W0)
    for value in (1.0, 2.0):
        _, state = tx.update(W0, state, W0, grad_fn=jax.grad(quartic), value=value, active=value == 2.0 or None)
    assert seen == [(0, 0.5, 1.0), (1, 0.5, 2.0)]
    assert reported(state, "active"), "active= overrides the gate, whose memory moves on"
    assert int(optax.tree.get(state, "gate")) == 2


def test_combine_may_ask_for_the_step():
    steps = []

    def combine(g, g_star, step):
        steps.append(int(step))
        return g_star

    tx = reevaluate(normalize(), combine)
    state = tx.init(W0)
    for _ in range(2):
        _, state = tx.update(W0, state, W0, grad_fn=jax.grad(quartic))
    assert steps == [0, 1]


def test_combine_may_ask_for_more_and_shares_the_norms():
    seen = {}

    def combine(g, g_star, params, eps, norms):
        seen.update(params=params, eps=eps, length=norms.g, star=norms.g_star, dot=norms.dot, other=norms.of(eps))
        return g_star

    run(reevaluate(normalize(), combine, radius=0.3))
    g = np.array([27.0, -64.0, 0.125])
    w_star = np.array([3.0, -4.0, 0.5]) + 0.3 * unit(g)
    np.testing.assert_allclose(np.r_[seen["eps"]["a"], seen["eps"]["b"]], 0.3 * unit(g), rtol=1e-6)
    found = [float(seen[k]) for k in ("length", "star", "dot", "other")]
    np.testing.assert_allclose(found, [np.linalg.norm(g), np.linalg.norm(w_star**3), g @ w_star**3, 0.3], rtol=1e-6)
    chex.assert_trees_all_equal(seen["params"], W0)


def test_a_combine_may_remember_and_idle_reads_its_memory():
    def join(g, g_star, step, state):
        return g_star, jax.tree.map(lambda s, x, y: s + y - x, state, g, g_star)

    combine = StatefulCombine(lambda params: jax.tree.map(jnp.zeros_like, params), join)
    idle = lambda g, step, state: jax.tree.map(lambda x, d: x + step.astype(x.dtype) * d, g, state)
    tx = reevaluate(normalize(), combine, radius=0.1, when=timing.every(2), idle=idle)
    g = jax.grad(quartic)(W0)
    state = tx.init(W0)
    u, state = tx.update(g, state, W0, grad_fn=jax.grad(quartic))
    turned = jax.tree.map(jnp.subtract, u, g)
    chex.assert_trees_all_equal(state.combine, turned)
    v, after = tx.update(g, state, W0, grad_fn=jax.grad(quartic))
    chex.assert_trees_all_close(v, jax.tree.map(jnp.add, g, turned), rtol=1e-6)
    chex.assert_trees_all_equal(after.combine, turned)


def test_an_observing_ascent_is_shown_the_gradient_each_step_ends_with():
    """Of the selected parameters, as `restrict` hides the others."""
    shown = ObservingAscent(
        init=lambda params: jax.tree.map(jnp.zeros_like, params),
        update=lambda g, state, params, **extra: (state, state),
        observe=lambda state, g_star: g_star,
    )
    tx = reevaluate(normalize(restrict(shown, {"a": True, "b": False})), radius=0.1, when=timing.every(2))
    state = tx.init(W0)
    u, state = tx.update(W0, state, W0, grad_fn=jax.grad(quartic))
    chex.assert_trees_all_equal(state.ascent, u | {"b": jnp.zeros_like(u["b"])})
    _, state = tx.update(W0, state, W0, grad_fn=jax.grad(quartic))
    chex.assert_trees_all_equal(state.ascent, W0 | {"b": jnp.zeros_like(W0["b"])})
    asked = []
    tx.update(u, state, W0, grad_fn=lambda p: asked.append(p) or p)
    np.testing.assert_allclose(asked[0]["a"], np.array([3.0, -4.0]) + 0.1 * unit(np.array([3.0, -4.0])), rtol=1e-6)


def test_the_ascent_may_follow_another_loss():
    other = jax.grad(lambda p: jnp.sum(p["a"]))
    asked = []
    u, _ = run(
        reevaluate(normalize(), mix(1.0, 1.0), radius=0.1),
        grad_fn=lambda p: asked.append(p) or jax.grad(quartic)(p),
        ascent_grad_fn=other,
    )
    moved = np.array([3.0, -4.0]) + 0.1 * unit(np.ones(2))
    np.testing.assert_allclose(asked[0]["a"], moved, rtol=1e-6)
    np.testing.assert_allclose(u["a"], np.array([3.0, -4.0]) ** 3 + moved**3, rtol=1e-6)


@pytest.mark.parametrize("name", ["actve", "gradfn", "grad_fun", "norm_axes_name"])
def test_a_mistyped_extra_argument_is_refused(name):
    with pytest.raises(TypeError, match=rf"{name}.*Fix: (active|grad_fn|norm_axis_name)="):
        run(reevaluate(normalize()), **{name: True})


def test_inactive_output_is_the_input_or_what_idle_makes_of_it():
    g = {"a": jnp.array([0.1, -0.0]), "b": jnp.array(jnp.nan)}
    u, _ = run(reevaluate(normalize(), when=False), grads=g)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x.view(jnp.int32), y.view(jnp.int32)), u, g)
    halved, _ = run(reevaluate(normalize(), when=False, idle=lambda g: jax.tree.map(lambda x: 0.5 * x, g)), grads=W0)
    jax.tree.map(lambda x, w: np.testing.assert_array_equal(x, w / 2), halved, W0)


def test_value_fn_stands_for_grad_fn_and_gets_what_it_names():
    def value_fn(params, batch, *, power):
        return jnp.sum((params["b"] * batch) ** power) + 0 * jnp.sum(params["a"])

    tx = reevaluate(normalize(), radius=0.1)
    named = {"batch": jnp.array(2.0), "power": 3, "label": "not its business"}
    u, _ = tx.update(W0, tx.init(W0), W0, value_fn=value_fn, **named)
    v, _ = tx.update(W0, tx.init(W0), W0, grad_fn=jax.grad(functools.partial(value_fn, batch=2.0, power=3)))
    chex.assert_trees_all_close(u, v, rtol=1e-6)


def test_negative_schedules_are_clamped_at_zero():
    u, state = run(reevaluate(normalize(), radius=lambda step: -1.0 - step))
    chex.assert_trees_all_close(u, jax.grad(quartic)(W0), rtol=1e-6)
    assert reported(state, "radius") == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_broken_gradient_perturbs_nothing_and_flows_through(bad):
    """With a non-finite gradient, $g^*$ is the gradient at the parameters, and a mix is non-finite where $g$ is."""
    g = {"a": jnp.array([bad, 1.0]), "b": jnp.array(1.0)}
    u, _ = run(reevaluate(normalize(), radius=0.3), grads=g)
    chex.assert_trees_all_equal(u, jax.grad(quartic)(W0))
    u, _ = run(reevaluate(normalize(), mix(0.5, 0.5), radius=0.3), grads=g)
    np.testing.assert_array_equal(np.isfinite(u["a"]), [False, True])
    np.testing.assert_allclose([u["a"][1], u["b"]], [(1 - 64) / 2, (1 + 0.125) / 2])


def test_where_the_second_gradient_is_broken_so_is_the_output():
    u, _ = run(reevaluate(normalize(), mix(0.5, 0.5)), grad_fn=lambda p: jax.tree.map(lambda w: w * jnp.nan, p))
    assert all(np.isnan(x).all() for x in jax.tree.leaves(u))


def test_numbers_and_numpy_arrays_are_parameters_too():
    params = {"a": np.array([3.0, -4.0], np.float32), "b": 0.5}
    u, _ = run(reevaluate(normalize(), radius=0.1), params=params, grads={"a": np.ones(2, np.float32), "b": 1.0})
    v, _ = run(reevaluate(normalize(), radius=0.1), grads={"a": jnp.ones(2), "b": jnp.array(1.0)})
    chex.assert_trees_all_equal(u, v)


def test_empty_subtrees_pass_through():
    """None, empty and zero-size leaves are kept, as Equinox's filtered trees have them."""
    params = {"a": jnp.ones(2), "none": None, "empty": (), "zero_size": jnp.ones((0, 3))}
    grad_fn = lambda p: jax.tree.map(lambda w: 2 * w, p)
    u, _ = run(reevaluate(normalize(), radius=np.sqrt(2.0)), params=params, grads=params, grad_fn=grad_fn)
    np.testing.assert_allclose(u["a"], 4.0, rtol=1e-6)
    assert jax.tree.structure(u) == jax.tree.structure(params)


def test_works_under_vmap_over_seeds():
    tx = reevaluate(normalize(), radius=0.1, when=timing.every(2))
    many = jax.tree.map(lambda w: jnp.stack([w, 2 * w, -w]), W0)

    def two_steps(params):
        state = tx.init(params)
        for _ in range(2):
            u, state = tx.update(jax.grad(quartic)(params), state, params, grad_fn=jax.grad(quartic))
            params = jax.tree.map(lambda w, x: w - 0.01 * x, params, u)
        return params

    expected = [two_steps(jax.tree.map(lambda w, i=i: w[i], many)) for i in range(3)]
    got = jax.vmap(two_steps)(many)
    jax.tree.map(lambda x, *rows: np.testing.assert_allclose(x, np.stack(rows), rtol=1e-5), got, *expected)


def test_restricted_chain_of_ascents_keeps_its_state():
    """The state of an ascent inside `restrict` is kept between steps."""
    tx = reevaluate(restrict(optax.chain(optax.trace(0.9), normalize()), {"a": True, "b": False}), replace)
    state = tx.init(W0)
    for _ in range(2):
        _, state = tx.update(W0, state, W0, grad_fn=jax.grad(quartic))
    trace = optax.tree.get(state, "trace")
    np.testing.assert_allclose(trace["a"], 1.9 * W0["a"], rtol=1e-6)
    assert trace["b"] == 0


def test_float32_is_a_copy_of_float64():
    """A float32 step equals the float64 step up to float32 rounding."""
    tx = reevaluate(normalize(), mix(0.5, 0.5), radius=0.3)
    wide, _ = path(tx, steps=1)
    params, data = start(jnp.float32), jax.tree.map(jnp.float32, batch(0))
    grad_fn = lambda p: jax.grad(loss)(p, data)
    u, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
    np.testing.assert_allclose(np.concatenate([u["b"], u["w"].ravel()]), wide[0], rtol=1e-4, atol=1e-6)
