"""ASAM against its formula, with all parameters scaled and with weights only."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import asam
from tests.problems import B, W, assert_follows


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
    """The length of the perturbation, relative to |w|, equals the radius for weights of any size."""
    seen = []

    def rule(t, w, grad):
        g, size = grad(w), np.abs(w)
        eps = 0.5 * size**2 * g / np.linalg.norm(size * g)
        seen.append(np.linalg.norm(eps / size))
        return grad(w + eps)

    assert_follows(asam(eta=0.0), rule)
    np.testing.assert_allclose(seen, 0.5)
    assert W.start == B.stop
