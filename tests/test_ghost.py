"""Ghost norms of Flax models against one backward pass per example, their memory, and the models they refuse."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from pugd_optax import per_example
from tests.conftest import QUICKLY
from tests.ghost_models import BATCH, CASES, IMAGES, LABELS, RANDOM, VECTORS, functional, merged_axes
from tests.tiers import slow_but

QUICK = ("dense", "recurrent", "vmap", "merged axes", "pieces", "functions")


def both(losses_fn, params):
    """The squared norms and the gradient of their mean, by ghost norms and by the reference."""

    def run(evaluator):
        mean = lambda p: (lambda s: (jnp.mean(s), s))(evaluator(losses_fn, p)[1])
        return jax.jit(jax.grad(mean, has_aux=True), compiler_options=QUICKLY)(params)

    return run(per_example.ghost), run(per_example.reference)


@pytest.mark.parametrize("name", slow_but(QUICK, CASES))
def test_agrees_with_the_reference(name, x64):
    (mine, squares), (exact, expected) = both(*CASES[name]())
    rtol = 1e-6 if name == "nnx" else 1e-9  # NNX's attention rounds to float32 on its way
    np.testing.assert_allclose(squares, expected, rtol=rtol)
    assert optax.tree.norm(optax.tree.sub(mine, exact)) < rtol * optax.tree.norm(exact)


@pytest.mark.parametrize("name", slow_but(QUICK, ["dense", "language"]))
def test_agrees_in_float32(name):
    (mine, squares), (exact, expected) = both(*CASES[name]())
    np.testing.assert_allclose(squares, expected, rtol=1e-5)
    assert optax.tree.norm(optax.tree.sub(mine, exact)) < 1e-5 * optax.tree.norm(exact)


@pytest.mark.parametrize("mode", ["fill", "clip"])
def test_ids_outside_the_table(mode, x64):
    """Of ids out of range, dropped ones read no row and do not share one; clipped ones read the nearest row."""
    table, ids = np.arange(12).reshape(4, 3) / 5, np.array([[0, 1, 9, 9], [2, 9, -9, 1]])
    losses_fn = lambda t: jnp.sum(jnp.sin(t.at[ids].get(mode=mode, fill_value=0.0)), axis=(1, 2))
    (mine, squares), (exact, _) = both(losses_fn, jnp.asarray(table))
    ids = np.clip(np.where(ids < 0, ids + 4, ids), 0, 3) if mode == "clip" else ids
    counts = np.sum(ids[:, :, None] == np.arange(4), axis=1)[:, :, None]
    np.testing.assert_allclose(squares, np.sum((counts * np.cos(table)) ** 2, axis=(1, 2)), rtol=1e-12)
    by_hand = -2 * np.cos(table) * np.sin(table) * np.mean(counts**2, axis=0)
    np.testing.assert_allclose(mine, by_hand, rtol=1e-12)
    np.testing.assert_allclose(exact, by_hand, rtol=1e-12)


@pytest.mark.parametrize("mode", ["fill", "clip"])
@pytest.mark.parametrize(("dtype", "rows"), [("uint8", 256), ("uint8", 300), ("uint32", 200)])
def test_unsigned_ids(dtype, rows, mode):
    """Byte-level language models have tokens of one byte, which does not hold the 256 rows of a table."""
    ids = np.array([[0, 7, 255, 255, 254], [1, 2, 3, 3, 200], [45, 46, 99, 0, 0]])
    table = jnp.asarray(RANDOM.normal(size=(rows, 2)), jnp.float32)
    looked_up = lambda t, ids: jnp.take(t, jnp.asarray(ids), axis=0, mode=mode, fill_value=0.0)
    losses_fn = lambda ids: lambda t: jnp.sum(jnp.sin(looked_up(t, ids)), axis=(1, 2))
    squares = per_example.ghost(losses_fn(ids.astype(dtype)), table)[1]
    np.testing.assert_allclose(squares, per_example.reference(losses_fn(ids.astype("int32")), table)[1], rtol=1e-5)


def test_groups_of_images(x64):
    losses_fn, params = CASES["residual"]()
    (mine, squares), (exact, expected) = both(per_example.micro_batches(losses_fn, 2), params)
    np.testing.assert_allclose(squares, expected, rtol=1e-9)
    assert optax.tree.norm(optax.tree.sub(mine, exact)) < 1e-9 * optax.tree.norm(exact)


def test_a_block_of_a_table_is_followed(x64):
    """A block lookup as JAX 0.9 writes `table[None, :3]`, used twice so that cross terms matter."""
    dims = jax.lax.GatherDimensionNumbers(offset_dims=(0, 1), collapsed_slice_dims=(), start_index_map=(0,))
    start, mode = jnp.array([2]), jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS
    x, table = jnp.asarray(RANDOM.normal(size=(5, 3, 4))), jnp.asarray(RANDOM.normal(size=(6, 4)))

    def losses_fn(table):
        block = jax.lax.gather(table, start, dims, (3, 4), mode=mode)[None]
        return jnp.sum(jnp.tanh(x + block) ** 2 + jnp.sin(x * block), axis=(1, 2))

    (mine, squares), (exact, expected) = both(losses_fn, table)
    np.testing.assert_allclose(squares, expected, rtol=1e-12)
    np.testing.assert_allclose(mine, exact, atol=1e-12)


def slices_of_two_parameters(p, x):
    """Slices of one entry each, of an array of two parameters, which are two matrices and not one used twice."""
    a, b = jnp.split(jnp.concatenate([p["a"][None], p["b"][None]]), 2)
    return jnp.tanh(x @ jnp.squeeze(a, 0)) @ jnp.squeeze(b, 0)


def steps_and_groups(p, x):
    """An axis of a parameter is that of the steps of a scan at one place, and one of two group axes at another."""
    step = lambda _, w: (None, jnp.einsum("bei,eio->beo", x.reshape(BATCH, 2, 3), w))
    _, h = jax.lax.scan(step, None, jnp.moveaxis(p["a"], 1, 0))
    return jnp.einsum("behi,ehio->beho", jnp.moveaxis(jnp.tanh(h), 0, 2), p["a"])


def permuted_reshapes(p, x):
    """Reshapes of a parameter and of activations that transpose first, as `order="F"` does."""
    h = jnp.tanh(x @ p["a"].reshape(6, 8)) + x @ jax.lax.reshape(p["a"], (6, 8), dimensions=(1, 0))
    return jnp.sin(h).reshape((BATCH, 2, 4), order="F") @ p["b"]


def stacks(p, x):
    """Stacked activations and parameters, taken apart again."""
    h = jnp.stack([x @ p["a"], jnp.tanh(x) @ p["b"]], axis=1)
    w, *_ = jnp.unstack(jnp.stack([p["a"], p["b"]], axis=2), axis=2)
    return jnp.prod(jnp.stack(jnp.unstack(jnp.sin(h), axis=1)), axis=0) @ w


@pytest.mark.parametrize(
    ("run", "a", "b"),
    [
        (slices_of_two_parameters, (6, 6), (6, 6)),
        (steps_and_groups, (2, 3, 3, 3), ()),
        (permuted_reshapes, (4, 12), (4, 3)),
        (stacks, (6, 6), (6, 6)),
    ],
)
def test_axes_of_parameters_and_activations_are_followed(run, a, b, x64):
    (mine, squares), (exact, expected) = both(*functional(run, {"a": a, "b": b}))
    np.testing.assert_allclose(squares, expected, rtol=1e-12)
    assert optax.tree.norm(optax.tree.sub(mine, exact)) < 1e-12 * optax.tree.norm(exact)


def test_frozen_parameters_count_as_data(x64):
    frozen = lambda p: {"w": jax.lax.stop_gradient(p["w"]), "b": p["b"]}
    losses_fn, params = merged_axes()
    squares = lambda evaluator: jax.jit(lambda p: evaluator(lambda p: losses_fn(frozen(p)), p)[1])(params)
    np.testing.assert_allclose(squares(per_example.ghost), squares(per_example.reference), rtol=1e-9)


def test_convolutions_with_a_rule_of_their_own(x64):
    conv = partial(jax.lax.conv_general_dilated, window_strides=(1, 1), padding="SAME")
    dims = ("NHWC", "HWIO", "NHWC")
    custom = jax.custom_vjp(lambda x, w: conv(x, w, dimension_numbers=dims))
    forward = lambda x, w: jax.vjp(lambda x, w: conv(x, w, dimension_numbers=dims), x, w)
    custom.defvjp(forward, lambda pull, ct: pull(ct))
    x = jnp.asarray(IMAGES)
    losses_fn = lambda w: jnp.sum(jnp.tanh(custom(x, w)) ** 2, axis=(1, 2, 3))
    (mine, squares), (exact, expected) = both(losses_fn, jnp.asarray(RANDOM.normal(size=(3, 3, 3, 4))))
    np.testing.assert_allclose(squares, expected, rtol=1e-9)
    np.testing.assert_allclose(mine, exact, rtol=1e-9)


@jax.custom_vjp
def quantized(x, levels):
    """Rounding whose gradient is that of the identity; JAX's own would be 0."""
    return jnp.round(levels * x) / levels


quantized.defvjp(lambda x, levels: (quantized(x, levels), levels), lambda levels, ct: (ct, jnp.zeros_like(levels)))


@pytest.mark.parametrize(
    "losses_fn",
    [
        lambda w: jnp.sum(jax.jit(quantized)(VECTORS @ w, 4.0) ** 2, axis=1),
        lambda w: jnp.sum((VECTORS @ quantized(w, np.array([[2.0, 3.0, 4.0]]))) ** 2, axis=1),
    ],
    ids=["activations", "parameters"],
)
def test_derivative_rules_beside_constants_are_kept(losses_fn, x64):
    (_, squares), (_, expected) = both(losses_fn, jnp.asarray(RANDOM.normal(size=(6, 3))))
    np.testing.assert_allclose(squares, expected, rtol=1e-12)


@pytest.mark.parametrize("reads", [lambda w: w, jnp.sin], ids=["twice", "through a function"])
@pytest.mark.parametrize(
    ("lhs_dilation", "rhs_dilation", "padding"),
    [((1, 1), (1, 1), "SAME"), ((1, 1), (2, 1), [(3, 2), (0, 2)]), ((2, 1), (1, 2), [(1, 1), (2, 1)])],
)
def test_windows_along_image_and_gradient(lhs_dilation, rhs_dilation, padding, reads, x64):
    """Convolutions with dilated inputs or kernels, also where the loss reads a function of the kernel."""
    how = {"lhs_dilation": lhs_dilation, "rhs_dilation": rhs_dilation, "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    conv = partial(jax.lax.conv_general_dilated, window_strides=(1, 1), padding=padding, **how)
    x = jnp.asarray(RANDOM.normal(size=(3, 6, 5, 4)))
    losses_fn = lambda w: jnp.sum(jnp.tanh(conv(x, w)) ** 2 + jnp.sin(conv(x**2, reads(w))), axis=(1, 2, 3))
    (mine, squares), (exact, expected) = both(losses_fn, jnp.asarray(RANDOM.normal(size=(3, 2, 4, 5))))
    np.testing.assert_allclose(squares, expected, rtol=1e-9)
    np.testing.assert_allclose(mine, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Sequential([nn.Dense(256), nn.gelu, nn.Dense(256), nn.gelu, nn.Dense(10)]), (64, 128)),
        (nn.Sequential([nn.Conv(96, (3, 3)), nn.relu, nn.Conv(128, (3, 3), strides=2), nn.relu]), (32, 6, 6, 8)),
    ],
)
@pytest.mark.parametrize("evaluator", [per_example.ghost, per_example.signs(0)])
def test_no_memory_of_batch_times_parameters(model, shape, evaluator):
    """The compiled gradient of the regularised objective needs less than one float per example and parameter."""
    x = jnp.ones(shape)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    losses_fn = lambda p: jnp.sum(model.apply(p, x).reshape(len(x), -1) ** 2, axis=1)
    compiled = jax.jit(jax.grad(per_example.regularized(losses_fn, 0.1, evaluator))).lower(params).compile()
    batch_copies = 4 * len(x) * sum(w.size for w in jax.tree.leaves(params))
    memory: Any = compiled.memory_analysis()
    assert memory.temp_size_in_bytes < 0.6 * batch_copies


# What cannot be followed is refused, by name.


def refuses(losses_fn, params, message):
    with pytest.raises(ValueError, match=message + r".*Fix: penalty=pugd_optax\.per_example\.signs\(key\)"):
        per_example.ghost(losses_fn, params)
    estimate = jax.jit(lambda p: per_example.signs(0)(losses_fn, p)[1])(params)
    assert np.isfinite(estimate)


def test_a_parameter_for_each_example_is_refused():
    refuses(lambda z: jnp.sum(z**2, axis=1), jnp.ones((4, 3)), "an entry for every example")


def test_a_lost_batch_axis_is_refused():
    x = jnp.asarray(VECTORS, jnp.float32)
    losses_fn = lambda w: jax.lax.map(lambda row: jnp.sum(row**2), x @ w)
    refuses(losses_fn, jnp.eye(6), "the batch axis of .* is lost behind the primitive scan")


def test_a_derivative_rule_of_a_parameter_and_data_is_refused():
    """Its result for one example is not known: the rule may be anything."""
    x = jnp.asarray(VECTORS, jnp.float32)
    losses_fn = lambda p: jnp.sum(quantized(x @ p["w"], p["levels"]) ** 2, axis=1)
    refuses(losses_fn, {"levels": jnp.array(4.0), "w": jnp.eye(6)}, r"params\['levels'\].* primitive custom_vjp_call")


@pytest.mark.parametrize(
    "move",
    [
        lambda h: jax.lax.pad(h, 0.0, [(1, -1, 0), (0, 0, 0)]),
        lambda h: jax.lax.reduce_window(h, 0.0, jax.lax.add, (1, 1), (1, 1), [(1, -1), (0, 0)]),
    ],
    ids=["pad", "reduce_window"],
)
def test_examples_moved_along_the_batch_axis_are_refused(move):
    """Padding on one side that is cut on the other keeps the size of the axis, but not the place of an example."""
    x = jnp.arange(12.0).reshape(4, 3)
    refuses(lambda w: jnp.sum(move(x @ w) ** 2, axis=1), jnp.eye(3), "ghost norms cannot follow the parameter")


def test_a_lookup_among_the_activations_is_refused():
    """Reading the logit of the label by integer indexing, which loses the batch axis, is refused."""
    x, picked = jnp.asarray(VECTORS, jnp.float32), jnp.asarray(LABELS)
    losses_fn = lambda w: (x @ w)[jnp.arange(BATCH), picked]
    refuses(losses_fn, jnp.eye(6), "the batch axis of .* is lost behind the primitive gather")
