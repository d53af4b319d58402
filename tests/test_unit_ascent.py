"""Methods with `adaptive=` against NumPy: they ascend in the ball of ASAM with eta = 0."""

import numpy as np
import pytest

from pugd_optax import asam, friendly_sam, gsam, looksam, vasso, wsam
from tests.problems import assert_follows, assert_same

RADIUS = 0.3


def moved(w, d):
    return w + RADIUS * w**2 * d / np.linalg.norm(w * d)


def of_two(combine):
    return lambda t, w, grad: combine(grad(w), grad(moved(w, grad(w))))


def of_mean(weight, sigma):
    """A rule that ascends along g - sigma m for Friendly SAM, and along m, which includes g, for VaSSO."""
    mean = None

    def rule(t, w, grad):
        nonlocal mean
        g, before = grad(w), 0.0 if mean is None else mean
        mean = g if mean is None else (1 - weight) * mean + weight * g
        return grad(moved(w, mean if sigma is None else g - sigma * before))

    return rule


def test_gsam_and_wsam():
    across = lambda g, g_star: g - (g @ g_star) / (g_star @ g_star) * g_star
    assert_follows(gsam(RADIUS, 0.4, adaptive=True), of_two(lambda g, g_star: g_star - 0.4 * across(g, g_star)))
    assert_follows(wsam(RADIUS, 0.8, adaptive=True), of_two(lambda g, g_star: g + 4 * (g_star - g)))


def test_friendly_sam_and_vasso():
    assert_follows(friendly_sam(RADIUS, 0.6, 0.7, adaptive=True), of_mean(0.3, 0.6))
    assert_follows(vasso(RADIUS, 0.4, adaptive=True), of_mean(0.4, None))


def test_looksam_on_every_step_is_asam():
    assert_same(looksam(RADIUS, every=1, adaptive=True), asam(RADIUS, eta=0.0))


@pytest.mark.parametrize("method", [gsam, wsam, friendly_sam, vasso, looksam])
def test_a_flag_that_is_none(method):
    with pytest.raises(TypeError, match=r"adaptive=0\.01: expected a bool\. Fix: adaptive=True"):
        method(adaptive=0.01)
