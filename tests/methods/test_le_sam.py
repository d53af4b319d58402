"""LE-SAM against its formula, below the maximum radius and at it."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from pugd_optax import le_sam, sam
from tests.problems import assert_follows, assert_same, unit


def at(x: Any, t: int) -> float:
    return float(x(t) if callable(x) else x)


@pytest.mark.parametrize(("radius", "sigma"), [(0.3, 0.35), (5.0, 0.2), (lambda t: 0.1 * (t + 1), lambda t: 0.05 * t)])
def test_formula(radius, sigma):
    def rule(t, w, grad):
        g = grad(w)
        return grad(w + min(at(sigma, t) / np.linalg.norm(g), at(radius, t)) * unit(g))

    assert_follows(le_sam(radius, sigma), rule, rtol=1e-6 if callable(radius) else 1e-9)


def test_the_linearised_loss_rises_by_the_budget():
    for g in (jnp.array([3.0, 4.0]), jnp.array([0.3, 0.4])):
        points = []
        tx = le_sam(radius=100.0, sigma=0.25)
        tx.update(g, tx.init(g), jnp.zeros(2), grad_fn=lambda p, seen=points: seen.append(p) or p)
        np.testing.assert_allclose(jnp.vdot(g, points[0]), 0.25, rtol=1e-6)


def test_a_large_budget_is_sam():
    assert_same(le_sam(0.2, 1e6), sam(0.2))
