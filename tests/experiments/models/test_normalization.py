"""GroupNorm equals Flax's in value and in gradients of every order and mode, under every transformation."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, PartitionSpec as P

from experiments.models.normalization import GroupNorm

CASES = [
    ((4, 6, 5, 12), {"num_groups": 4}),
    ((3, 12), {"num_groups": 4}),
    ((2, 7, 12), {"num_groups": 1, "use_scale": False}),
    ((2, 3, 4, 2, 12), {"num_groups": 12, "use_bias": False, "epsilon": 1e-3}),
    ((1, 1, 1, 12), {"num_groups": None, "group_size": 6, "use_scale": False, "use_bias": False}),
]


def layers(settings):
    """Return our layer and Flax's as functions of parameters and data, and parameters for both."""
    made = []
    for kind in (GroupNorm, nnx.GroupNorm):
        layer = kind(12, **settings, rngs=nnx.Rngs(0))
        graphdef, params = nnx.split(layer)
        params = jax.tree.map(lambda p: p + jnp.linspace(-0.5, 0.7, p.size, dtype=p.dtype), params)
        made.append(lambda params, x, graphdef=graphdef, **kw: nnx.merge(graphdef, params)(x, **kw))
    return *made, params


def data(shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(1), shape, dtype) * 1.5 + 0.5


def weighted(apply, params, x):
    y = apply(params, x)
    return jnp.sum(jnp.sin(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape) * y.astype(jnp.float32)) / y.size


def values_and_gradients(applied, params, x):
    """Yield the value and the gradients of each layer, compiled."""
    for apply in applied:
        gradient = jax.grad(functools.partial(weighted, apply), (0, 1))
        yield jax.jit(lambda p, x, apply=apply, gradient=gradient: (apply(p, x), gradient(p, x)))(params, x)


def close(found, expected, tolerance=1e-6):
    chex.assert_trees_all_equal_dtypes(found, expected)
    chex.assert_trees_all_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("shape", "settings"), CASES, ids=str)
def test_value_and_gradients_equal_flax(shape, settings):
    ours, theirs, params = layers(settings)
    (found, slopes), (expected, their_slopes) = values_and_gradients((ours, theirs), params, data(shape))
    close(found, expected, 2e-6)
    close(slopes, their_slopes)


def test_parameters_are_those_of_flax():
    ours, theirs = (
        nnx.to_pure_dict(nnx.state(kind(12, 4, bias_init=nnx.initializers.normal(), rngs=nnx.Rngs(7))))
        for kind in (GroupNorm, nnx.GroupNorm)
    )
    close(ours, theirs)


@pytest.mark.parametrize(("dtype", "compute"), [("bfloat16", None), ("float16", None), ("float32", "bfloat16")])
def test_half_precision(dtype, compute):
    settings: dict = {"num_groups": 3, "dtype": compute and jnp.dtype(compute), "param_dtype": jnp.dtype(dtype)}
    ours, theirs, params = layers(settings)
    close(*values_and_gradients((ours, theirs), params, data((4, 5, 12), dtype)), 0.01)


def test_float64(x64):
    ours, theirs, params = layers({"num_groups": 3, "param_dtype": jnp.float64})
    close(*values_and_gradients((ours, theirs), params, data((4, 5, 12), jnp.float64)), 1e-9)


def forward_over_reverse(apply, params, x):
    gradient = jax.grad(functools.partial(weighted, apply))
    return jax.jvp(lambda p: gradient(p, x), (params,), (jax.tree.map(jnp.ones_like, params),))[1]


TRANSFORMED = {
    "remat": lambda f, params, x: jax.grad(lambda p, x: weighted(jax.checkpoint(f), p, x), (0, 1))(params, x),
    "vmap": lambda f, params, x: jax.vmap(jax.grad(functools.partial(weighted, f)), (None, 0))(params, x[:, None]),
    "scan": lambda f, params, x: jax.grad(
        lambda x: jnp.sum(jax.lax.scan(lambda c, _: (jnp.sin(f(params, c)), None), x, None, length=3)[0])
    )(x),
    "jvp": lambda f, params, x: jax.jvp(f, (params, x), (jax.tree.map(jnp.ones_like, params), jnp.cos(x))),
    "forward over reverse": forward_over_reverse,
    "reverse over reverse": lambda f, params, x: jax.grad(
        lambda x: jnp.sum(jax.grad(lambda x: weighted(f, params, x))(x) ** 2)
    )(x),
    "shard_map": lambda f, params, x: jax.shard_map(
        lambda params, x: jax.grad(functools.partial(weighted, f), 1)(params, x),
        mesh=Mesh(np.array(jax.devices()[:2]), ("data",)),
        in_specs=(P(), P("data")),
        out_specs=P("data"),
    )(params, x),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transformations(name):
    ours, theirs, params = layers({"num_groups": 4})
    found, expected = (
        jax.jit(functools.partial(TRANSFORMED[name], f))(params, data((4, 6, 5, 12))) for f in (ours, theirs)
    )
    close(found, expected, 1e-5)


@pytest.mark.parametrize(
    "settings", [{"use_fast_variance": False}, {"reduction_axes": (2, 3)}, {"mask": True}], ids=str
)
def test_what_goes_to_flax(settings):
    settings = dict(settings)
    masked = settings.pop("mask", False)
    ours, theirs, params = layers({"num_groups": 4, **settings})
    x = data((2, 1, 6, 12))
    mask = jnp.broadcast_to(jnp.arange(6)[None, None, :, None] < 4, x.shape) if masked else None
    close(ours(params, x, mask=mask), theirs(params, x, mask=mask), 1e-7)


def test_accelerators_have_their_own(monkeypatch):
    layer = GroupNorm(12, 4, rngs=nnx.Rngs(0))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(nnx.GroupNorm, "__call__", lambda self, x, mask=None: x + 1)
    np.testing.assert_array_equal(layer(jnp.zeros((2, 12))), 1)


def test_the_gradient_keeps_one_large_array():
    ours, _, params = layers({"num_groups": 4})
    x = data((4, 6, 5, 12))
    _, pullback = jax.vjp(ours, params, x)
    assert sum(np.size(r) >= x.size for r in jax.tree.leaves(pullback)) == 1
