"""Friendly SAM against its formula, with the running mean carried from step to step."""

import jax.numpy as jnp
import numpy as np
import pytest

from pugd_optax import friendly_sam, sam, timing
from tests.problems import START, W, assert_follows, assert_same, unit


def friendly_rule(radius, sigma, decay, active=lambda t: True, keep=slice(None)):
    mean = np.zeros_like(START)

    def rule(t, w, grad):
        nonlocal mean
        g = grad(w)
        d = np.zeros_like(g)
        d[keep] = (g - sigma * mean)[keep]
        mean = g if t == 0 else decay * mean + (1 - decay) * g
        return grad(w + radius * unit(d)) if active(t) else g

    return rule


@pytest.mark.parametrize(("radius", "sigma", "decay"), [(0.2, 1.0, 0.9), (0.5, 0.6, 0.5)])
def test_formula(radius, sigma, decay):
    assert_follows(friendly_sam(radius, sigma, decay), friendly_rule(radius, sigma, decay))


def test_the_radius_is_that_of_the_selected_parameters():
    """The running mean has entries outside of the mask, which do not count in the norm of the perturbation."""
    rule = friendly_rule(0.2, 1.0, 0.9, keep=W)
    assert_follows(friendly_sam(0.2, mask={"b": False, "w": True}), rule)


def test_mean_moves_on_inactive_steps():
    rule = friendly_rule(0.2, 1.0, 0.9, lambda t: t >= 3)
    assert_follows(friendly_sam(when=timing.after(3)), rule)


def test_the_mean_starts_at_the_first_finite_gradient():
    """A non-finite gradient does not count as the first one, so the mean starts at the whole of the next gradient."""
    tx, g = friendly_sam(), jnp.array([3.0, -4.0])
    _, state = tx.update(g.at[0].set(jnp.nan), tx.init(g), g, grad_fn=lambda w: g)
    np.testing.assert_array_equal(state.mean, 0)
    _, state = tx.update(g, state, g, grad_fn=lambda w: g)
    np.testing.assert_array_equal(state.mean, g)


def test_sigma_zero_is_sam():
    assert_same(friendly_sam(0.2, sigma=0.0), sam(0.2))
