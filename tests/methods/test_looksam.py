"""LookSAM against its formula, with the direction carried from step to step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from pugd_optax import looksam, sam, timing
from tests.problems import START, B, W, assert_follows, assert_same, gradient, path, unit


def looksam_rule(radius, alpha, active, tensors=(slice(None),)):
    g_v = np.zeros_like(START)

    def rule(t, w, grad):
        nonlocal g_v
        g = grad(w)
        if active(t):
            g_star = grad(w + radius * unit(g))
            for s in tensors:
                g_v[s] = g_star[s] - (g_star[s] @ g[s]) / (g[s] @ g[s]) * g[s]
            return g_star
        reused = np.concatenate([np.linalg.norm(g[s]) * unit(g_v[s]) for s in tensors]) if g_v.any() else 0
        return g + alpha(t) * reused

    return rule


@pytest.mark.parametrize(("radius", "alpha", "every"), [(0.1, 0.7, 3), (0.5, 0.2, 2)])
def test_formula(radius, alpha, every):
    rule = looksam_rule(radius, lambda t: alpha, lambda t: t % every == 0)
    assert_follows(looksam(radius, alpha, every), rule, steps=8)


def test_other_gates_and_alpha_schedules():
    """Steps before the first active one return the gradient, as there is no direction to reuse yet."""
    tx = looksam(0.3, lambda t: 0.125 * t, when=timing.between(2, 4))
    assert_follows(tx, looksam_rule(0.3, lambda t: 0.125 * t, lambda t: 2 <= t < 4), steps=8, rtol=1e-6)


def test_tensor_by_tensor():
    rule = looksam_rule(0.3, lambda t: 0.4, lambda t: t % 3 == 0, (B, W))
    assert_follows(looksam(0.3, 0.4, 3, per_tensor=True), rule, steps=8)


def test_every_step_is_sam():
    assert_same(looksam(0.1, every=1), sam(0.1))


def test_direction_is_orthogonal_to_the_gradient_it_was_made_with():
    _, state = path(looksam(0.3, every=1), steps=1)
    g = gradient(START, 0)
    direction = optax.tree.get(state, "direction")
    g_v = np.concatenate([np.ravel(direction["b"]), np.ravel(direction["w"])])
    assert abs(g_v @ g) < 1e-12
    assert np.linalg.norm(g_v) > 1e-3


def test_a_broken_active_step_leaves_nothing_to_reuse():
    tx, params = looksam(0.3, every=2), {"a": jnp.array([1.0, 2.0])}
    grad_fn = lambda p: jax.tree.map(lambda w: w**3, p)
    for broken in (False, True):
        again = (lambda p: jax.tree.map(lambda w: w * jnp.nan, p)) if broken else grad_fn
        _, state = tx.update(grad_fn(params), tx.init(params), params, grad_fn=again)
        u, _ = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
        assert np.array_equal(u["a"], grad_fn(params)["a"]) == broken


def reused(hessian, dtype, size=1000):
    """The relative norm of what LookSAM adds to the gradient of a quadratic on the step after an active one."""
    w = jnp.asarray(np.random.default_rng(3).normal(size=size), dtype)
    grad_fn = lambda w: (jnp.asarray(hessian, dtype) * w).astype(dtype)
    tx = looksam(radius=1.0, alpha=0.7, every=2)
    state = tx.init(w)
    for _ in range(2):
        u, state = tx.update(grad_fn(w), state, w, grad_fn=grad_fn)
    g, u = (np.asarray(x, np.float64) for x in (grad_fn(w), u))
    return np.linalg.norm(u - g) / np.linalg.norm(g)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
def test_rounding_errors_are_no_direction(dtype, x64):
    """With equal curvatures, g* is parallel to g; its orthogonal part is only rounding error and is not reused."""
    assert reused(3.0, dtype) == 0
    assert reused(3.0, dtype, size=2) == 0


@pytest.mark.parametrize(
    ("dtype", "spread"), [(jnp.float16, 0.9), (jnp.bfloat16, 0.9), (jnp.float32, 1e-3), (jnp.float64, 1e-9)]
)
def test_a_small_direction_is_one(dtype, spread, x64):
    """A direction that is small, but larger than the rounding errors, is reused in full."""
    np.testing.assert_allclose(reused(1 + spread * np.linspace(-1, 1, 1000), dtype), 0.7, rtol=0.02)


def test_tensors_one_by_one_where_there_are_none():
    tx = looksam(per_tensor=True, every=2)
    state = tx.init({})
    for _ in range(3):
        u, state = tx.update({}, state, {}, grad_fn=lambda p: p)
        assert u == {}


def test_sharding_specs_of_the_parameters_fit_the_state_tensor_by_tensor():
    params, specs = {"a": jnp.zeros((2, 8)), "b": jnp.zeros(8)}, {"a": P(None, "x"), "b": P("x")}
    tx = looksam(per_tensor=True)
    state = tx.init(params)
    placed = optax.tree.map_params(tx, lambda x, spec: spec, state, specs, transform_non_params=lambda x: P())
    assert all(len(spec) <= x.ndim for x, spec in zip(jax.tree.leaves(state), jax.tree.leaves(placed), strict=True))


def test_one_parameter_has_no_orthogonal_direction(x64):
    assert reused(0.3, jnp.float32, size=1) == 0


def test_the_state_of_a_gate_may_have_names_of_its_own():
    class Memory(NamedTuple):
        active: jax.Array

    gate = timing.Gate(lambda params: Memory(jnp.zeros(())), lambda state, grads, **extra: (True, state))
    assert_same(looksam(0.1, when=gate), sam(0.1))
