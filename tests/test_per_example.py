"""Evaluators of the mean squared per-example gradient norm, micro-batches, and the inputs they refuse."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn, nnx
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, PartitionSpec as P

from pugd_optax import per_example

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(8, 5)), RANDOM.integers(0, 3, 8)
EXACT = pytest.mark.parametrize("evaluator", [per_example.reference, per_example.ghost])
ALL = pytest.mark.parametrize("evaluator", [per_example.reference, per_example.ghost, per_example.signs(0)])


def classifier(dtype=jnp.float64):
    shapes = {"hidden": (5, 7), "shift": (7,), "out": (7, 3)}
    return {k: jnp.asarray(np.random.default_rng(1).normal(size=s), dtype) for k, s in shapes.items()}


def loss(params, x, y):
    """The loss of one example."""
    return optax.softmax_cross_entropy_with_integer_labels(
        jnp.tanh(x @ params["hidden"] + params["shift"]) @ params["out"], y
    )


def losses_fn(params):
    return jax.vmap(loss, in_axes=(None, 0, 0))(params, jnp.asarray(X, params["out"].dtype), Y)


def gradients(params):
    """The per-example gradients, one at a time, with shape [batch, parameters]."""
    one = jax.jit(lambda x, y: ravel_pytree(jax.grad(loss)(params, x, y))[0])
    return np.stack([one(x, y) for x, y in zip(X, Y, strict=True)])


def evaluated(evaluator, fun, params):
    """The result of an evaluator under jit."""
    return jax.jit(lambda p: evaluator(fun, p))(params)


def mean_losses(size=1):
    """The mean losses of groups of examples, in float64 NumPy."""
    p = {k: np.asarray(w) for k, w in classifier().items()}
    logits = np.tanh(X @ p["hidden"] + p["shift"]) @ p["out"]
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(8), Y]
    return losses.reshape(-1, size).mean(axis=1)


@EXACT
def test_squares_are_those_of_one_example_at_a_time(evaluator, x64):
    losses, squares = evaluated(evaluator, losses_fn, classifier())
    np.testing.assert_allclose(losses, mean_losses(), rtol=1e-12)
    np.testing.assert_allclose(squares, np.sum(gradients(classifier()) ** 2, axis=1), rtol=1e-12)


@EXACT
def test_mean_square_is_squared_mean_plus_variance(evaluator, x64):
    g = gradients(classifier())
    variance = np.trace(np.cov(g, rowvar=False, bias=True))
    mean = np.mean(g, axis=0)
    squares = evaluated(evaluator, losses_fn, classifier())[1]
    np.testing.assert_allclose(np.mean(squares), mean @ mean + variance, rtol=1e-12)


@pytest.mark.parametrize("size", [1, 4])
def test_clipping_by_norms_is_clipping_of_every_gradient(size, x64):
    """The recipe for differential privacy equals clipping each gradient, for examples and for groups."""
    groups = per_example.micro_batches(losses_fn, size)
    mean = lambda p, x, y: jnp.mean(jax.vmap(loss, in_axes=(None, 0, 0))(p, x, y))
    batches = jnp.asarray(X).reshape(-1, size, 5), Y.reshape(-1, size)
    each = jax.jit(jax.vmap(jax.grad(mean), in_axes=(None, 0, 0)))(classifier(), *batches)
    clip = float(np.median(np.asarray(jax.jit(jax.vmap(optax.tree.norm))(each))))
    clipped, _ = jax.jit(lambda g: optax.per_example_global_norm_clip(g, clip))(jax.tree.leaves(each))

    @jax.jit
    def mine(params):
        weights = jnp.minimum(1.0, clip / per_example.norms(groups, params))
        return jax.grad(lambda p: jnp.sum(weights * groups(p)))(params)

    for a, b in zip(jax.tree.leaves(mine(classifier())), clipped, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_norm_of_an_example_without_a_gradient_is_zero_and_leaves_its_clipped_gradient_finite():
    mask = np.arange(8) > 0
    norms = jax.jit(lambda p: per_example.norms(lambda p: mask * losses_fn(p), p))(classifier(jnp.float32))
    assert norms[0] == 0
    assert np.all(np.asarray(norms)[1:] > 0)
    assert jnp.minimum(1.0, 5.0 / norms)[0] == 1


def test_norm_of_contributions_that_cancel_is_not_nan():
    """In sequences of one value whose slopes sum to 0, rounding may make the sum of all products negative."""
    values, slopes = (RANDOM.normal(size=(16, n, 32)) for n in (1, 4))
    slopes = jnp.asarray(slopes - slopes.mean(axis=1, keepdims=True), jnp.float32)
    x = jnp.asarray(values.repeat(4, axis=1), jnp.float32)
    losses_fn = lambda w: jnp.sum(slopes * (x @ w), axis=(1, 2))
    norms = jax.jit(lambda w: per_example.norms(losses_fn, w))(jnp.ones((32, 32)))
    assert np.all(np.asarray(norms) < 0.1)  # one summand alone is above 100


@pytest.mark.parametrize("evaluator", [per_example.reference, per_example.ghost])
@pytest.mark.parametrize("check_vma", [True, False])
def test_norms_under_shard_map_are_those_of_single_examples(evaluator, check_vma):
    """The gradient of a parameter that all devices share would be the sum over the devices."""
    params, x, y = classifier(jnp.float32), jnp.asarray(X, jnp.float32), jnp.asarray(Y)
    each = lambda p, x, y: evaluator(lambda p: jax.vmap(loss, in_axes=(None, 0, 0))(p, x, y), p)[1]
    mesh, given = Mesh(np.array(jax.devices()[:2]), ("data",)), (P(), P("data"), P("data"))
    split = jax.shard_map(each, mesh=mesh, in_specs=given, out_specs=P("data"), check_vma=check_vma)
    np.testing.assert_allclose(jax.jit(split)(params, x, y), evaluated(evaluator, losses_fn, params)[1], rtol=1e-5)


def test_signs_are_exact_in_expectation_over_all_signs(x64):
    """The mean over all 2^8 sign vectors equals the mean squared norm, and `signs` draws from these."""
    g = gradients(classifier())
    squares = [np.sum((np.array(s) @ g) ** 2) / 8 for s in itertools.product([-1, 1], repeat=8)]
    np.testing.assert_allclose(np.mean(squares), np.mean(np.sum(g**2, axis=1)), rtol=1e-12)
    drawn = jax.jit(jax.vmap(lambda t: per_example.signs(0)(losses_fn, classifier(), t)[1]))(jnp.arange(64))
    assert all(np.min(np.abs(np.array(squares) / x - 1)) < 1e-9 for x in np.asarray(drawn))
    assert len(np.unique(np.asarray(drawn))) > 32


def test_key_of_signs_is_a_key_or_a_whole_number(x64):
    def estimate(key):
        evaluator = per_example.signs(key)
        return float(jax.jit(lambda p: evaluator(losses_fn, p, 3)[1])(classifier()))

    assert estimate(np.int64(7)) == estimate(7) == estimate(jax.random.key(7)) != estimate(8)
    with pytest.raises(TypeError, match=r"key=0\.5: expected one PRNG key or a whole number"):
        per_example.signs(0.5)  # pyright: ignore[reportArgumentType]


def test_error_of_signs_falls_as_one_over_the_root_of_the_draws(x64):
    draw = lambda t: per_example.signs(3)(losses_fn, classifier(), t)[1]
    mean = np.mean(np.sum(gradients(classifier()) ** 2, axis=1))
    errors = np.asarray(jax.jit(jax.vmap(draw))(jnp.arange(2**13))) - mean
    rms = [np.sqrt(np.mean(errors.reshape(-1, k).mean(axis=1) ** 2)) for k in (1, 16, 256)]
    np.testing.assert_allclose([rms[0] / rms[1], rms[1] / rms[2]], 4, rtol=0.3)


def test_gradient_of_signs_is_that_of_its_own_formula(x64):
    coins = jax.random.rademacher(jax.random.fold_in(jax.random.key(5), 2), (8,)).astype(float)

    def objective(params):
        g = jax.grad(lambda p: jnp.sum(coins * losses_fn(p)))(params)
        return jnp.mean(losses_fn(params)) + 0.3 / 2 * optax.tree.norm(g, squared=True) / 8

    mine = jax.jit(jax.grad(per_example.regularized(losses_fn, 0.3, per_example.signs(5), 2)))(classifier())
    expected = jax.jit(jax.grad(objective))(classifier())
    chex.assert_trees_all_close(mine, expected, rtol=1e-10)


@EXACT
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_micro_batches_stand_for_examples(evaluator, size, x64):
    groups = gradients(classifier()).reshape(8 // size, size, -1).mean(axis=1)
    losses, squares = evaluated(evaluator, per_example.micro_batches(losses_fn, size), classifier())
    np.testing.assert_allclose(losses, mean_losses(size), rtol=1e-12)
    np.testing.assert_allclose(squares, np.sum(groups**2, axis=1), rtol=1e-11)


@ALL
def test_short_floats_are_summed_in_float32(evaluator):
    params = classifier(jnp.bfloat16)
    _, squares = evaluated(evaluator, losses_fn, params)
    assert squares.dtype == jnp.float32
    full = evaluated(evaluator, losses_fn, {k: np.asarray(w, np.float32) for k, w in params.items()})[1]
    np.testing.assert_allclose(np.mean(squares), np.mean(full), rtol=0.1)


# What is refused.


class Normalized(nn.Module):
    train: bool

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=not self.train)(nn.Dense(6)(x))
        return nn.Dense(3)(nn.relu(x))


def linen_losses(train):
    model, x = Normalized(train), jnp.asarray(X, jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x)

    def losses_fn(params):
        logits, _ = model.apply({**variables, "params": params}, x, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, Y)

    return losses_fn, variables["params"]


def nnx_losses(train):
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Conv(1, 4, (3,), rngs=rngs), nnx.BatchNorm(4, rngs=rngs), nnx.Linear(4, 3, rngs=rngs))
    model.set_attributes(use_running_average=not train, raise_if_not_found=False)
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    x = jnp.asarray(X, jnp.float32)[:, :, None]

    def losses_fn(params):
        logits = jnp.mean(nnx.merge(graph, params, rest, copy=True)(x), axis=1)
        return optax.softmax_cross_entropy_with_integer_labels(logits, Y)

    return losses_fn, params


@ALL
@pytest.mark.parametrize("build", [linen_losses, nnx_losses])
def test_batch_norm_is_refused_in_training_mode_alone(evaluator, build):
    with pytest.raises(ValueError, match=r"couples the examples.*BatchNorm.*Fix: use LayerNorm, GroupNorm"):
        evaluator(*build(train=True))
    losses, _ = evaluated(evaluator, *build(train=False))
    assert losses.shape == (8,)


@ALL
@pytest.mark.parametrize(
    "couple",
    [
        lambda losses: losses / jnp.mean(losses),
        lambda losses: losses - jnp.sort(losses),
        lambda losses: losses + jnp.cumsum(losses),
        lambda losses: jnp.sum((losses[:, None] * losses[None, :]), axis=1),
        lambda losses: losses + losses[::-1],
    ],
)
def test_other_couplings_are_refused(evaluator, couple):
    with pytest.raises(ValueError, match="couples the examples"):
        evaluator(lambda p: couple(losses_fn(p)), classifier(jnp.float32))


@ALL
def test_statistics_of_the_data_couple_nothing(evaluator):
    """Statistics of the batch, as in standardised inputs, are accepted, as they do not depend on parameters."""
    x = jnp.asarray(X, jnp.float32)

    def fun(p):
        standard = (x - jnp.mean(x, axis=0, keepdims=True)) / jnp.std(x, axis=0, keepdims=True)
        return jax.vmap(loss, in_axes=(None, 0, 0))(p, standard, Y) * jax.nn.softmax(x[:, 0])

    assert jax.eval_shape(lambda p: evaluator(fun, p), classifier(jnp.float32))[0].shape == (8,)


@ALL
@pytest.mark.parametrize(
    "fun", [lambda p: jnp.mean(losses_fn(p)), lambda p: losses_fn(p)[:, None], lambda p: (losses_fn(p), 0), lambda p: Y]
)
def test_losses_must_be_a_vector(evaluator, fun):
    with pytest.raises(ValueError, match=r"losses_fn returned.*a vector \[batch\]"):
        evaluator(fun, classifier(jnp.float32))


@ALL
def test_complex_parameters_are_refused(evaluator):
    with pytest.raises(TypeError, match=r"params\['w'\] is complex64.*real and imaginary"):
        evaluator(lambda p: jnp.abs(p["w"]), {"w": jnp.ones(3, jnp.complex64)})


@ALL
def test_integer_parameters_are_refused(evaluator):
    """JAX gives them no gradient; followed like a weight, a counter would add to the norm."""
    with pytest.raises(TypeError, match=r"params\['n'\] has the dtype int32: expected floating-point numbers.*close"):
        evaluator(lambda p: p["w"] * p["n"], {"n": jnp.ones(3, jnp.int32), "w": jnp.ones(3)})


def test_groups_must_divide_the_batch():
    with pytest.raises(ValueError, match=r"group_size=3.*\(8,\)"):
        per_example.micro_batches(losses_fn, 3)(classifier(jnp.float32))
