"""SAM-ON: which parameters of real models it perturbs, and that the norm is over these only."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pugd_optax import sam, sam_on


def moved(params):
    """The names of the perturbed parameters and the length of the perturbation."""
    seen = []
    grads = jax.tree.map(jnp.ones_like, params)
    tx = sam_on(radius=0.5)
    tx.update(grads, tx.init(params), params, grad_fn=lambda p: seen.append(p) or grads)
    steps = jax.tree_util.tree_leaves_with_path(jax.tree.map(lambda a, b: np.asarray(a - b), seen[0], params))
    names = {jax.tree_util.keystr(path, simple=True, separator="/") for path, x in steps if np.any(x)}
    return names, np.sqrt(sum(np.sum(x**2) for _, x in steps))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(nn.Dense(4)(x))
        return nn.BatchNorm(use_running_average=True)(nn.Dense(2)(x))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(3, 4, rngs=rngs)
        self.bn = nnx.BatchNorm(4, rngs=rngs)
        self.rms = nnx.RMSNorm(4, rngs=rngs)


def test_finds_the_normalization_layers_of_linen():
    params = Linen().init(jax.random.key(0), jnp.ones((1, 3)))["params"]
    names, length = moved(params)
    assert names == {"LayerNorm_0/scale", "LayerNorm_0/bias", "BatchNorm_0/scale", "BatchNorm_0/bias"}
    np.testing.assert_allclose(length, 0.5, rtol=1e-6)


def test_finds_the_normalization_layers_of_nnx():
    params = nnx.state(Nnx(nnx.Rngs(0)), nnx.Param)
    for tree in (params, nnx.to_pure_dict(params)):
        names, length = moved(tree)
        assert {name.removesuffix("/value") for name in names} == {"bn/scale", "bn/bias", "rms/scale"}
        np.testing.assert_allclose(length, 0.5, rtol=1e-6)


@pytest.mark.parametrize(("gain", "shift"), [("scale", "offset"), ("gamma", "beta"), ("gain", "bias")])
def test_finds_the_names_of_other_libraries(gain, shift):
    names, _ = moved({"dense": {"w": jnp.ones(2), shift: jnp.ones(2)}, "norm": {gain: jnp.ones(2), shift: jnp.ones(2)}})
    assert names == {f"norm/{gain}", f"norm/{shift}"}


def test_what_else_lies_beside_a_gain_does_not_move():
    names, length = moved({"w": jnp.ones(2), "scale": jnp.ones(2), "bias": jnp.ones(2), "inner": {"bias": jnp.ones(2)}})
    assert names == {"scale", "bias"}
    np.testing.assert_allclose(length, 0.5, rtol=1e-6)


def test_is_sam_with_a_mask():
    params = {"kernel": jnp.array([1.0, 2.0]), "norm": {"scale": jnp.array([3.0]), "bias": jnp.array([0.5])}}
    grad_fn = jax.grad(lambda p: sum(jnp.sum(x**4) for x in jax.tree.leaves(p)))
    mask = {"kernel": False, "norm": {"scale": True, "bias": True}}
    for tx in (sam_on(0.5), sam_on(0.5, mask=mask)):
        u, _ = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
        other = sam(0.5, mask=mask)
        v, _ = other.update(grad_fn(params), other.init(params), params, grad_fn=grad_fn)
        chex.assert_trees_all_equal(u, v)


def test_refuses_a_model_without_normalization_layers():
    params = {"dense": {"kernel": jnp.ones(2)}}
    tx = sam_on()
    with pytest.raises(ValueError, match="found none of the names scale, gamma, gain among dense/kernel"):
        tx.update(params, tx.init(params), params, grad_fn=lambda p: p)


def test_refuses_bad_arguments():
    with pytest.raises(ValueError, match="radius=-1"):
        sam_on(-1)
