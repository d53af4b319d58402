"""Data parallelism: every way to write it equals a dense computation on one device."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import pugd_optax
from pugd_optax import schedules, timing

DEVICES = 8
METHODS = {
    "pugd": lambda: pugd_optax.pugd(radius=0.3),
    "sam": lambda: pugd_optax.sam(radius=0.3),
    "gsam": lambda: pugd_optax.gsam(radius=0.3),
    "friendly_sam": lambda: pugd_optax.friendly_sam(radius=0.3),
    "looksam": lambda: pugd_optax.looksam(every=2),
    "momentum_sam": lambda: pugd_optax.momentum_sam(radius=0.3),
    "gated": lambda: pugd_optax.pugd(radius=0.3, when=timing.every(2, offset=1)),
    "gated_momentum_sam": lambda: pugd_optax.momentum_sam(when=timing.after(1)),
}


RISE = {"rise": lambda: pugd_optax.sam(schedules.target_rise(0.5, start=0.3, gain=1.0))}


def loss_fn(params, x, y):
    hidden = jnp.tanh(x @ params["w"] + params["b"][None])
    return jnp.mean((hidden @ params["v"] - y) ** 2)


@pytest.fixture(scope="module")
def problem():
    keys = jax.random.split(jax.random.key(0), 4)
    params = {
        "w": jax.random.normal(keys[0], (5, 7)),
        "b": jnp.full((7,), 0.1),
        "v": jax.random.normal(keys[1], (7,)),
    }
    x = jax.random.normal(keys[2], (4 * DEVICES, 5))
    return params, x, jax.random.normal(keys[3], (4 * DEVICES,))


@pytest.fixture(scope="module")
def mesh():
    assert jax.device_count() >= DEVICES, "conftest.py forces eight CPU devices"
    return jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Auto,))


def train(vg, params, x, y, steps=3):
    """The parameters after a few steps with perturbed gradients, and the loss of every step."""
    state, losses = vg.init(params), []
    for _ in range(steps):
        loss, grads, state = vg(params, state, x, y)
        params = jax.tree.map(lambda w, g: w - 0.1 * g, params, grads)
        losses.append(loss)
    return params, jnp.stack(losses)


def dense_local(tx, params, x, y, steps=3):
    """Reference of m-sharpness: one perturbed gradient for each device's examples, in turn, then the mean."""
    vg = pugd_optax.value_and_grad(loss_fn, tx)
    step = jax.jit(vg)
    shards = list(zip(jnp.split(x, DEVICES), jnp.split(y, DEVICES), strict=True))
    states, losses = [vg.init(params) for _ in shards], []
    for _ in range(steps):
        results = [step(params, state, *shard) for state, shard in zip(states, shards, strict=True)]
        mean = lambda *xs: sum(xs) / len(xs)
        params = jax.tree.map(lambda w, g: w - 0.1 * g, params, jax.tree.map(mean, *[grads for _, grads, _ in results]))
        losses.append(mean(*[loss for loss, _, _ in results]))
        states = [_with_floats_of(state, jax.tree.map(mean, *_floats(results))) for _, _, state in results]
    return params, jnp.stack(losses)


def _floats(results):
    keep = lambda x: x if jnp.issubdtype(x.dtype, jnp.floating) else jnp.zeros(())
    return [jax.tree.map(keep, state) for _, _, state in results]


def _with_floats_of(state, means):
    return jax.tree.map(lambda x, m: m if jnp.issubdtype(x.dtype, jnp.floating) else x, state, means)


assert_close = partial(chex.assert_trees_all_close, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", METHODS)
def test_jit_with_a_sharded_batch_is_the_global_perturbation(name, problem, mesh):
    params, x, y = problem
    vg = pugd_optax.value_and_grad(loss_fn, METHODS[name]())
    split = NamedSharding(mesh, P("data"))
    whole = NamedSharding(mesh, P())
    sharded = jax.jit(partial(train, vg))(jax.device_put(params, whole), *jax.device_put((x, y), split))
    assert_close(sharded, jax.jit(partial(train, vg))(params, x, y))


@pytest.mark.parametrize("name", METHODS)
def test_shard_map_with_an_averaged_loss_is_the_global_perturbation(name, problem, mesh):
    params, x, y = problem
    mean_loss = lambda p, x, y: jax.lax.pmean(loss_fn(p, x, y), "data")
    vg = pugd_optax.value_and_grad(mean_loss, METHODS[name]())
    step = jax.shard_map(partial(train, vg), mesh=mesh, in_specs=(P(), P("data"), P("data")), out_specs=P())
    dense = pugd_optax.value_and_grad(loss_fn, METHODS[name]())
    assert_close(jax.jit(step)(params, x, y), jax.jit(partial(train, dense))(params, x, y))


@pytest.mark.parametrize("name", METHODS)
def test_shard_map_with_axis_name_is_the_local_perturbation(name, problem, mesh):
    params, x, y = problem
    vg = pugd_optax.value_and_grad(loss_fn, METHODS[name](), axis_name="data")
    step = jax.shard_map(partial(train, vg), mesh=mesh, in_specs=(P(), P("data"), P("data")), out_specs=P())
    assert_close(jax.jit(step)(params, x, y), dense_local(METHODS[name](), params, x, y))


@pytest.mark.parametrize("name", ["pugd", "looksam", "gated"])
def test_pmap_with_axis_name_is_the_local_perturbation(name, problem):
    params, x, y = problem
    vg = pugd_optax.value_and_grad(loss_fn, METHODS[name](), axis_name="data")
    step = jax.pmap(partial(train, vg), axis_name="data", in_axes=(None, 0, 0), out_axes=None)
    shards = x.reshape(DEVICES, -1, 5), y.reshape(DEVICES, -1)
    assert_close(step(params, *shards), dense_local(METHODS[name](), params, x, y))


def test_pmap_with_averaged_gradients_is_the_global_perturbation(problem):
    params, x, y = problem
    tx = pugd_optax.pugd(radius=0.3)

    def perturbed(params, x, y):
        grad_fn = lambda p: jax.lax.pmean(jax.grad(loss_fn)(p, x, y), "data")
        return tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)[0]

    step = jax.pmap(perturbed, axis_name="data", in_axes=(None, 0, 0), out_axes=None)
    grad_fn = lambda p: jax.grad(loss_fn)(p, x, y)
    expected = jax.jit(lambda p: tx.update(grad_fn(p), tx.init(p), p, grad_fn=grad_fn)[0])(params)
    assert_close(step(params, x.reshape(DEVICES, -1, 5), y.reshape(DEVICES, -1)), expected)


def test_vmap_over_groups_is_the_local_perturbation_under_jit(problem, mesh):
    params, x, y = problem
    tx = pugd_optax.sam(radius=0.3)

    def perturbed(params, x, y):
        grad_fn = lambda p: jax.grad(loss_fn)(p, x, y)
        return tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)[0]

    def grouped(params, x, y):
        groups = x.reshape(DEVICES, -1, 5), y.reshape(DEVICES, -1)
        return jax.tree.map(lambda g: g.mean(0), jax.vmap(perturbed, in_axes=(None, 0, 0))(params, *groups))

    x_split, y_split = jax.device_put((x, y), NamedSharding(mesh, P("data")))
    shards = zip(jnp.split(x, DEVICES), jnp.split(y, DEVICES), strict=True)
    expected = jax.tree.map(lambda *g: sum(g) / DEVICES, *[jax.jit(perturbed)(params, *shard) for shard in shards])
    assert_close(jax.jit(grouped)(params, x_split, y_split), expected)


def test_local_and_global_perturbations_differ(problem):
    params, x, y = problem
    local, _ = dense_local(METHODS["sam"](), params, x, y)
    whole, _ = jax.jit(partial(train, pugd_optax.value_and_grad(loss_fn, METHODS["sam"]())))(params, x, y)
    assert max(float(jnp.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (local, whole)), strict=True)) > 1e-3


def test_local_perturbation_averages_once(problem, mesh):
    """One all-reduce; an older XLA may need one each for the loss, the radius and every tensor."""
    params, x, y = problem
    vg = pugd_optax.value_and_grad(loss_fn, pugd_optax.pugd(radius=0.3), axis_name="data")
    step = jax.shard_map(vg, mesh=mesh, in_specs=(P(), P(), P("data"), P("data")), out_specs=P())
    text = jax.jit(step).lower(params, vg.init(params), x, y).compile().as_text()
    found = sum(" all-reduce(" in line or " all-reduce-start(" in line for line in text.splitlines())
    assert found == 1 or (jax.__version_info__ < (0, 9) and found == 2 + len(jax.tree.leaves(params)))


def test_parameters_may_already_be_marked_as_varying(problem, mesh):
    params, x, y = problem
    vg = pugd_optax.value_and_grad(loss_fn, pugd_optax.sam(0.3), axis_name="data")
    mark = lambda p: jax.tree.map(lambda w: jax.lax.pcast(w, "data", to="varying"), p)
    specs = {"mesh": mesh, "in_specs": (P(), P(), P("data"), P("data")), "out_specs": P()}
    expected = jax.jit(jax.shard_map(vg, **specs))(params, vg.init(params), x, y)
    marked = jax.shard_map(lambda p, *rest: vg(mark(p), *rest), **specs)
    assert_close(jax.jit(marked)(params, vg.init(params), x, y), expected)


def mean_gradient(params, x, y, groups):
    """The mean of SAM's gradients of the groups, each with its own perturbation."""
    tx = pugd_optax.sam(0.3)

    @jax.jit
    def one(x, y):
        grad_fn = lambda p: jax.grad(loss_fn)(p, x, y)
        return tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)[0]

    outputs = [one(*part) for part in zip(jnp.split(x, groups), jnp.split(y, groups), strict=True)]
    return jax.tree.map(lambda *g: sum(g) / groups, *outputs)


def test_groups_on_one_device_are_the_local_perturbation_of_as_many_devices(problem, mesh):
    params, x, y = problem
    grouped = pugd_optax.value_and_grad(loss_fn, pugd_optax.sam(0.3), groups=DEVICES)
    loss, grads, state = jax.jit(grouped)(params, grouped.init(params), x, y)
    assert_close(grads, mean_gradient(params, x, y, DEVICES))
    np.testing.assert_allclose(loss, loss_fn(params, x, y), rtol=1e-6)
    assert state.step == 1
    vg = pugd_optax.value_and_grad(loss_fn, pugd_optax.sam(0.3), axis_name="data")
    step = jax.shard_map(vg, mesh=mesh, in_specs=(P(), P(), P("data"), P("data")), out_specs=P())
    assert_close(jax.jit(step)(params, vg.init(params), x, y)[1], grads)


@pytest.mark.parametrize("name", ["pugd", "gsam", "looksam", "gated", "rise"])
@pytest.mark.parametrize("check_vma", [True, False])
def test_shard_map_with_a_global_perturbation(name, check_vma, problem, mesh):
    """A loss averaged over the local examples gives the dense result with and without `check_vma`."""
    params, x, y = problem
    method = (METHODS | RISE)[name]
    vg = pugd_optax.value_and_grad(loss_fn, method(), axis_name="data", perturb="global")
    specs = {"mesh": mesh, "in_specs": (P(), P("data"), P("data")), "out_specs": P(), "check_vma": check_vma}
    dense = pugd_optax.value_and_grad(loss_fn, method())
    expected = jax.jit(partial(train, dense))(params, x, y)
    assert_close(jax.jit(jax.shard_map(partial(train, vg), **specs))(params, x, y), expected)


def test_pmap_with_a_global_perturbation(problem):
    params, x, y = problem
    vg = pugd_optax.value_and_grad(loss_fn, pugd_optax.pugd(0.3), axis_name="data", perturb="global")
    step = jax.pmap(partial(train, vg), axis_name="data", in_axes=(None, 0, 0), out_axes=0)
    ends, losses = step(params, x.reshape(DEVICES, -1, 5), y.reshape(DEVICES, -1))
    dense = pugd_optax.value_and_grad(loss_fn, pugd_optax.pugd(0.3))
    expected = jax.jit(partial(train, dense))(params, x, y)
    for device in range(DEVICES):
        assert_close(jax.tree.map(lambda w, device=device: w[device], (ends, losses)), expected)
