"""ZSharp against its formula."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from pugd_optax import sam, zsharp
from tests.problems import START, B, W, assert_follows, unit


def z_scores(x):
    return np.abs(x - x.mean()) / x.std()


@pytest.mark.parametrize(("radius", "quantile"), [(0.1, 0.5), (0.5, 0.8)])
def test_formula(radius, quantile):
    def rule(t, w, grad):
        g = grad(w)
        z = np.concatenate([z_scores(g[B]), z_scores(g[W])])
        return grad(w + radius * unit(np.where(z > np.quantile(z, quantile), g, 0)))

    assert_follows(zsharp(radius, quantile), rule)


def test_a_mask_takes_the_others_out_of_the_quantile():
    def rule(t, w, grad):
        g, eps = grad(w), np.zeros_like(START)
        z = z_scores(g[W])
        eps[W] = 0.3 * unit(np.where(z > np.quantile(z, 0.5), g[W], 0))
        return grad(w + eps)

    assert_follows(zsharp(0.3, 0.5, mask={"b": False, "w": True}), rule)


def test_where_nothing_stands_out_it_is_sam():
    """No entry stands out in a leaf of one or two entries, so ZSharp equals SAM."""
    w = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([0.5])}
    grad_fn = lambda p: {k: v**3 for k, v in p.items()}
    ours, theirs = (tx.update(grad_fn(w), tx.init(w), w, grad_fn=grad_fn)[0] for tx in (zsharp(0.1), sam(0.1)))
    chex.assert_trees_all_close(ours, theirs, rtol=1e-6)
