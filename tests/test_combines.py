"""Combines against NumPy."""

# Optax types every tree as a union that cannot be subscripted, and schedules take any ArrayLike.
# pyright: reportIndexIssue=false, reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pugd_optax import combines, decompose, mix, replace, unit_sum
from tests.problems import unit

_random = np.random.default_rng(3)
FLAT, FLAT_STAR = _random.normal(size=7), _random.normal(size=7)


def tree(flat, dtype=jnp.float32):
    return {"a": jnp.asarray(flat[:4].reshape(2, 2), dtype), "b": jnp.asarray(flat[4:], dtype)}


def flat(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]).astype(np.float64)


G, G_STAR = tree(FLAT), tree(FLAT_STAR)


def check(combine, expected, **step):
    np.testing.assert_allclose(flat(combine(G, G_STAR, **step)), expected, rtol=2e-5, atol=1e-6)


def test_replace():
    assert replace(G, G_STAR) is G_STAR


@pytest.mark.parametrize(("a", "b"), [(0.2, 0.8), (-8.0, 9.0), (1, 0), (0, 1), (0.0, 0.0)])
def test_mix(a, b):
    check(mix(a, b), a * FLAT + b * FLAT_STAR)
    check(mix(lambda step: a * step, lambda step: b), 3 * a * FLAT + b * FLAT_STAR, step=jnp.int32(3))
    traced = jax.jit(lambda a, b: mix(a, b)(G, G_STAR))(a, b)
    np.testing.assert_allclose(flat(traced), a * FLAT + b * FLAT_STAR, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 0.25, 1.0, 1e6, 1e30])
def test_unit_sum(scale):
    check(unit_sum(scale), unit(scale * FLAT + FLAT_STAR))
    check(unit_sum(lambda step: scale * step), unit(2 * scale * FLAT + FLAT_STAR), step=jnp.int32(2))


def test_unit_sum_where_the_sum_cancels():
    """A small difference of large vectors is scaled to unit length, and a zero difference stays zero."""
    small = 1e-3 * FLAT_STAR
    u = unit_sum(1.0)(G, tree(-FLAT + small))
    np.testing.assert_allclose(np.linalg.norm(flat(u)), 1.0, rtol=1e-5)
    np.testing.assert_allclose(flat(u) @ unit(small), 1.0, rtol=1e-5)
    assert not flat(unit_sum(1.0)(G, jax.tree.map(jnp.negative, G))).any()


@pytest.mark.parametrize("factor", [np.nan, np.inf, 1e20])
@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0, "norm_ratio", lambda step: 0.5])
def test_unit_sum_of_what_has_no_finite_norm_is_the_new_gradient(scale, factor):
    star = tree(FLAT_STAR * factor)
    np.testing.assert_array_equal(flat(unit_sum(scale)(G, star)), flat(star))


def test_unit_sum_rules():
    ratio = np.linalg.norm(FLAT_STAR) / np.linalg.norm(FLAT)
    check(unit_sum("norm_ratio"), unit(ratio * FLAT + FLAT_STAR))
    cosine = unit(FLAT) @ unit(FLAT_STAR)
    check(unit_sum("cosine"), unit(max(cosine, 0.0) * FLAT + FLAT_STAR))
    turned = jax.tree.map(lambda x, y: y - 3.0 * x, G, G_STAR)
    assert FLAT @ flat(turned) < 0
    np.testing.assert_allclose(flat(unit_sum("cosine")(G, turned)), unit(flat(turned)), rtol=1e-5, atol=1e-6)


def test_unit_sum_of_large_halves():
    """The sum 60000 + 60000 overflows float16, but its unit vector is computed correctly."""
    g = {"a": jnp.full(2, 6e4, jnp.float16)}
    u = unit_sum(1.0)(g, g)["a"]
    assert u.dtype == jnp.float16
    np.testing.assert_allclose(u, np.sqrt(0.5), rtol=1e-3)


@pytest.mark.parametrize("alpha", [0.0, 0.4, -2.0])
def test_decompose(alpha):
    orthogonal = FLAT - (FLAT @ FLAT_STAR) / (FLAT_STAR @ FLAT_STAR) * FLAT_STAR
    check(decompose(alpha), FLAT_STAR - alpha * orthogonal)
    check(decompose(lambda step: alpha * step), FLAT_STAR - 2 * alpha * orthogonal, step=jnp.int32(2))


@pytest.mark.parametrize("scale", [1e-17, 1e-12, 1.0, 1e15, 1e18])
def test_every_combine_is_homogeneous(scale):
    """Scaling both gradients scales a mix and leaves a unit vector, if their squares are within float32."""
    g, g_star = tree(scale * FLAT), tree(scale * FLAT_STAR)
    for combine in (mix(0.3, 0.7), decompose(0.4)):
        np.testing.assert_allclose(flat(combine(g, g_star)) / scale, flat(combine(G, G_STAR)), rtol=1e-4, atol=1e-5)
    for combine in (unit_sum(0.5), unit_sum("norm_ratio"), unit_sum("cosine")):
        np.testing.assert_allclose(flat(combine(g, g_star)), flat(combine(G, G_STAR)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(combines.cosine(g, g_star), unit(FLAT) @ unit(FLAT_STAR), rtol=1e-4)


def test_zero_gradients_give_zero():
    zero = jax.tree.map(jnp.zeros_like, G)
    for combine in (mix(0.3, 0.7), unit_sum(1.0), unit_sum("norm_ratio"), unit_sum("cosine"), decompose(0.4)):
        assert not flat(combine(zero, zero)).any()
        assert np.isfinite(flat(combine(zero, G))).all()
        assert np.isfinite(flat(combine(G, zero))).all()


def test_complex_gradients():
    g, g_star = {"a": jnp.array([1.0 + 1.0j])}, {"a": jnp.array([1.0 - 1.0j])}
    np.testing.assert_allclose(unit_sum(1.0)(g, g_star)["a"], [1.0 + 0.0j], rtol=1e-6)
    np.testing.assert_allclose(combines.cosine(g, g_star), 0.0, atol=1e-7)
    np.testing.assert_allclose(decompose(0.5)(g, g_star)["a"], [0.5 - 1.5j], rtol=1e-6)


def test_a_weight_of_zero_drops_its_term_even_if_it_is_not_finite():
    """A weight of zero drops its term as a Python number and as a traced one."""
    broken = jax.tree.map(lambda x: x * jnp.inf, G)
    for combine in (lambda a: mix(a, 1.0)(broken, G_STAR), jax.jit(lambda a: mix(a, 1.0)(broken, G_STAR))):
        np.testing.assert_array_equal(flat(combine(0.0)), flat(G_STAR))
