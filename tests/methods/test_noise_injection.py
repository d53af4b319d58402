"""Noise injection against its formula, and the sparse solutions it finds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import noise_injection
from tests.problems import assert_follows, start


def xi(t, key=0):
    """The noise of step t, all tensors concatenated."""
    with jax.enable_x64(True):
        chunk = jax.random.fold_in(jax.random.fold_in(jax.random.key(key), t), 0)
        return np.asarray(jax.random.normal(chunk, (sum(x.size for x in start().values()),), jnp.float64))


def test_follows_the_formula():
    assert_follows(noise_injection(0.25, key=3), lambda t, w, grad: grad(w + 0.25 * xi(t, 3)))


def test_sigma_may_be_a_schedule_and_noise_may_stop():
    sigma = optax.piecewise_constant_schedule(0.25, {3: 0.0})
    assert_follows(noise_injection(sigma), lambda t, w, grad: grad(w + 0.25 * xi(t)) if t < 3 else grad(w))


def test_the_gradient_is_not_read():
    """The values of the incoming gradient are not used, so NaN there gives a finite output."""
    w = jnp.array([1.0, 2.0])
    tx = noise_injection(0.1)
    u, _ = tx.update(jnp.full(2, jnp.nan), tx.init(w), w, grad_fn=lambda p: 2 * p)
    v, _ = tx.update(jnp.zeros(2), tx.init(w), w, grad_fn=lambda p: 2 * p)
    assert u.tolist() == v.tolist()
    assert bool(jnp.isfinite(u).all())


def test_mask_keeps_the_rest_still():
    w = {"a": jnp.ones(3), "b": jnp.ones(3)}
    tx = noise_injection(0.1, mask={"a": True, "b": False})
    u, _ = tx.update(w, tx.init(w), w, grad_fn=lambda p: p)
    assert u["b"].tolist() == [1.0] * 3
    assert bool((u["a"] != 1.0).all())


def test_the_mean_is_the_gradient_of_the_loss_and_half_the_trace(x64):
    """For L = sum w^4, tr H = 12 sum w^2 and E grad L(w + sigma xi) = 4 w^3 + 12 sigma^2 w exactly."""
    w, sigma = jnp.array([1.0, -0.5]), 0.3
    tx = noise_injection(sigma)
    state = tx.init(w)

    def step(state, _):
        u, state = tx.update(w, state, w, grad_fn=lambda p: 4 * p**3)
        return state, u

    mean = jax.lax.scan(step, state, length=100_000)[1].mean(axis=0)
    np.testing.assert_allclose(mean, 4 * w**3 + sigma**2 / 2 * 24 * w, rtol=0.02)


def test_finds_the_sparse_solution_of_a_regression_in_squares():
    """For f(x) = <w^2, x>, noise acts as an L1 penalty on w^2; plain gradient descent misses the sparse solution."""
    random = np.random.default_rng(0)
    x, beta = jnp.asarray(random.normal(size=(40, 100)), jnp.float32), jnp.zeros(100).at[:5].set(1.0)
    grad_fn = jax.grad(lambda w: 0.25 * jnp.mean((x @ (w**2 - beta)) ** 2))

    def error(sigma):
        tx = noise_injection(optax.piecewise_constant_schedule(sigma, {9_000: 0.0}))

        def step(carry, _):
            w, state = carry
            u, state = tx.update(grad_fn(w), state, w, grad_fn=grad_fn)
            return (w - 0.05 * u, state), None

        (w, _), _ = jax.lax.scan(step, (jnp.ones(100), tx.init(jnp.ones(100))), length=10_000)
        return float(jnp.sum((w**2 - beta) ** 2))

    assert error(0.0) > 10
    assert error(0.1) < 0.01


@pytest.mark.parametrize("sigma", [-0.1, float("inf")])
def test_refuses_a_bad_sigma(sigma):
    with pytest.raises(ValueError, match="sigma="):
        noise_injection(sigma)


def test_refuses_a_bad_key_and_a_missing_gradient_function():
    with pytest.raises(TypeError, match=r"key=0\.5"):
        noise_injection(0.1, key=0.5)  # pyright: ignore[reportArgumentType]
    tx = noise_injection()
    with pytest.raises(ValueError, match="needs grad_fn="):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2))
