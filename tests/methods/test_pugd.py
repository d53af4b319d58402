"""PUGD against its formula, its limiting cases, and its relations to other methods."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import normalize, pugd
from tests.problems import W, assert_follows, assert_same, unit


def pugd_rule(radius, scale):
    def rule(t, w, grad):
        g = grad(w)
        g_star = grad(w + radius(t) * unit(np.abs(w) * g))
        return unit(scale(t) * g + g_star)

    return rule


@pytest.mark.parametrize(("radius", "scale"), [(1.0, 1.0), (0.3, 0.25), (2.0, 0.0)])
def test_formula(radius, scale):
    assert_follows(pugd(radius, scale), pugd_rule(lambda t: radius, lambda t: scale))


def test_schedules():
    radius, scale = (lambda t: 0.25 * t), (lambda t: 2.0 - 0.25 * t)
    assert_follows(pugd(radius, scale), pugd_rule(radius, scale), rtol=1e-6)


def test_adaptive_scales():
    def rule_for(scale):
        def rule(t, w, grad):
            g = grad(w)
            g_star = grad(w + unit(np.abs(w) * g))
            return unit(scale(g, g_star) * g + g_star)

        return rule

    norm_ratio = lambda g, g_star: np.linalg.norm(g_star) / np.linalg.norm(g)
    assert_follows(pugd(scale="norm_ratio"), rule_for(norm_ratio))
    assert_follows(pugd(scale="cosine"), rule_for(lambda g, g_star: max(0.0, unit(g) @ unit(g_star))))


def test_mask():
    def rule(t, w, grad):
        g = grad(w)
        eps = np.zeros_like(w)
        eps[W] = unit(np.abs(w[W]) * g[W])
        return unit(g + grad(w + eps))

    assert_follows(pugd(mask={"b": False, "w": True}), rule)


def test_infinite_scale_is_normalised_gradient_descent():
    assert_same(pugd(scale=1e12), normalize())


def test_a_common_factor_of_the_gradients_cancels():
    """A loss multiplied by a positive number has the same output: it depends only on the ratio of g and g*."""
    tx, triple = pugd(0.5), lambda g: optax.tree.scale(3.0, g)

    def update(g, state, params, *, grad_fn):
        return tx.update(triple(g), state, params, grad_fn=lambda p: triple(grad_fn(p)))

    assert_same(optax.GradientTransformationExtraArgs(tx.init, update), tx)


@pytest.mark.parametrize(("idle", "rest"), [("unit", unit), ("raw", lambda g: g)])
def test_inactive_steps(idle, rest):
    active = pugd_rule(lambda t: 1.0, lambda t: 1.0)
    rule = lambda t, w, grad: active(t, w, grad) if t >= 3 else rest(grad(w))
    assert_follows(pugd(when=lambda t: t >= 3, idle=idle), rule)


def test_reuse_turns_the_next_gradient_as_the_second_one_turned_the_first():
    tx = pugd(0.5, idle="reuse")
    w, grad_fn = jnp.array([1.0, 2.0]), jax.grad(lambda w: w[0] ** 4 + w[0] * w[1])
    g = grad_fn(w)
    u, state = tx.update(g, tx.init(w), w, grad_fn=grad_fn, active=True)
    turned = u - (u @ g) / (g @ g) * g
    np.testing.assert_allclose(state.combine, turned, atol=1e-6)
    now = jnp.array([0.3, -0.4])
    u, state = tx.update(now, state, w, grad_fn=grad_fn, active=False)
    expected = now + 0.5 * turned
    np.testing.assert_allclose(u, expected / np.linalg.norm(expected), atol=1e-6)
    np.testing.assert_allclose(state.combine, turned, atol=1e-6)


def test_a_broken_active_step_leaves_nothing_to_reuse():
    """After an active step that is not finite, inactive steps return the unit gradient."""
    tx, w = pugd(0.5, idle="reuse"), jnp.array([1.0, 2.0])
    grad_fn = jax.grad(lambda w: w[0] ** 4 + w[0] * w[1])
    for bad in (jnp.nan, jnp.inf):
        _, state = tx.update(grad_fn(w), tx.init(w), w, grad_fn=lambda p, bad=bad: p.at[0].set(bad), active=True)
        u, _ = tx.update(jnp.array([3.0, 4.0]), state, w, grad_fn=grad_fn, active=False)
        np.testing.assert_allclose(u, [0.6, 0.8], rtol=1e-6)
