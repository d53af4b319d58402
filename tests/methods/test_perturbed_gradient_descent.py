"""Perturbed gradient descent: the noise is added to the update and does not depend on the learning rate."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import perturbed_gradient_descent
from tests.methods.test_noise_injection import xi
from tests.problems import assert_follows


def test_adds_the_noise_of_the_step():
    assert_follows(perturbed_gradient_descent(0.25, key=2), lambda t, w, grad: grad(w) + 0.25 * xi(t, 2))


def test_sigma_may_be_a_schedule():
    sigma = optax.linear_schedule(0.5, 0.0, 4)
    assert_follows(perturbed_gradient_descent(sigma), lambda t, w, grad: grad(w) + max(0, 0.5 - t / 8) * xi(t))


def test_last_in_the_chain_the_learning_rate_does_not_scale_the_noise():
    w = jnp.zeros(2000)
    tx = optax.chain(optax.sgd(1e-3), perturbed_gradient_descent(0.5))
    u, _ = tx.update(jnp.full(2000, 100.0), tx.init(w), w)
    np.testing.assert_allclose([u.mean(), u.std()], [-0.1, 0.5], atol=0.04)


def test_refuses_bad_arguments():
    with pytest.raises(ValueError, match="sigma=-1"):
        perturbed_gradient_descent(-1)
    with pytest.raises(TypeError, match=r"key=2\.5"):
        perturbed_gradient_descent(key=2.5)  # pyright: ignore[reportArgumentType]
