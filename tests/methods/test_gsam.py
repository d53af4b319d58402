"""GSAM against its formula."""

import optax
import pytest

from pugd_optax import gsam, sam
from tests.problems import assert_follows, assert_same, unit


def gsam_rule(radius, alpha):
    def rule(t, w, grad):
        g = grad(w)
        g_star = grad(w + radius * unit(g))
        return g_star - alpha(t) * (g - (g @ g_star) / (g_star @ g_star) * g_star)

    return rule


@pytest.mark.parametrize(("radius", "alpha"), [(0.05, 0.4), (0.5, 2.0)])
def test_formula(radius, alpha):
    assert_follows(gsam(radius, alpha), gsam_rule(radius, lambda t: alpha))


def test_alpha_schedule():
    assert_follows(
        gsam(0.2, optax.linear_schedule(1.0, 0.0, 4)), gsam_rule(0.2, lambda t: 1 - min(t, 4) / 4), rtol=1e-6
    )


def test_alpha_zero_is_sam():
    assert_same(gsam(0.05, alpha=0.0), sam(0.05))


def test_a_negative_alpha_is_refused():
    with pytest.raises(ValueError, match=r"alpha=-0\.4.*>= 0"):
        gsam(alpha=-0.4)
