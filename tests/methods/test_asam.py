"""ASAM against its formula, with all parameters scaled and with weights only."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import asam
from tests.problems import B, assert_follows


@pytest.mark.parametrize(("radius", "eta"), [(0.5, 0.01), (1.0, 0.0)])
def test_formula(radius, eta):
    def rule(t, w, grad):
        g, size = grad(w), np.abs(w) + eta
        return grad(w + radius * size**2 * g / np.linalg.norm(size * g))

    assert_follows(asam(radius, eta), rule)


def test_weights_only():
    def rule(t, w, grad):
        g, size = grad(w), np.abs(w) + 0.01
        size[B] = 1.0
        return grad(w + 0.5 * size**2 * g / np.linalg.norm(size * g))

    assert_follows(asam(scaled={"b": False, "w": True}), rule)


def test_a_mistyped_scaled_is_not_called_mask():
    grads = {"b": jnp.ones(2), "w": jnp.ones(2)}
    tx = asam(scaled={"w": True})
    with pytest.raises(ValueError, match=r"^scaled has another structure: no \['b'\].*Fix: scaled=lambda params"):
        tx.update(grads, tx.init(grads), grads, grad_fn=lambda p: p)


def test_mask():
    def rule(t, w, grad):
        g, size = grad(w), np.abs(w) + 0.01
        g[B] = 0.0
        return grad(w + 0.5 * size**2 * g / np.linalg.norm(size * g))

    assert_follows(asam(mask={"b": False, "w": True}), rule)


def test_eta_may_be_a_schedule():
    def rule(t, w, grad):
        g, size = grad(w), np.abs(w) + 0.5 - 0.125 * min(t, 4)
        return grad(w + 0.5 * size**2 * g / np.linalg.norm(size * g))

    assert_follows(asam(eta=optax.linear_schedule(0.5, 0.0, 4)), rule, rtol=1e-6)


def test_rescaling_a_layer_rescales_its_perturbation():
    """A layer of w / 8, whose gradient is 8 g, is moved by an eighth, and the other layer as before."""

    def eps(c):
        w = {"b": jnp.array([1.0, -2.0]), "w": jnp.array([0.5, 3.0, -1.0]) / c}
        g, tx, seen = {"b": jnp.array([0.3, 1.0]), "w": c * jnp.array([2.0, -0.1, 0.7])}, asam(eta=0.0), []
        tx.update(g, tx.init(w), w, grad_fn=lambda p: seen.append(p) or g)
        return {k: np.asarray(seen[0][k] - w[k]) for k in w}

    plain, scaled = eps(1.0), eps(8.0)
    np.testing.assert_allclose(scaled["w"], plain["w"] / 8, rtol=1e-5)
    np.testing.assert_allclose(scaled["b"], plain["b"], rtol=1e-5)
    assert np.abs(plain["w"]).max() > 0.1
