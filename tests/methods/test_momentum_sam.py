"""Momentum SAM against its formula."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from pugd_optax import momentum_sam
from tests.problems import START, W, assert_follows, unit


def momentum_rule(radius, decay, keep=slice(None)):
    v = np.zeros_like(START)

    def rule(t, w, grad):
        nonlocal v
        eps = np.zeros_like(w)
        if v.any():
            eps[keep] = -radius * unit(v[keep])
        u = grad(w + eps)
        v = decay * v + u
        return u

    return rule


@pytest.mark.parametrize(("radius", "decay"), [(0.3, 0.9), (0.1, 0.0)])
def test_formula(radius, decay):
    assert_follows(momentum_sam(radius, decay), momentum_rule(radius, decay))


def test_mask():
    assert_follows(momentum_sam(mask={"b": False, "w": True}), momentum_rule(0.3, 0.9, keep=W))


def test_momentum_in_float16_outlives_large_gradients():
    """The sum of ten gradients of 2e4 is beyond float16; the next steps are perturbed all the same."""
    tx, w, g = momentum_sam(1.0), jnp.ones(2, jnp.float16), jnp.array([2e4, -2e4], jnp.float16)
    state, points = tx.init(w), []
    for _ in range(10):
        _, state = tx.update(g, state, w, grad_fn=lambda p: points.append(p) or g)
    chex.assert_tree_all_finite(state)
    np.testing.assert_allclose(points[-1], 1 + np.array([-1, 1]) / np.sqrt(2), rtol=1e-2)
