"""LPG on four devices is LPG on one."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec as P

import pugd_optax
from pugd_optax.logits import additive
from tests.methods.test_lpg import CLASSES, W, X, Y


def train(tx: Any):
    """A few steps as one function of the data, to be mapped over devices."""

    def steps(w, x, y):
        state = tx.init(w)
        for i in range(3):
            logits_fn = lambda w, i=i: x[i] @ w
            u, state = tx.update(w, state, w, logits_fn=logits_fn, labels=y[i])
            w = w - 0.5 * u
        return w, state

    return steps


@pytest.mark.parametrize("settings", [{}, {"edit": additive}, {"renormalize": True}])
def test_four_devices_give_the_step_of_one(settings):
    """Sums of the classes go over the mesh axis; the gradient is averaged as any gradient is, here in the loss."""
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    x, y, w = X.astype(np.float32), Y, jnp.asarray(W, jnp.float32)
    tx: Any = pugd_optax.lpg(CLASSES, eps=0.5, axis_name="data", **settings)

    def steps(w, x, y):
        state = tx.init(w)
        for i in range(3):
            cross_entropy = lambda u, i=i: optax.softmax_cross_entropy_with_integer_labels(u, y[i]).sum() / 8
            # Parameters are replicated, so shard_map adds their gradients up over the axis by itself.
            u, state = tx.update(w, state, w, logits_fn=lambda w, i=i: x[i] @ w, labels=y[i], logit_loss=cross_entropy)
            w = w - 0.5 * u
        return w, state

    sharded = jax.shard_map(steps, mesh=mesh, in_specs=(P(), P(None, "data"), P(None, "data")), out_specs=P())
    whole = train(pugd_optax.lpg(CLASSES, eps=0.5, **settings))
    found, expected = (jax.jit(run)(w, x, y) for run in (sharded, whole))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_value_and_grad_over_devices():
    """The drop-in with `axis_name`: local gradients of replicated class scales, averaged once, are the global ones."""
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    x, y, w = X[0].astype(np.float32), Y[0], jnp.asarray(W, jnp.float32)

    def loss_fn(w, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(x @ w, y).mean()

    def gradient(vg):
        def inside(w, x, y):
            return vg(w, vg.init(w), x, y, extra_args={"logits_fn": lambda w: x @ w, "labels": y})

        return inside

    split = gradient(pugd_optax.value_and_grad(loss_fn, pugd_optax.lpg(CLASSES, axis_name="data"), axis_name="data"))
    sharded = jax.jit(jax.shard_map(split, mesh=mesh, in_specs=(P(), P("data"), P("data")), out_specs=P()))(w, x, y)
    whole = jax.jit(gradient(pugd_optax.value_and_grad(loss_fn, pugd_optax.lpg(CLASSES))))(w, x, y)
    chex.assert_trees_all_close(sharded, whole, rtol=1e-4, atol=1e-6)
