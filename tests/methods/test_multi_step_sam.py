"""Multi-step SAM against its formula."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import multi_step_sam, sam
from tests.problems import B, assert_follows, assert_same, unit


def rule(radius, steps, keep=lambda v: v):
    def follow(t, w, grad):
        eps = np.zeros_like(w)
        for _ in range(steps):
            eps = eps + radius(t) / steps * unit(keep(grad(w + eps)))
        return grad(w + eps)

    return follow


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_follows_the_formula(steps):
    assert_follows(multi_step_sam(0.5, steps), rule(lambda t: 0.5, steps))


def test_one_step_is_sam():
    assert_same(multi_step_sam(0.25, 1), sam(0.25))


def test_radius_may_be_a_schedule():
    assert_follows(multi_step_sam(lambda t: 0.5 / 2**t, 3), rule(lambda t: 0.5 / 2**t, 3))


def test_mask_holds_inside_the_ascent():
    """Every ascent step takes its norm over the selected parameters only and leaves the others where they are."""

    def keep(v):
        v = v.copy()
        v[B] = 0
        return v

    assert_follows(multi_step_sam(0.5, 3, mask={"b": False, "w": True}), rule(lambda t: 0.5, 3, keep))


def test_zero_gradients_stay_zero():
    w = jnp.zeros(3)
    tx = multi_step_sam(steps=3)
    u, state = tx.update(w, tx.init(w), w, grad_fn=lambda p: 2 * p)
    assert u.tolist() == [0.0] * 3
    assert optax.tree.get(state, "active")


@pytest.mark.parametrize(("given", "message"), [({"radius": -1}, "radius=-1"), ({"steps": 0}, "steps=0")])
def test_refuses_bad_arguments(given, message):
    with pytest.raises(ValueError, match=message):
        multi_step_sam(**given)
