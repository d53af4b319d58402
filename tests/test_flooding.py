"""Flooding and its relatives: values, the gradient's sign or weight, and the identity with gradient regularisation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pugd_optax
from pugd_optax import flood, iflood, soft_ad

random = np.random.default_rng(3)
X, Y = random.normal(size=(12, 3)), random.normal(size=12)
W = random.normal(size=3)
WRONG_TYPE: Any = "low"


def losses_fn(w, x=X, y=Y):
    return (jnp.tanh(x @ w) - y) ** 2


def mean_loss(w):
    return losses_fn(w).mean()


def by_hand(w):
    """The losses and their gradients in NumPy, one row per example."""
    f = np.tanh(X @ w)
    return (f - Y) ** 2, (2 * (f - Y) * (1 - f**2))[:, None] * X


@pytest.mark.parametrize("level", [0.1, 5.0])
def test_flood_turns_the_gradient_round_below_the_level(x64, level):
    losses, slopes = by_hand(W)
    value, slope = jax.value_and_grad(flood(mean_loss, level))(jnp.asarray(W))
    np.testing.assert_allclose(value, abs(losses.mean() - level) + level, rtol=1e-12)
    np.testing.assert_allclose(slope, np.sign(losses.mean() - level) * slopes.mean(0), rtol=1e-12)
    assert (losses.mean() < level) == (level == 5.0)


def test_flood_at_the_level_rests():
    np.testing.assert_array_equal(jax.grad(flood(lambda w: w @ w, level=5.0))(jnp.array([1.0, 2.0])), 0)


def test_flooding_up_and_down_is_a_step_of_gradient_regularisation(x64):
    """An ascent and a descent step of size h end at w - h^2 (grad L(w + h g) - g) / h."""
    h, w = 0.3, jnp.asarray(W)
    g, level = jax.grad(mean_loss)(w), float(mean_loss(w)) + 1e-9
    up = w - h * jax.grad(flood(mean_loss, level))(w)
    down = up - h * jax.grad(flood(mean_loss, level))(up)
    assert mean_loss(up) > level
    quotient = (jax.grad(mean_loss)(w + h * g) - g) / h
    np.testing.assert_allclose(down, w - h**2 * quotient, rtol=0, atol=1e-12)
    # The same from the package: the gradient of the penalty alone is what forward differences add to g.
    tx = pugd_optax.gradient_regularization(strength=1.0, step=h, scheme="forward")
    u, _ = tx.update(g, tx.init(w), w, grad_fn=jax.grad(mean_loss))
    np.testing.assert_allclose(down, w - h**2 * (u - g), rtol=0, atol=1e-12)


def test_iflood_turns_each_example_by_itself(x64):
    level = float(np.median(by_hand(W)[0]))
    losses, slopes = by_hand(W)
    value, slope = jax.value_and_grad(iflood(losses_fn, level))(jnp.asarray(W))
    np.testing.assert_allclose(value, np.abs(losses - level).mean() + level, rtol=1e-12)
    np.testing.assert_allclose(slope, (np.sign(losses - level)[:, None] * slopes).mean(0), rtol=1e-12)


@pytest.mark.parametrize("sigma", [0.2, 1.0, 4.0])
def test_soft_ad_weighs_each_example(x64, sigma):
    level = float(np.median(by_hand(W)[0]))
    losses, slopes = by_hand(W)
    x = (losses - level) / sigma
    value, slope = jax.value_and_grad(soft_ad(losses_fn, level, sigma))(jnp.asarray(W))
    np.testing.assert_allclose(value, level + sigma * (np.sqrt(1 + x**2) - 1).mean(), rtol=1e-12)
    np.testing.assert_allclose(slope, ((x / np.sqrt(1 + x**2))[:, None] * slopes).mean(0), rtol=1e-12)


def test_soft_ad_tends_to_iflood(x64):
    w, level = jnp.asarray(W), 0.5
    expected = jax.grad(iflood(losses_fn, level))(w)
    np.testing.assert_allclose(jax.grad(soft_ad(losses_fn, level, sigma=1e-4))(w), expected, atol=1e-6)


def test_soft_ad_keeps_digits_near_the_level():
    value = soft_ad(lambda x: x, level=0.0)(jnp.array([1e-3, -1e-3]))
    np.testing.assert_allclose(value, 5e-7, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_soft_ad_far_from_the_level_in_half_precision(dtype):
    """Values and slopes are correct although the square of 300 overflows float16."""
    losses = np.array([300.0, 1.0, -2000.0])
    value, slope = jax.value_and_grad(soft_ad(lambda x: x, level=0.5))(jnp.asarray(losses, dtype))
    x = losses - 0.5
    assert value.dtype == slope.dtype == dtype
    np.testing.assert_allclose(float(value), 0.5 + (np.sqrt(1 + x**2) - 1).mean(), rtol=1e-2)
    np.testing.assert_allclose(np.asarray(slope, np.float64), x / np.sqrt(1 + x**2) / 3, rtol=1e-2)


@pytest.mark.parametrize("sigma", [1.0, 1e-20, 1e20])
def test_soft_ad_at_any_scale(sigma):
    """The square of a deviation of 1e25 overflows float32; there rho(x) is |x| - 1 and its slope is the sign."""
    away = np.array([3.0, -1.0, 1e25, -1e25, 0.0]) * min(sigma, 1.0)
    value, slope = jax.value_and_grad(soft_ad(lambda x: x, level=0.0, sigma=sigma))(jnp.asarray(away, jnp.float32))
    x = away.astype(np.float64) / sigma
    np.testing.assert_allclose(value, sigma * np.mean(x * x / (1 + np.sqrt(1 + x * x))), rtol=1e-5)
    np.testing.assert_allclose(slope, x / np.sqrt(1 + x * x) / 5, rtol=1e-5)


def test_aux_and_keywords_pass_through(x64):
    with_aux = lambda w, *, x, y: (losses_fn(w, x, y), {"n": len(y)})
    for transform in (iflood, soft_ad):
        value, aux = transform(with_aux, 0.5, has_aux=True)(W, x=X, y=Y)
        np.testing.assert_allclose(value, transform(losses_fn, 0.5)(W))
        assert aux == {"n": 12}
    mean_with_aux = lambda w, *, x, y: (losses_fn(w, x, y).mean(), "aux")
    value, aux = flood(mean_with_aux, 0.5, has_aux=True)(W, x=X, y=Y)
    np.testing.assert_allclose(value, flood(mean_loss, 0.5)(W))
    assert aux == "aux"


def test_flooding_composes_with_a_perturbation():
    """A flooded loss and PUGD compose, as one transforms the loss and the other the gradient."""
    loss_fn = flood(lambda w: jnp.sum(w**2), level=1.0)
    tx = optax.chain(pugd_optax.pugd(radius=0.1), optax.sgd(0.05))
    w = jnp.array([2.0, 1.0])

    @jax.jit
    def step(w, state):
        updates, state = tx.update(jax.grad(loss_fn)(w), state, w, grad_fn=jax.grad(loss_fn))
        return optax.apply_updates(w, updates), state

    state = tx.init(w)
    for _ in range(60):
        w, state = step(w, state)
    assert abs(float(jnp.sum(w**2)) - 1.0) < 0.3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: flood(mean_loss, -0.1), ValueError, "level=-0.1"),
        (lambda: iflood(losses_fn, float("nan")), ValueError, "level=nan"),
        (lambda: soft_ad(losses_fn, WRONG_TYPE), TypeError, "level='low'"),
        (lambda: soft_ad(losses_fn, 0.1, sigma=0.0), ValueError, "sigma=0.0: expected a number above 0"),
        (lambda: soft_ad(losses_fn, 0.1, sigma=-1.0), ValueError, "sigma=-1.0"),
        (lambda: flood(losses_fn, 0.1)(W), ValueError, r"shape \(12,\).*Fix: loss\.mean\(\), or pugd_optax\.iflood"),
        (lambda: iflood(mean_loss, 0.1)(W), ValueError, "iflood: loss_fn returned a scalar.*pugd_optax.flood"),
        (lambda: soft_ad(mean_loss, 0.1)(W), ValueError, "soft_ad: loss_fn returned a scalar"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
