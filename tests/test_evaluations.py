"""Alternatives to the gradient at the perturbed point: two-sided differences and the Hessian."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import reevaluate, sam
from pugd_optax.evaluations import evaluate_by, hessian_vector_product, two_sided_difference, two_sided_mean

A = np.array([[2.0, 1.0], [1.0, 3.0]])
cubic = lambda w: jnp.asarray(A) @ w**2


@pytest.mark.parametrize(("evaluation", "sign"), [(two_sided_mean, 1), (two_sided_difference, -1)])
def test_two_sides(x64, evaluation, sign):
    w, eps = np.array([1.0, -2.0]), np.array([0.5, 0.25])
    tx = evaluate_by(evaluation, reevaluate(optax.identity()))
    u, _ = tx.update(jnp.asarray(eps), tx.init(jnp.asarray(w)), jnp.asarray(w), grad_fn=cubic)
    np.testing.assert_allclose(u, (A @ (w + eps) ** 2 + sign * A @ (w - eps) ** 2) / 2, rtol=1e-12)


def test_hessian_vector_product_over_a_tree(x64):
    loss = lambda p: jnp.sum(p["a"] ** 3) * p["b"]
    w, v = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(0.5)}, {"a": jnp.array([1.0, -1.0]), "b": jnp.array(2.0)}
    product = hessian_vector_product(jax.grad(loss), w, v)
    a, b = np.array([1.0, 2.0]), 0.5
    np.testing.assert_allclose(product["a"], 6 * a * b * np.array([1.0, -1.0]) + 3 * a**2 * 2.0, rtol=1e-12)
    np.testing.assert_allclose(product["b"], 3 * a**2 @ np.array([1.0, -1.0]), rtol=1e-12)


def test_hessian_vector_product_takes_shorter_directions():
    product = hessian_vector_product(jax.grad(lambda w: jnp.sum(w**2)), jnp.ones(2), jnp.ones(2, jnp.bfloat16))
    assert product.tolist() == [2.0, 2.0]


def test_gate_override_and_radius_of_the_method_still_work():
    w = jnp.array([1.0, -2.0])
    tx = evaluate_by(two_sided_mean, sam(0.25, when=lambda step: step > 0))
    calls = []
    grad_fn = lambda p: calls.append(p) or cubic(p)
    _, state = tx.update(cubic(w), tx.init(w), w, grad_fn=grad_fn, active=False)
    assert (len(calls), float(state.radius)) == (0, 0.0)
    _, state = tx.update(cubic(w), state, w, grad_fn=grad_fn, active=True)
    assert (len(calls), float(state.radius)) == (2, 0.25)


def test_the_opposite_point_is_as_far_as_the_rounded_one():
    """A bfloat16 weight of 100 moves in steps of 0.5, and so does its mirror image: a linear gradient stays exact."""
    seen = []

    def gradient(w):
        seen.append(w)
        return w

    w = jnp.array([100.0], jnp.bfloat16)
    tx = evaluate_by(two_sided_mean, reevaluate(optax.identity()))
    u, _ = tx.update(jnp.array([0.4], jnp.bfloat16), tx.init(w), w, grad_fn=gradient)
    assert [float(x[0]) for x in seen] == [100.5, 99.5]
    assert u.tolist() == [100.0]
