"""LPG on four devices equals LPG on one device."""

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
    """Three steps as a function of the parameters and the data."""

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
    """The class statistics are summed over the mesh axis; the division by the batch size is in the loss."""
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
    """With `axis_name`, the local gradients use the same class scales, and their average is the global gradient."""
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


GLOBAL = {
    "lpg around sam": lambda **split: pugd_optax.lpg(CLASSES, eps=0.5, inner=pugd_optax.sam(0.3), **split),
    "lpl around pugd": lambda **split: pugd_optax.lpl(CLASSES, inner=pugd_optax.pugd(0.3), **split),
    "functional_sam": lambda **split: pugd_optax.functional_sam(0.3),
    "imb_sam": lambda **split: pugd_optax.imb_sam((9, 8, 7), 0.3, eta=8),
    "focal_sam": lambda **split: pugd_optax.focal_sam((9, 8, 7), 0.3),
}


@pytest.mark.parametrize("place", ["shard_map", "unchecked", "pmap"])
@pytest.mark.parametrize("name", GLOBAL)
def test_a_global_perturbation_is_that_of_one_device(name, place):
    """With `perturb="global"`, gradients that a method takes through `logits_fn` are averaged over the devices too."""
    x, y, w = X[:3].astype(np.float32), Y[:3], jnp.asarray(W, jnp.float32)

    def loss_fn(w, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(jnp.tanh(x @ w), y).mean()

    def steps(vg):
        def run(w, x, y):
            state = vg.init(w)
            for i in range(3):
                extra = {"logits_fn": lambda w, i=i: jnp.tanh(x[i] @ w), "labels": y[i]}
                loss, u, state = vg(w, state, x[i], y[i], extra_args=extra)
                w = w - 0.5 * u
            return w, loss

        return run

    tx = GLOBAL[name](axis_name="data") if name.startswith("lp") else GLOBAL[name]()
    split = steps(pugd_optax.value_and_grad(loss_fn, tx, axis_name="data", perturb="global"))
    expected = jax.jit(steps(pugd_optax.value_and_grad(loss_fn, GLOBAL[name]())))(w, x, y)
    if place == "pmap":
        shards = x.reshape(3, 4, 2, -1).swapaxes(0, 1), y.reshape(3, 4, 2).swapaxes(0, 1)
        found = jax.pmap(split, axis_name="data", in_axes=(None, 0, 0), devices=jax.devices()[:4])(w, *shards)
        found = [jax.tree.map(lambda a, i=i: a[i], found) for i in range(4)]
    else:
        mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
        specs = {
            "in_specs": (P(), P(None, "data"), P(None, "data")),
            "out_specs": P(),
            "check_vma": place == "shard_map",
        }
        found = [jax.jit(jax.shard_map(split, mesh=mesh, **specs))(w, x, y)]
    for one in found:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one, expected)


@pytest.mark.parametrize(
    ("options", "name"),
    [({"groups": 2}, "logits_fn"), ({"second_batch": 0.5}, "logits_fn"), ({"perturb": "global"}, "losses_fn")],
)
def test_a_function_of_the_batch_is_not_taken_for_one_of_a_part(options, name):
    """`logits_fn` or `losses_fn` of the local batch is refused where micro-batches or all devices need another."""
    x, w = jnp.asarray(X[0], jnp.float32), jnp.asarray(W, jnp.float32)
    tx = pugd_optax.lpg(CLASSES) if name == "logits_fn" else pugd_optax.pegr(0.1)
    given = {"logits_fn": lambda w: x @ w, "labels": Y[0], "losses_fn": lambda w: jnp.sum((x @ w) ** 2, 1)}
    given |= {"logits_vjp": jax.vjp(lambda w: x @ w, w)}
    vg = pugd_optax.value_and_grad(lambda w, x: jnp.sum(x @ w), tx, axis_name="data", **options)
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    run = jax.shard_map(lambda x: vg(w, vg.init(w), x, extra_args=given), mesh=mesh, in_specs=P("data"), out_specs=P())
    with pytest.raises(ValueError, match=rf"{name} in extra_args is bound.*Fix: leave {next(iter(options))}="):
        run(x)
