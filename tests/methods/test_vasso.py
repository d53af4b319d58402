"""VaSSO against its formula, with the running mean carried from step to step."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import sam, timing, vasso
from tests.problems import START, W, assert_follows, assert_same, unit


def vasso_rule(radius, theta, active=lambda t: True, keep=slice(None)):
    d = None

    def rule(t, w, grad):
        nonlocal d
        g = grad(w)
        if not active(t):
            return g
        d = g if d is None else (1 - theta) * d + theta * g
        eps = np.zeros_like(START)
        eps[keep] = radius * unit(d[keep])
        return grad(w + eps)

    return rule


@pytest.mark.parametrize(("radius", "theta"), [(0.05, 0.4), (0.5, 0.9)])
def test_formula(radius, theta):
    assert_follows(vasso(radius, theta), vasso_rule(radius, theta))


def test_the_mean_rests_on_inactive_steps():
    assert_follows(vasso(0.3, when=timing.every(2, offset=1)), vasso_rule(0.3, 0.4, lambda t: t % 2 == 1))


def test_the_mean_starts_at_the_first_finite_gradient():
    """A non-finite gradient neither enters the mean nor counts as the first one."""
    tx, g = vasso(), jnp.array([3.0, -4.0])
    grad_fn = lambda w: g
    _, state = tx.update(g.at[0].set(jnp.nan), tx.init(g), g, grad_fn=grad_fn)
    _, state = tx.update(g, state, g, grad_fn=grad_fn)
    np.testing.assert_array_equal(optax.tree.get(state, "mean"), g)


def test_mask():
    assert_follows(vasso(0.3, mask={"b": False, "w": True}), vasso_rule(0.3, 0.4, keep=W))


def test_without_memory_it_is_sam():
    assert_same(vasso(0.3, theta=1.0), sam(0.3))
