"""WSAM against its formula and its limiting cases."""

import optax
import pytest

from pugd_optax import sam, wsam
from tests.problems import assert_follows, assert_same, unit


@pytest.mark.parametrize(("radius", "gamma"), [(0.05, 0.9), (0.5, 0.2)])
def test_formula(radius, gamma):
    def rule(t, w, grad):
        g = grad(w)
        return g + gamma / (1 - gamma) * (grad(w + radius * unit(g)) - g)

    assert_follows(wsam(radius, gamma), rule)


def test_gamma_schedule():
    def rule(t, w, grad):
        g, gamma = grad(w), 0.5 + 0.0625 * min(t, 4)
        return g + gamma / (1 - gamma) * (grad(w + 0.05 * unit(g)) - g)

    assert_follows(wsam(gamma=optax.linear_schedule(0.5, 0.75, 4)), rule, rtol=1e-5)


def test_ends():
    assert_same(wsam(0.05, gamma=0.5), sam(0.05))
    assert_same(wsam(gamma=0.0), optax.identity())
