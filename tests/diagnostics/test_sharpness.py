"""Sharpness against closed forms on quadratics."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import normalize, scale_by_abs_params
from pugd_optax.diagnostics import average_sharpness, gradient_norm, sharpness

A = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]])
W = np.array([1.0, -2.0, 0.5])
params = lambda: {"a": jnp.asarray(W[:1]), "b": jnp.asarray(W[1:])}


def quadratic(p):
    w = jnp.concatenate([p["a"], p["b"]])
    return 0.5 * w @ jnp.asarray(A) @ w


def rise(eps):
    """L(w + eps) - L(w) in closed form."""
    return eps @ A @ W + 0.5 * eps @ A @ eps


def test_gradient_norm(x64):
    np.testing.assert_allclose(gradient_norm(quadratic, params()), np.linalg.norm(A @ W), rtol=1e-12)


@pytest.mark.parametrize("radius", [0.0, 0.1, 2.0])
def test_sharpness_is_the_rise_along_the_gradient(x64, radius):
    g = A @ W
    expected = rise(radius * g / np.linalg.norm(g))
    np.testing.assert_allclose(sharpness(quadratic, params(), radius), expected, rtol=1e-12)


def test_sharpness_along_another_ascent(x64):
    direction = np.abs(W) * (A @ W)
    expected = rise(0.5 * direction / np.linalg.norm(direction))
    ascent = optax.chain(scale_by_abs_params(), normalize())
    np.testing.assert_allclose(sharpness(quadratic, params(), 0.5, ascent=ascent), expected, rtol=1e-12)


def test_sharpness_at_a_stationary_point_is_zero():
    assert float(sharpness(lambda w: jnp.sum(w**2), jnp.zeros(3), 0.1)) == 0.0


def test_average_sharpness_is_the_trace_whatever_the_slope(x64):
    """On a quadratic, the mean is radius^2 tr H / 2d exactly, and the variance does not depend on the slope."""
    gap = average_sharpness(quadratic, params(), 2.0, key=1, samples=100_000)
    spread = np.sqrt(0.5 * (4.0 / 3) ** 2 * np.sum(A**2))
    assert abs(gap - 4.0 / 6 * np.trace(A)) < 4 * spread / np.sqrt(50_000)
    assert float(gap) != float(average_sharpness(quadratic, params(), 2.0, key=2, samples=100_000))


def test_pairs_take_the_slope_out_of_the_spread():
    """If |g| is large, single draws at the same cost would have over twenty times the standard deviation of pairs."""
    loss = lambda p: 100.0 * quadratic(p)
    means = lambda key: average_sharpness(loss, params(), 0.01, key, samples=100)
    found = np.asarray(jax.jit(jax.vmap(means))(jnp.arange(200)), np.float64)
    slope, variance = 100 * np.linalg.norm(A @ W), 0.01**2 / 3
    single = np.sqrt(variance) * slope / np.sqrt(100)
    expected = 100 * 0.01**2 / 6 * np.trace(A)
    np.testing.assert_allclose(found.mean(), expected, rtol=0.05)
    assert single > 2 * expected
    assert found.std() < single / 20


def test_average_sharpness_costs_what_it_says(x64):
    calls = []

    def counted(p):
        one = jax.pure_callback(lambda x: calls.append(1) or np.ones(()), jax.ShapeDtypeStruct((), p.dtype), p[0])
        return jnp.sum(p**2) * one

    jax.block_until_ready(jax.jit(lambda p: average_sharpness(counted, p, samples=10))(jnp.ones(2)))
    assert len(calls) == 11


def test_average_sharpness_uses_directions_of_the_radius():
    """For L = |w|^2 at 0, the average sharpness is the mean squared length of the directions."""
    gap = average_sharpness(lambda w: jnp.sum(w**2), jnp.zeros(3000), 0.5, samples=50)
    np.testing.assert_allclose(gap, 0.25, rtol=0.02)


def test_all_can_be_jitted():
    for measure in (gradient_norm, sharpness, average_sharpness):
        compiled = jax.jit(lambda p, measure=measure: measure(quadratic, p))
        np.testing.assert_allclose(compiled(params()), measure(quadratic, params()), rtol=1e-4)


def test_sharpness_refuses_bad_arguments():
    with pytest.raises(ValueError, match="radius=-1"):
        sharpness(quadratic, params(), -1)
    with pytest.raises(ValueError, match="radius=-1"):
        average_sharpness(quadratic, params(), -1)
    with pytest.raises(ValueError, match="samples=0"):
        average_sharpness(quadratic, params(), samples=0)
    with pytest.raises(ValueError, match=r"samples=7: noise is drawn in pairs. Fix: samples=8"):
        average_sharpness(quadratic, params(), samples=7)
