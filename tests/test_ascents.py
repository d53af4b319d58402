"""Ascents against NumPy."""

# Optax types every tree as a union that cannot be subscripted, and schedules take any ArrayLike.
# pyright: reportIndexIssue=false, reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import dual_norm, normalize, projected_ascent, restrict, scale_by_abs_params
from pugd_optax.ascents import ObservingAscent, offset

G = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[4.0], [12.0]]), "c": jnp.zeros(3)}
W = {"a": jnp.array([-2.0, 1.0]), "b": jnp.array([[0.0], [0.5]]), "c": jnp.ones(3)}


def ascend(tx, g=G, w=W, **extra):
    return optax.with_extra_args_support(tx).update(g, tx.init(w), w, **extra)[0]


def assert_close(tree, expected, rtol=1e-6):
    """Compares a tree with one whose leaves may be lists."""
    chex.assert_trees_all_close(tree, jax.tree.map(lambda x, y: np.asarray(y, x.dtype), tree, expected), rtol=rtol)


def test_normalize_as_a_whole_and_by_tensor():
    assert_close(ascend(normalize()), jax.tree.map(lambda g: np.asarray(g) / 13.0, G))
    by_tensor = {"a": [1.0, 0.0], "b": np.array([[4.0], [12.0]]) / np.sqrt(160), "c": np.zeros(3)}
    assert_close(ascend(normalize(per_tensor=True)), by_tensor)


@pytest.mark.parametrize("eta", [0.0, 0.25])
def test_scale_by_abs_params(eta):
    expected = jax.tree.map(lambda g, w: np.asarray(g) * (np.abs(w) + eta), G, W)
    assert_close(ascend(scale_by_abs_params(eta)), expected)
    some = {"a": True, "b": False, "c": True}
    assert_close(ascend(scale_by_abs_params(eta, mask=some)), expected | {"b": G["b"]})
    schedule = lambda step: eta * step
    assert_close(ascend(scale_by_abs_params(schedule), step=jnp.int32(1)), expected)


def test_scaled_products_do_not_leave_half_precision():
    """The product 300 x 400 overflows float16, but its direction is computed correctly."""
    g, w = {"a": jnp.array([300.0, 400.0], jnp.float16)}, {"a": jnp.array([400.0, 300.0], jnp.float16)}
    direction = ascend(optax.chain(scale_by_abs_params(), normalize()), g, w)
    np.testing.assert_allclose(direction["a"], np.sqrt(0.5), rtol=1e-3)


def test_restrict_hides_the_rest_from_norms():
    for mask in ({"a": True, "b": False, "c": False}, lambda w: {"a": True, "b": False, "c": False}):
        assert_close(ascend(restrict(normalize(), mask)), {"a": [1.0, 0.0], "b": [[0.0], [0.0]], "c": np.zeros(3)})
    assert_close(ascend(restrict(normalize(), None)), ascend(normalize()))


def test_restrict_hides_the_rest_from_inner_gradients():
    seen = []

    def grad_fn(w):
        seen.append(w)
        return G

    tx = restrict(projected_ascent(0.5, steps=3), {"a": True, "b": False, "c": True})
    eps = ascend(tx, grad_fn=grad_fn)
    assert len(seen) == 2
    assert all((w["b"] == W["b"]).all() for w in seen)
    assert_close(eps, {"a": [0.5, 0.0], "b": [[0.0], [0.0]], "c": np.zeros(3)})


def test_restrict_hides_the_rest_from_what_is_observed():
    """An ascent along the last perturbed gradient is as long as its selected part alone."""
    zeros = lambda w: jax.tree.map(jnp.zeros_like, w)
    along = ObservingAscent(zeros, lambda g, last, w=None, **extra: (last, last), lambda last, g_star: g_star)
    for mask in ({"a": True, "b": False, "c": False}, lambda w: {"a": True, "b": False, "c": False}):
        tx = restrict(normalize(along), mask)
        eps, _ = tx.update(G, tx.observe(tx.init(W), G), W)
        assert_close(eps, {"a": [1.0, 0.0], "b": [[0.0], [0.0]], "c": np.zeros(3)})


def test_restrict_refuses_another_structure():
    with pytest.raises(ValueError, match="mask has another structure"):
        ascend(restrict(normalize(), {"a": True}))


def test_projected_ascent_shortens_and_does_not_stretch():
    g = {"a": jnp.array([0.3, 0.4]), "b": jnp.array([[30.0], [40.0]]), "c": jnp.zeros(3)}
    eps = ascend(projected_ascent(1.0), g)
    assert_close(eps, {"a": [0.3, 0.4], "b": [[0.6], [0.8]], "c": np.zeros(3)})
    schedules = projected_ascent(lambda step: 0.25 * step, lambda step: 0.2 * step)  # a is within the bound, b is not
    assert_close(ascend(schedules, g, step=jnp.int32(2)), {"a": [0.12, 0.16], "b": [[0.3], [0.4]], "c": np.zeros(3)})


def test_offset_adds_in_float32_and_says_what_bfloat16_loses():
    w = {"a": jnp.array([100.0], jnp.bfloat16)}
    assert offset(w, {"a": jnp.array([0.02])})["a"] == 100.0
    assert offset(w, {"a": jnp.array([0.3])})["a"] == 100.5
    assert offset(w, {"a": jnp.array([0.3])})["a"].dtype == jnp.bfloat16


def test_complex_parameters():
    g, w = {"a": jnp.array([3.0 + 4.0j, 0.0])}, {"a": jnp.array([1.0 - 1.0j, 2.0])}
    assert_close(ascend(normalize(), g, w), {"a": np.array([0.6 + 0.8j, 0.0])})
    assert_close(ascend(scale_by_abs_params(), g, w), {"a": np.array([3.0 + 4.0j, 0.0]) * np.sqrt(2.0)})
    assert_close(offset(w, {"a": jnp.array([1.0j, 1.0])}), {"a": np.array([1.0 + 0.0j, 3.0])})


@pytest.mark.parametrize("p", [1, 1.05, 1.5, 2, 3, 50.0, np.inf])
@pytest.mark.parametrize("size", [1e-15, 1.0, 1e15])
def test_dual_norm_is_the_steepest_direction_of_its_ball(p, size):
    """The perturbation has p-norm 1, and its product with g is the dual q-norm of g, the maximum by Hoelder."""
    g = np.random.default_rng(0).normal(size=11)
    tree = {"a": jnp.asarray(size * g[:4], jnp.float32), "b": jnp.asarray(size * g[4:].reshape(7, 1), jnp.float32)}
    eps = np.concatenate([np.ravel(x) for x in ascend(dual_norm(p), tree, tree).values()]).astype(np.float64)
    q = np.inf if p == 1 else 1.0 if p == np.inf else p / (p - 1)
    np.testing.assert_allclose(np.linalg.norm(eps, p), 1, rtol=1e-5)
    np.testing.assert_allclose(eps @ g, np.linalg.norm(g, q), rtol=1e-5)


@pytest.mark.parametrize("p", [1, 1.5, 3, np.inf])
def test_dual_norm_by_tensor_and_of_zero(p):
    by_tensor = ascend(dual_norm(p, per_tensor=True))
    assert_close(by_tensor, {k: ascend(dual_norm(p), {"x": G[k]}, {"x": W[k]})["x"] for k in G})
    assert not by_tensor["c"].any()


def test_dual_norm_shares_among_the_largest_and_meets_its_neighbours():
    tied = {"a": jnp.array([2.0, -2.0]), "b": jnp.array([1.0])}
    assert_close(ascend(dual_norm(1), tied, tied), {"a": [0.5, -0.5], "b": [0.0]})
    assert_close(ascend(dual_norm(2)), ascend(normalize()))
    assert_close(ascend(dual_norm(1e6), tied, tied), ascend(dual_norm(np.inf), tied, tied), rtol=1e-4)
    turned = {"a": jnp.array([3.0 + 4.0j, 0.0])}
    assert_close(ascend(dual_norm(3.0), turned, turned), {"a": np.array([0.6 + 0.8j, 0.0])})


@pytest.mark.parametrize("excess", [1e-7, 1e-9, 1e-12])
def test_dual_norm_just_above_one_moves_the_largest_entry(excess):
    """A power of 1e9 or more would make a share that is off by one rounding 0 or infinite."""
    for seed in range(20):
        g = jnp.asarray(np.random.default_rng(seed).normal(size=5), jnp.float32)
        assert_close(ascend(dual_norm(1 + excess), g, g), ascend(dual_norm(1), g, g))


def test_dual_norm_refuses_what_is_no_norm():
    with pytest.raises(ValueError, match=r"p=0\.5: expected a number in \[1, inf\].*Fix"):
        dual_norm(0.5)
    for wrong in ("2", True, jnp.float32(2.0)):
        with pytest.raises(TypeError, match=r"p=.*expected a Python number"):
            dual_norm(wrong)
