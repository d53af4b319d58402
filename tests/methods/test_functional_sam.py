"""Functional SAM against its formula, and on linear models, where it changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pugd_optax
from pugd_optax import functional_sam
from tests.logit_problem import ahead, assert_follows, cotangent, logits, pull_back


@pytest.mark.parametrize("radius", [0.05, 0.7])
def test_formula(radius):
    def rule(w, x, labels):
        c = cotangent(logits(w, x), labels)
        return pull_back(ahead(w, radius, pull_back(w, x, c)), x, c)

    assert_follows(functional_sam(radius), rule)


def test_a_linear_model_has_one_jacobian():
    """The Jacobian of a linear model is constant, so the output is the gradient; a custom loss needs no labels."""
    x, w = jnp.arange(6.0).reshape(3, 2), jnp.ones((2, 2))
    logits_fn, logit_loss = lambda w: x @ w, lambda u: jnp.sum(u**4)
    g = jax.grad(lambda w: logit_loss(logits_fn(w)))(w)
    tx: optax.GradientTransformationExtraArgs = functional_sam(0.5)
    u, _ = tx.update(g, tx.init(w), w, logits_fn=logits_fn, logit_loss=logit_loss)
    np.testing.assert_allclose(jnp.asarray(u), g, rtol=1e-6)


@pytest.mark.parametrize("around", [pugd_optax.lpg, pugd_optax.lpl])
def test_inside_lpg_the_gradient_at_the_logits_is_the_perturbed_one(around):
    """The Jacobian of a linear model is constant, so Functional SAM returns the gradient of LPG or LPL unchanged."""
    x, y, w = jnp.arange(12.0).reshape(6, 2) / 6, jnp.array([0, 1, 2, 0, 0, 1]), jnp.array([[1.0, -1.0, 0.5]] * 2)
    given = {"logits_fn": lambda w: x @ w, "labels": y}
    g = jax.grad(lambda w: optax.softmax_cross_entropy_with_integer_labels(x @ w, y).mean())(w)

    def output(**inner):
        tx = around(3, eps=0.5, **inner)
        return jax.jit(lambda w: tx.update(g, tx.init(w), w, **given)[0])(w)

    np.testing.assert_allclose(output(inner=functional_sam(0.5)), output(), rtol=1e-5, atol=1e-6)
    assert jnp.abs(output() - g).max() > 1e-3
