"""Methods inside Optax's wrappers, against references written by hand."""

# Optax types every tree as a union that cannot be subscripted, and schedules take any ArrayLike.
# pyright: reportIndexIssue=false, reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import ae_sam, amp, gsam, looksam, multi_step_sam, pugd, rts_pugd, sam, schedules, timing
from tests.problems import batch, loss, start

RADIUS = 0.3
MICRO = 4


assert_close = functools.partial(chex.assert_trees_all_close, rtol=1e-5, atol=1e-6)


def data(t):
    return jax.tree.map(jnp.float32, batch(t))


def sam_gradient(params, grad_fn):
    """SAM's gradient, written by hand."""
    g = grad_fn(params)
    length = jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(g)))
    return grad_fn(jax.tree.map(lambda w, x: w + RADIUS * x / length, params, g))


def mean(trees):
    return jax.tree.map(lambda *xs: sum(xs) / len(xs), *trees)


def test_multisteps_after_sam_perturbs_each_micro_batch():
    tx = optax.chain(sam(RADIUS), optax.MultiSteps(optax.sgd(0.1), MICRO).gradient_transformation())
    params = start(jnp.float32)
    state, moved = tx.init(params), params
    for t in range(MICRO):
        grad_fn = lambda p, t=t: jax.grad(loss)(p, data(t))
        updates, state = tx.update(grad_fn(moved), state, moved, grad_fn=grad_fn)
        moved = optax.apply_updates(moved, updates)
    average = mean([sam_gradient(params, lambda p, t=t: jax.grad(loss)(p, data(t))) for t in range(MICRO)])
    assert_close(moved, jax.tree.map(lambda w, g: w - 0.1 * g, params, average))


def test_accumulating_inside_grad_fn_perturbs_the_full_batch():
    tx = optax.chain(sam(RADIUS), optax.sgd(0.1))
    params = start(jnp.float32)
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *[data(t) for t in range(MICRO)])

    def grad_fn(p):
        add = lambda total, micro: (jax.tree.map(jnp.add, total, jax.grad(loss)(p, micro)), None)
        total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, p), stacked)
        return jax.tree.map(lambda x: x / MICRO, total)

    updates, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
    whole = lambda p: mean([jax.grad(loss)(p, data(t)) for t in range(MICRO)])
    assert_close(updates, jax.tree.map(lambda g: -0.1 * g, sam_gradient(params, whole)))


def test_scale_by_backtracking_and_lbfgs_with_value_fn_only():
    """The line search sees the perturbed direction; both read the one `value_fn`."""
    value_fn = lambda p: loss(p, data(0))
    params = start(jnp.float32)
    for base in (optax.lbfgs(), optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(10))):
        tx = optax.chain(sam(0.05), base)
        state, w, values = tx.init(params), params, []

        @jax.jit
        def step(w, state, tx=tx):
            value, g = jax.value_and_grad(value_fn)(w)
            updates, state = tx.update(g, state, w, value=value, grad=g, value_fn=value_fn)
            return optax.apply_updates(w, updates), state, value

        for _ in range(6):
            w, state, value = step(w, state)
            values.append(float(value))
        assert values[-1] < values[0]
        assert np.isfinite(values).all()


def test_apply_if_finite_after_the_perturbation_catches_a_broken_second_gradient():
    tx = optax.chain(sam(RADIUS), optax.apply_if_finite(optax.sgd(0.1), 5))
    params = start(jnp.float32)
    broken = lambda p: jax.tree.map(lambda w: w * jnp.nan, p)
    updates, state = tx.update(params, tx.init(params), params, grad_fn=broken)
    assert all(not np.any(x) for x in jax.tree.leaves(updates))
    assert int(optax.tree.get(state, "total_notfinite")) == 1


def test_clip_after_the_perturbation_clips_what_is_applied():
    tx = optax.chain(sam(RADIUS), optax.clip_by_global_norm(0.01))
    grad_fn = lambda p: jax.grad(loss)(p, data(0))
    u, _ = tx.update(grad_fn(start()), tx.init(start()), start(), grad_fn=grad_fn)
    np.testing.assert_allclose(optax.tree.norm(u), 0.01, rtol=1e-5)


def test_injected_numbers_can_be_changed_in_the_state():
    tx = optax.inject_hyperparams(pugd, static_args=("when", "idle", "mask"))(radius=0.5, scale=1.0)
    grad_fn = lambda p: jax.grad(loss)(p, data(0))
    params = start(jnp.float32)
    state = tx.init(params)
    update = jax.jit(lambda s: tx.update(grad_fn(params), s, params, grad_fn=grad_fn))
    update(state)
    state.hyperparams["radius"], state.hyperparams["scale"] = jnp.float32(0.1), jnp.float32(2.0)
    u, _ = update(state)
    expected, _ = pugd(0.1, 2.0).update(grad_fn(params), pugd().init(params), params, grad_fn=grad_fn)
    assert_close(u, expected)


def test_injected_radius_that_is_negative_counts_as_zero():
    tx = optax.inject_hyperparams(sam, static_args=("when", "mask"))(radius=lambda step: 0.1 - step)
    grad_fn = lambda p: jax.grad(loss)(p, data(0))
    params = start(jnp.float32)
    state = tx.init(params)
    for _ in range(2):
        u, state = jax.jit(lambda s: tx.update(grad_fn(params), s, params, grad_fn=grad_fn))(state)
    assert_close(u, grad_fn(params))


def test_injected_whole_numbers():
    """Integers may be traced unless the program depends on them; then the error tells how to keep them static."""
    grad_fn = lambda p: jax.grad(loss)(p, data(0))
    params = start(jnp.float32)
    for make, given in ((looksam, {"every": 2}), (rts_pugd, {"total_steps": 8})):
        injected = optax.inject_hyperparams(make, static_args=("when", "mask"))(**given)
        plain = make(**given)
        a, b = injected.init(params), plain.init(params)
        for _ in range(3):
            u, a = jax.jit(lambda s: injected.update(grad_fn(params), s, params, grad_fn=grad_fn))(a)
            v, b = plain.update(grad_fn(params), b, params, grad_fn=grad_fn)
            assert_close(u, v, rtol=1e-4)
    for make, name in ((amp, "steps"), (multi_step_sam, "steps"), (ae_sam, "total_steps")):
        tx = optax.inject_hyperparams(make, static_args="mask")(**{name: 2})
        with pytest.raises(TypeError, match=rf"^{name} is traced.*static_args=\('{name}',\)"):
            jax.jit(lambda s, tx=tx: tx.update(grad_fn(params), s, params, grad_fn=grad_fn))(tx.init(params))


def test_wrappers_that_pass_extra_args_on():
    """conditionally_transform, apply_if_finite and named_chain around a method, and a schedule-free base after it."""
    grad_fn = lambda p: jax.grad(loss)(p, data(0))
    params = start(jnp.float32)
    plain, _ = sam(RADIUS).update(grad_fn(params), sam(RADIUS).init(params), params, grad_fn=grad_fn)
    for tx in (
        optax.named_chain(("sam", sam(RADIUS)), ("none", optax.identity())),
        optax.conditionally_transform(sam(RADIUS), lambda step: step >= 0),
        optax.apply_if_finite(sam(RADIUS), 3),
        optax.masked(sam(RADIUS), {"b": True, "w": True}),
    ):
        u, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
        assert_close(u, plain)
    tx = optax.chain(sam(RADIUS), optax.contrib.schedule_free_sgd(0.1))
    updates, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
    assert np.isfinite(optax.tree.norm(updates))


def test_both_schedules_of_a_chain_count_real_steps():
    tx = optax.chain(
        rts_pugd(4, radius=schedules.quarter_wave("sin", 1.0, 0.0, 4), when=timing.every(2)),
        optax.scale_by_schedule(lambda step: step + 1.0),
    )
    grad_fn = lambda p: jax.grad(loss)(p, data(0))
    params = start(jnp.float32)
    state = tx.init(params)
    for t in range(4):
        _, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
        assert int(optax.tree.get(state[0], "step")) == int(optax.tree.get(state[1], "count")) == t + 1


def test_stands_before_muon():
    """A method works before Muon, which treats matrices and vectors differently."""
    tx = optax.chain(pugd(), optax.contrib.muon(1e-3))
    grad_fn = lambda p: jax.grad(loss)(p, data(0))
    params = start(jnp.float32)
    updates, _ = jax.jit(lambda s: tx.update(grad_fn(params), s, params, grad_fn=grad_fn))(tx.init(params))
    assert np.isfinite(optax.tree.norm(updates))


def test_a_step_can_be_differentiated():
    """The loss after a step of GSAM has a derivative in alpha, which is known, and in the radius."""
    params, grad_fn = start(jnp.float32), lambda p: jax.grad(loss)(p, data(0))

    def after(alpha, radius=RADIUS):
        tx = gsam(radius, alpha)
        u, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
        return jax.tree.map(lambda w, x: w - 0.1 * x, params, u)

    g, g_star = grad_fn(params), sam_gradient(params, grad_fn)
    along = optax.tree.vdot(g, g_star) / optax.tree.vdot(g_star, g_star)
    across = jax.tree.map(lambda x, y: x - along * y, g, g_star)
    expected = 0.1 * optax.tree.vdot(grad_fn(after(0.4)), across)
    for derivative in (jax.grad, jax.jacfwd):
        found = derivative(lambda alpha: loss(after(alpha), data(0)))(0.4)
        np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert np.isfinite(jax.grad(lambda radius: loss(after(0.4, radius), data(0)))(RADIUS))
