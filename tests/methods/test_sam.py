"""SAM against its formula and against the SAM of Optax."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from pugd_optax import sam
from tests.problems import START, B, assert_follows, batch, loss, start, unit


@pytest.mark.parametrize("radius", [0.05, 0.7])
def test_formula(radius):
    assert_follows(sam(radius), lambda t, w, grad: grad(w + radius * unit(grad(w))))


def test_mask_perturbs_and_measures_the_selected_parameters_alone():
    def rule(t, w, grad):
        g = grad(w)
        eps = np.zeros_like(w)
        eps[B] = 0.3 * unit(g[B])
        return grad(w + eps)

    assert_follows(sam(0.3, mask={"b": True, "w": False}), rule)
    assert_follows(sam(0.3, mask=lambda params: jax.tree.map(lambda w: w.ndim == 1, params)), rule)


def test_equals_optax_contrib_sam_over_50_steps(x64):
    base = lambda: optax.sgd(0.1, momentum=0.9)
    ours = optax.chain(sam(0.05), base())
    ascent = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    theirs = optax.contrib.sam(base(), ascent, sync_period=2, opaque_mode=True)

    @jax.jit
    def step(p, state, q, other, batch):
        grad = jax.grad(loss)
        u, state = ours.update(grad(p, batch), state, p, grad_fn=lambda v: grad(v, batch))
        v, other = theirs.update(grad(q, batch), other, q, grad_fn=lambda v, _: grad(v, batch))
        return optax.apply_updates(p, u), state, optax.apply_updates(q, v), other

    p, q = start(), start()
    state, other = ours.init(p), theirs.init(q)
    for t in range(50):
        p, state, q, other = step(p, state, q, other, batch(t))
    np.testing.assert_allclose(ravel_pytree(p)[0], ravel_pytree(q)[0], rtol=1e-10)
    assert np.linalg.norm(ravel_pytree(p)[0] - START) > 0.1


def test_radius_zero_is_plain_training_to_the_bit():
    params = start(jnp.float32)
    grad = jax.jit(lambda p: jax.grad(loss)(p, jax.tree.map(jnp.float32, batch(0))))
    u, _ = sam(0.0).update(grad(params), sam(0.0).init(params), params, grad_fn=grad)
    chex.assert_trees_all_equal(u, grad(params))
