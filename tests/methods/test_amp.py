"""AMP: gradient ascent inside one ball per tensor."""

import jax.numpy as jnp
import numpy as np
import pytest

from pugd_optax import amp
from tests.problems import B, W, assert_follows


def project(v, bound):
    out = v.copy()
    for part in (B, W):
        length = np.linalg.norm(v[part])
        out[part] = v[part] * min(1.0, bound / length) if length > 0 else 0.0
    return out


def amp_rule(epsilon, zeta, steps, keep=slice(None)):
    def rule(t, w, grad):
        delta = np.zeros_like(w)
        for _ in range(steps):
            g = np.zeros_like(w)
            g[keep] = grad(w + delta)[keep]
            delta = project(delta + zeta * g, epsilon)
        return grad(w + delta)

    return rule


@pytest.mark.parametrize(("epsilon", "zeta", "steps"), [(0.5, 1.0, 1), (0.2, 1.0, 3), (50.0, 0.125, 2)])
def test_formula(epsilon, zeta, steps):
    assert_follows(amp(epsilon, zeta, steps), amp_rule(epsilon, zeta, steps))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_masked_parameters_stay_in_inner_steps_too(steps):
    assert_follows(amp(0.4, 0.7, steps, mask={"b": False, "w": True}), amp_rule(0.4, 0.7, steps, keep=W))


def test_schedules():
    radius = lambda t: 0.125 * (t + 1)

    def rule(t, w, grad):
        return amp_rule(radius(t), 1.0, 2)(t, w, grad)

    assert_follows(amp(radius, steps=2), rule, rtol=1e-6)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_tensor_with_a_number_that_is_not_finite_stays_in_its_ball(broken):
    """No entry of it moves, as its norm is not finite; other tensors move as usual."""
    g = {"a": jnp.array([broken, 100.0]), "b": jnp.array([3.0, 4.0])}
    tx, seen = amp(epsilon=0.5), []
    tx.update(g, tx.init(g), {"a": jnp.ones(2), "b": jnp.ones(2)}, grad_fn=lambda p: seen.append(p) or g)
    np.testing.assert_array_equal(seen[0]["a"], 1)
    np.testing.assert_allclose(seen[0]["b"], [1.3, 1.4], rtol=1e-6)


def test_costs_one_gradient_for_each_inner_step():
    calls = []
    tx, params = amp(steps=3), {"w": jnp.ones(3)}
    tx.update(params, tx.init(params), params, grad_fn=lambda p: calls.append(1) or p)
    assert len(calls) == 3, "two further inner steps and the last gradient; the first one is given"
