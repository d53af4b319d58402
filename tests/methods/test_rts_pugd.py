"""RTS-PUGD: schedules of radius, timing and scale that share one step counter."""

import math

import numpy as np

from pugd_optax import pugd, rts_pugd, schedules, timing
from tests.problems import assert_follows, assert_same, path, unit


def rts_rule(radius, active, scale):
    def rule(t, w, grad):
        g = grad(w)
        if not active(t):
            return g
        return unit(scale(t) * g + grad(w + radius(t) * unit(np.abs(w) * g)))

    return rule


def test_defaults():
    """The default radius is a quarter sine from 0 to pi / 2; the first tenth of the steps is plain; the scale is 1."""
    rule = rts_rule(lambda t: math.pi / 2 * math.sin(math.pi * t / 40), lambda t: t >= 2, lambda t: 1.0)
    assert_follows(rts_pugd(20), rule, steps=20)


def test_all_three_knobs():
    radius = schedules.quarter_wave("isin", 2.0, 0.4, 8)
    scale = schedules.quarter_wave("cos", 2.0, 0.5, 8)
    tx = rts_pugd(8, radius=radius, scale=scale, when=timing.every(2, offset=1))
    x = lambda t: math.pi * t / 16
    rule = rts_rule(
        lambda t: 1 / (0.4 + 1.6 * math.sin(x(t))), lambda t: t % 2 == 1, lambda t: 0.5 + 1.5 * math.cos(x(t))
    )
    assert_follows(tx, rule, steps=8)


def test_constant_knobs_are_pugd():
    assert_same(rts_pugd(5, radius=1.0, scale=1.0, when=True), pugd())
    assert_same(rts_pugd(5, radius=1.0, when=timing.after(3), idle="unit"), pugd(when=timing.after(3)))


def test_inactive_steps_are_the_raw_gradient_to_the_bit():
    outputs, _ = path(rts_pugd(20), steps=2)
    plain, _ = path(pugd(when=False, idle="raw"), steps=2)
    np.testing.assert_array_equal(outputs, plain)
