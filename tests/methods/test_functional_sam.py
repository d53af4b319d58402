"""Functional SAM against its formula, and where it has nothing to do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pugd_optax import functional_sam
from tests.logit_problem import ahead, assert_follows, cotangent, logits, pull_back


@pytest.mark.parametrize("radius", [0.05, 0.7])
def test_formula(radius):
    def rule(w, x, labels):
        c = cotangent(logits(w, x), labels)
        return pull_back(ahead(w, radius, pull_back(w, x, c)), x, c)

    assert_follows(functional_sam(radius), rule)


def test_a_linear_model_has_one_jacobian():
    """So that nothing changes, with a loss of one's own and without labels."""
    x, w = jnp.arange(6.0).reshape(3, 2), jnp.ones((2, 2))
    logits_fn, logit_loss = lambda w: x @ w, lambda u: jnp.sum(u**4)
    g = jax.grad(lambda w: logit_loss(logits_fn(w)))(w)
    tx: optax.GradientTransformationExtraArgs = functional_sam(0.5)
    u, _ = tx.update(g, tx.init(w), w, logits_fn=logits_fn, logit_loss=logit_loss)
    np.testing.assert_allclose(jnp.asarray(u), g, rtol=1e-6)
