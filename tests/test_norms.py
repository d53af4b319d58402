"""Norms against float64 NumPy, at every scale and dtype."""

# Optax types every tree as a union that cannot be subscripted, and schedules take any ArrayLike.
# pyright: reportIndexIssue=false, reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pugd_optax
from pugd_optax._norms import Norms, multiply, norm, unit, vdot

X = np.random.default_rng(4).normal(size=(3, 5))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_norm_is_summed_in_float32(dtype, scale):
    tree = {"a": jnp.asarray(X * scale, dtype), "b": [jnp.asarray(scale, dtype), jnp.zeros((0, 2), dtype)]}
    exact = np.sqrt(sum((np.asarray(x, np.float64) ** 2).sum() for x in jax.tree.leaves(tree)))
    assert norm(tree).dtype == jnp.float32
    np.testing.assert_allclose(norm(tree), exact, rtol=1e-6)
    flat = np.concatenate([np.ravel(x).astype(np.float64) for x in jax.tree.leaves(unit(tree))])
    np.testing.assert_allclose(np.linalg.norm(flat), 1.0, rtol={"float32": 1e-6, "float16": 2e-3}.get(dtype, 1e-2))


@pytest.mark.parametrize("scale", [1e-18, 1e-10, 1e10, 1e18])
def test_norm_in_the_documented_range(scale):
    tree = [jnp.asarray(X * scale, jnp.float32)]
    np.testing.assert_allclose(norm(tree), np.linalg.norm(X) * scale, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(unit(tree)[0]), 1.0, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(norm)(tree), norm(tree), rtol=1e-6)


@pytest.mark.parametrize(("scale", "length"), [(1e-30, 0.0), (1e-24, 0.0), (1e21, np.inf), (1e37, np.inf)])
def test_beyond_it_a_norm_is_zero_or_infinite_and_the_unit_vector_zero(scale, length):
    tree = [jnp.asarray(X * scale, jnp.float32)]
    assert norm(tree) == length
    assert not unit(tree)[0].any()


def test_norm_of_float16_near_its_end():
    np.testing.assert_allclose(norm([jnp.full(4, 6e4, jnp.float16)]), 1.2e5, rtol=1e-3)


@pytest.mark.parametrize("scale", [1e-150, 1e-30, 1.0, 1e30, 1e150])
def test_norm_in_float64_and_with_mixed_leaves(scale, x64):
    tree = {"double": jnp.asarray(X * scale), "single": jnp.zeros(3, jnp.float32), "half": jnp.zeros(2, jnp.float16)}
    assert norm(tree).dtype == jnp.float64
    np.testing.assert_allclose(norm(tree), np.linalg.norm(X) * scale, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(unit(tree)["double"]), 1.0, rtol=1e-12)
    assert not np.isnan(unit(tree)["single"]).any(), "a float64 norm below float32's smallest number is no zero"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_norm_is_not_finite_exactly_if_a_number_is_not(bad):
    tree = {"a": jnp.asarray(X, jnp.float32).at[1, 1].set(bad), "b": jnp.ones(2)}
    assert not np.isfinite(norm(tree))
    broken = np.isnan(unit(tree)["a"])
    assert broken[1, 1], "what is not finite stays so"
    assert broken.all() == np.isnan(bad)


def test_empty_and_zero_trees():
    for tree in ({}, (), [jnp.zeros((0, 3))], {"a": jnp.zeros(3), "b": jnp.zeros(())}):
        assert norm(tree) == 0.0
        chex.assert_trees_all_equal(unit(tree), tree)


def test_the_inner_product_keeps_its_sign_and_its_digits():
    rng = np.random.default_rng(5)
    for _ in range(20):
        a, b = rng.normal(size=(2, 3, 7)).astype(np.float32)
        exact = np.vdot(a.astype(np.float64), b.astype(np.float64))
        np.testing.assert_allclose(vdot([jnp.asarray(a)], [jnp.asarray(b)]), exact, rtol=1e-5, atol=1e-6)
    norms = Norms([jnp.array([3.0, 4.0])], [jnp.array([-4.0, 0.0])])
    np.testing.assert_allclose([norms.g, norms.g_star, norms.dot, norms.cosine], [5.0, 4.0, -12.0, -0.6], rtol=1e-6)
    assert Norms([jnp.zeros(2)], [jnp.ones(2)]).cosine == 0.0


def test_complex_numbers_count_as_two(x64):
    a, b = X + 1j * X[::-1], X[:, ::-1] - 2j * X
    np.testing.assert_allclose(norm([jnp.asarray(a)]), np.linalg.norm(a), rtol=1e-12)
    np.testing.assert_allclose(vdot([jnp.asarray(a)], [jnp.asarray(b)]), np.vdot(a, b).real, rtol=1e-12)
    single = norm([jnp.asarray(a, jnp.complex64), jnp.ones(2, jnp.float32)])
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, np.hypot(np.linalg.norm(a), np.sqrt(2)), rtol=1e-6)


def test_strict_promotion_with_mixed_leaves(strict_dtypes, x64):
    tree = [jnp.ones(2, d) for d in (jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16)]
    np.testing.assert_allclose(norm(tree), np.sqrt(8), rtol=1e-12)
    assert [x.dtype for x in unit(tree)] == [x.dtype for x in tree]


@pytest.mark.parametrize("method", [pugd_optax.sam, pugd_optax.pugd, pugd_optax.looksam, pugd_optax.normalize])
def test_outside_jit_no_branch_is_compiled(method, monkeypatch):
    """Outside jit, `lax.cond` is not called, as it would compile closures over arrays again at every step."""
    gradient = jax.grad(lambda w: jnp.sum(w**4))
    tx, w = method(), jnp.array([1.0, 2.0])
    state = tx.init(w)
    inside = jax.jit(lambda g, state, w: tx.update(g, state, w, grad_fn=gradient))(gradient(w), state, w)
    monkeypatch.setattr(jax.lax, "cond", lambda *_: pytest.fail("compiled"))
    outside = tx.update(gradient(w), state, w, grad_fn=gradient)
    chex.assert_trees_all_close(outside, inside, rtol=1e-6)


def test_a_whole_number_times_a_tree_stays_in_its_precision():
    for x in (jnp.float32(1.5), jnp.bfloat16(1.5)):
        assert multiply(jnp.int32(3), x) == 4.5  # warnings are errors: NumPy would make it float64
        assert multiply(jnp.int32(3), x).dtype == x.dtype
