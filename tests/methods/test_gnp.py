"""GNP against its formula and its limiting cases."""

import optax
import pytest

from pugd_optax import gnp, sam
from tests.problems import assert_follows, assert_same, unit


@pytest.mark.parametrize(("radius", "alpha"), [(0.1, 0.8), (0.5, 0.3), (0.2, 1.5)])
def test_formula(radius, alpha):
    def rule(t, w, grad):
        g = grad(w)
        return (1 - alpha) * g + alpha * grad(w + radius * unit(g))

    assert_follows(gnp(radius, alpha), rule)


def test_alpha_schedule():
    def rule(t, w, grad):
        g, alpha = grad(w), min(t, 4) / 4
        return (1 - alpha) * g + alpha * grad(w + 0.1 * unit(g))

    assert_follows(gnp(alpha=optax.linear_schedule(0.0, 1.0, 4)), rule, rtol=1e-6)


def test_ends():
    assert_same(gnp(0.05, alpha=1.0), sam(0.05))
    assert_same(gnp(alpha=0.0), optax.identity())
