"""PEGR against its closed form for logistic regression, in edge cases, and the effect it was proposed for."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pugd_optax
from pugd_optax import per_example

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(6, 4)), np.array([0.0, 1.0, 1.0, 0.0, 1.0, 0.0])


def losses_fn(w):
    z = jnp.asarray(X, w.dtype) @ w
    return jnp.logaddexp(0.0, z) - jnp.asarray(Y, w.dtype) * z


def by_hand(w, strength):
    """The mean of g_i + strength * H_i g_i for logistic regression, in float64 NumPy."""
    p = 1 / (1 + np.exp(-X @ w))
    g = (p - Y)[:, None] * X
    h_g = (p * (1 - p) * np.sum(X * g, axis=1))[:, None] * X
    return np.mean(g + strength * h_g, axis=0)


def gradient(w):
    return jax.grad(lambda w: jnp.mean(losses_fn(w)))(w)


@pytest.mark.parametrize("penalty", [per_example.ghost, per_example.reference])
def test_follows_the_formula(penalty, x64):
    strength = lambda t: 0.5 / (1.0 + t)
    tx = pugd_optax.pegr(strength, penalty)
    w: Any = jnp.asarray(RANDOM.normal(size=4))
    state = tx.init(w)
    for t in range(4):
        u: Any
        u, state = tx.update(gradient(w), state, w, losses_fn=losses_fn)
        np.testing.assert_allclose(u, by_hand(np.asarray(w), strength(t)), rtol=1e-12)
        w = w - 0.5 * u


def test_sign_penalty_draws_anew_each_step_and_is_right_on_average(x64):
    tx, w = pugd_optax.pegr(0.5, per_example.signs(1)), jnp.ones(4)
    state: Any = tx.init(w)
    outputs = jax.vmap(lambda t: tx.update(w, state._replace(step=t), w, losses_fn=losses_fn)[0])(jnp.arange(4000))
    assert len(np.unique(np.asarray(outputs), axis=0)) > 8
    excess = np.asarray(outputs).mean(axis=0) - by_hand(np.ones(4), 0.0)
    exact = by_hand(np.ones(4), 0.5) - by_hand(np.ones(4), 0.0)
    assert np.linalg.norm(excess - exact) < 0.05 * np.linalg.norm(exact)


def test_one_group_is_gradient_regularization(x64):
    w = jnp.asarray(RANDOM.normal(size=4))
    tx = pugd_optax.pegr(0.3, group_size=len(X))
    u: Any = tx.update(gradient(w), tx.init(w), w, losses_fn=losses_fn)[0]
    g, h_g = jax.jvp(gradient, (w,), (gradient(w),))
    np.testing.assert_allclose(u, g + 0.3 * h_g, rtol=1e-12)


@pytest.mark.parametrize("strength", [0.0, lambda t: 0.0 * t, jnp.float32(0.0)])
def test_no_strength_returns_the_gradient_bit_for_bit(strength):
    tx, w = pugd_optax.pegr(strength), jnp.ones(4)
    g = gradient(w) + 0.25
    u: Any = tx.update(g, tx.init(w), w, losses_fn=losses_fn)[0]
    np.testing.assert_array_equal(u, g)


def test_idle_steps_return_the_gradient_and_evaluate_nothing():
    tx, w, calls = pugd_optax.pegr(0.5, when=lambda t: t % 2 == 1), jnp.ones(4), []
    counted = lambda w: calls.append(1) or losses_fn(w)
    g = gradient(w) + 0.25
    u, state = tx.update(g, tx.init(w), w, losses_fn=losses_fn)
    np.testing.assert_array_equal(u, g)
    v: Any = tx.update(g, state, w, losses_fn=losses_fn)[0]
    np.testing.assert_allclose(v, by_hand(np.ones(4), 0.5), rtol=1e-5)
    tx.update(g, tx.init(w), w, losses_fn=counted, active=False)
    assert not calls


def test_the_gradient_it_is_given_is_dead_code():
    """Under jit with a constant strength, the incoming gradient is not computed."""
    tx, w = pugd_optax.pegr(0.5), jnp.ones(4)

    def flops(g):
        step = jax.jit(lambda w: tx.update(g(w), tx.init(w), w, losses_fn=losses_fn)[0])
        cost: Any = step.lower(w).compile().cost_analysis()
        return cost["flops"]

    assert flops(gradient) == flops(lambda w: w)


def test_works_in_a_chain_and_swallows_other_arguments():
    tx, w = optax.chain(pugd_optax.pegr(0.5), optax.sgd(0.1)), jnp.ones(4)
    updates: Any = tx.update(gradient(w), tx.init(w), w, losses_fn=losses_fn, grad_fn=None, labels=1, value=2.0)[0]
    np.testing.assert_allclose(updates, -0.1 * by_hand(np.ones(4), 0.5), rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"strength": -0.1}, r"strength=-0\.1"),
        ({"strength": 0.1, "group_size": 0}, "group_size=0"),
    ],
)
def test_bad_arguments(given, message):
    with pytest.raises(ValueError, match=message):
        pugd_optax.pegr(**given)


def test_missing_losses_show_the_fix():
    tx, w = pugd_optax.pegr(0.1), jnp.ones(4)
    with pytest.raises(ValueError, match=r"losses_fn=.*Fix: tx\.update\(grads, state, params, losses_fn="):
        tx.update(w, tx.init(w), w)


def test_groups_must_divide_the_batch():
    tx, w = pugd_optax.pegr(0.1, group_size=4), jnp.ones(4)
    with pytest.raises(ValueError, match=r"group_size=4.*\(6,\).*divisor"):
        tx.update(w, tx.init(w), w, losses_fn=losses_fn)


# Signal and noise patches: the two-layer convolutional model for which the paper proves its claim.

DIM, TRAIN, FILTERS, MU = 400, 20, 10, 3.0


def patches(key, n):
    """Two patches per example, y * mu and noise orthogonal to mu, with shape [n, 2, DIM], and labels y of +1 or -1."""
    label, noise = jax.random.split(key)
    y = jax.random.rademacher(label, (n,), jnp.float32)
    xi = jax.random.normal(noise, (n, DIM)).at[:, 0].set(0.0)
    return jnp.stack([jnp.zeros((n, DIM)).at[:, 0].set(MU * y), xi], axis=1), y


def margins(w, x, y):
    """The margins of a network with cubed ReLU and a fixed second layer; `w` has the axes [class sign, filter, DIM]."""
    scores = jnp.mean(jnp.sum(jax.nn.relu(jnp.einsum("npd,jrd->npjr", x, w)) ** 3, axis=1), axis=2)
    return y * (scores[:, 0] - scores[:, 1])


@functools.partial(jax.jit, static_argnums=0)
def errors(strength, seed):
    init, train, test = jax.random.split(jax.random.key(seed), 3)
    x, y = patches(train, TRAIN)
    losses_fn = lambda w: jax.nn.softplus(-margins(w, x, y))
    tx = optax.chain(pugd_optax.pegr(strength), optax.sgd(0.1))

    def step(carry, _):
        w, state = carry
        grads = jax.grad(lambda w: jnp.mean(losses_fn(w)))(w)
        updates, state = tx.update(grads, state, w, losses_fn=losses_fn)
        return (w + updates, state), None

    w = 0.01 * jax.random.normal(init, (2, FILTERS, DIM))
    (w, _), _ = jax.lax.scan(step, (w, tx.init(w)), length=1000)
    return jnp.mean(margins(w, x, y) <= 0), jnp.mean(margins(w, *patches(test, 500)) <= 0)


def test_learns_the_signal_where_gradient_descent_memorises_the_noise():
    plain, regularized = (np.mean([errors(strength, seed) for seed in range(3)], axis=0) for strength in (0.0, 0.05))
    assert plain[0] == 0
    assert plain[1] > 0.4
    assert regularized[0] == 0
    assert regularized[1] < 0.1


def test_reports_no_radius():
    tx, w = pugd_optax.pegr(0.5), jnp.ones(4)
    assert tx.update(gradient(w), tx.init(w), w, losses_fn=losses_fn)[1].radius == 0
