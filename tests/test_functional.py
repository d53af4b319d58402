"""`value_and_grad`: the same gradients as the chain, the clean loss, the first pass's auxiliary output."""

# Optax types every tree as a union that cannot be subscripted, and schedules take any ArrayLike.
# pyright: reportIndexIssue=false, reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec as P

import pugd_optax
from tests.problems import batch, classifier, examples, extra_args, gradient, loss, path, reference_path, start, unit

SAM = pugd_optax.sam(0.3)


assert_close = functools.partial(chex.assert_trees_all_close, rtol=1e-5, atol=1e-6)


def data(t):
    return jax.tree.map(jnp.float32, batch(t))


def test_equals_the_chain_and_returns_the_clean_loss():
    def loss_with_aux(params, batch):
        return loss(params, batch), {"seen": params["b"]}

    @jax.jit
    def in_a_chain(params, state, batch):
        grad_fn = lambda p: jax.grad(loss)(p, batch)
        return *SAM.update(grad_fn(params), state, params, grad_fn=grad_fn), loss(params, batch)

    for has_aux in (False, True):
        vg = pugd_optax.value_and_grad(loss_with_aux if has_aux else loss, SAM, has_aux=has_aux)
        step = jax.jit(vg)
        params = start(jnp.float32)
        state, own = vg.init(params), SAM.init(params)
        for t in range(3):
            value, grads, state = step(params, state, data(t))
            u, own, expected = in_a_chain(params, own, data(t))
            assert_close(grads, u)
            clean = value[0] if has_aux else value
            np.testing.assert_allclose(clean, expected, rtol=1e-6)
            if has_aux:
                np.testing.assert_array_equal(value[1]["seen"], params["b"])
            params = jax.tree.map(lambda w, x: w - 0.1 * x, params, grads)
        assert int(optax.tree.get(state, "step")) == 3


def test_auxiliary_output_is_of_the_first_pass():
    """A running statistic in the auxiliary output is updated once per step, by the unperturbed pass."""

    def loss_fn(params, statistics, x):
        mean = jnp.mean(x * params)
        return (mean - 1.0) ** 2, 0.5 * statistics + 0.5 * mean

    vg = pugd_optax.value_and_grad(loss_fn, SAM, has_aux=True)
    w, statistics, x = jnp.array(2.0), jnp.array(4.0), jnp.array([1.0, 2.0])
    (value, statistics), grads, _ = vg(w, vg.init(w), statistics, x)
    np.testing.assert_allclose((value, statistics), (4.0, 3.5))
    np.testing.assert_allclose(grads, 2 * (1.5 * 2.3 - 1) * 1.5, rtol=1e-6)


def test_keyword_arguments_and_overrides():
    def loss_fn(w, *, power):
        return jnp.sum(w**power)

    vg = pugd_optax.value_and_grad(loss_fn, pugd_optax.sam(0.5, when=pugd_optax.timing.after(100)))
    w = jnp.array([2.0])
    _, idle, state = vg(w, vg.init(w), power=2)
    np.testing.assert_allclose(idle, 4.0)
    _, active, state = vg(w, state, power=2, active=True)
    np.testing.assert_allclose(active, 5.0)
    gap = pugd_optax.timing.generalization_gap(warmup=1, every=1)
    vg = pugd_optax.value_and_grad(loss_fn, pugd_optax.sam(0.5, when=gap))
    _, _, state = vg(w, vg.init(w), power=2, extra_args={"train_loss": 1.0, "val_loss": 2.0})
    assert not bool(optax.tree.get(state, "active"))
    with pytest.raises(ValueError, match="train_loss"):
        vg(w, state, power=2)


@pytest.mark.parametrize("name", ["name", "function", "tree"])
def test_any_keyword_of_the_loss(name):
    loss_fn = lambda w, **given: jnp.sum(w**2) * given[name]
    value, _, _ = pugd_optax.value_and_grad(loss_fn, SAM)(W1, SAM.init(W1), **{name: 2.0})
    assert value == 8


W1 = jnp.array([2.0])


def masked_base():
    return optax.masked(optax.sgd(0.1, momentum=0.9), {"b": True, "w": False})


def partitioned_base():
    return optax.partition({"fast": optax.sgd(0.5), "slow": optax.adam(1e-3)}, {"b": "fast", "w": "slow"})


@pytest.mark.parametrize("base", [masked_base(), partitioned_base(), optax.flatten(optax.adam(1e-2))])
def test_stands_before_wrappers_that_hide_parameters(base):
    vg = pugd_optax.value_and_grad(loss, pugd_optax.pugd(0.5))
    params = start(jnp.float32)
    state, opt_state = vg.init(params), base.init(params)

    @jax.jit
    def step(params, state, opt_state, batch):
        _, grads, state = vg(params, state, batch)
        updates, opt_state = base.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), state, opt_state, grads

    before = params
    for t in range(3):
        expected = path_output(params, t)
        params, state, opt_state, grads = step(params, state, opt_state, data(t))
        assert_close(grads, expected, rtol=1e-4)
    assert float(jnp.abs(params["b"] - before["b"]).max()) > 0


def path_output(params, t):
    """One PUGD output by the NumPy formula."""
    w = np.concatenate([np.ravel(params["b"]), np.ravel(params["w"])]).astype(np.float64)
    g = gradient(w, t)
    u = unit(g + gradient(w + 0.5 * unit(np.abs(w) * g), t))
    return {"b": u[:2], "w": u[2:].reshape(params["w"].shape)}


def test_stands_before_lookahead():
    vg = pugd_optax.value_and_grad(loss, SAM)
    base = optax.lookahead(optax.sgd(0.1), sync_period=2, slow_step_size=0.5)
    params = optax.LookaheadParams.init_synced(start(jnp.float32))
    state, opt_state = vg.init(params.fast), base.init(params)
    for t in range(2):
        _, grads, state = vg(params.fast, state, data(t))
        updates, opt_state = base.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
    w0 = start(jnp.float32)
    fast, own = w0, SAM.init(w0)
    for t in range(2):
        grad_fn = lambda p, t=t: jax.grad(loss)(p, data(t))
        u, own = SAM.update(grad_fn(fast), own, fast, grad_fn=grad_fn)
        fast = jax.tree.map(lambda w, x: w - 0.1 * x, fast, u)
    assert_close(params.slow, jax.tree.map(lambda a, b: 0.5 * a + 0.5 * b, w0, fast))


def test_serves_flax_train_state():
    train_state = pytest.importorskip("flax.training.train_state")
    vg = pugd_optax.value_and_grad(loss, SAM)
    state = train_state.TrainState.create(apply_fn=lambda *_: None, params=start(jnp.float32), tx=optax.sgd(0.25))
    perturbation = vg.init(state.params)
    for t in range(3):
        _, grads, perturbation = vg(state.params, perturbation, data(t))
        state = state.apply_gradients(grads=grads)
    outputs = reference_path(lambda t, w, grad: grad(w + 0.3 * unit(grad(w))), steps=3)
    moved = np.concatenate([np.ravel(start()[k]) for k in ("b", "w")]) - 0.25 * outputs.sum(0)
    np.testing.assert_allclose(np.concatenate([np.ravel(state.params[k]) for k in ("b", "w")]), moved, rtol=1e-4)


def test_every_plain_method_serves():
    """Without `grad_fn`, `value_and_grad` gives the gradients of the chain for every kind of method."""
    for tx in (pugd_optax.pugd(), pugd_optax.gsam(), pugd_optax.looksam(), pugd_optax.momentum_sam()):
        vg = pugd_optax.value_and_grad(loss, tx)
        params = start(jnp.float32)
        _, grads, _ = jax.jit(vg)(params, vg.init(params), data(0))
        expected, _ = path(tx, steps=1)
        flat = np.concatenate([np.ravel(grads["b"]), np.ravel(grads["w"])])
        np.testing.assert_allclose(flat, expected[0], rtol=1e-3, atol=1e-5)


def test_auxiliary_output_may_be_a_plain_number_on_several_devices():
    loss_fn = lambda w, x: (jnp.sum(x @ w), {"rows": len(x), "share": 0.5})
    vg = pugd_optax.value_and_grad(loss_fn, SAM, has_aux=True, axis_name="d")
    inside = lambda w, x: vg(w, vg.init(w), x)[0]
    mesh = Mesh(np.array(jax.devices()[:2]), ("d",))
    split = jax.shard_map(inside, mesh=mesh, in_specs=(P(), P("d")), out_specs=P())
    value, aux = jax.jit(split)(jnp.ones(2), jnp.ones((4, 2)))
    assert (value, aux["rows"], aux["share"]) == (4, 4, 0.5)


def complex_loss(z):
    return jnp.sum(jnp.abs(z - (1.0 + 2.0j)) ** 4) + jnp.sum((z.real * z.imag) ** 2)


def real_loss(xy):
    return complex_loss(xy[0] + 1j * xy[1])


@pytest.mark.parametrize("method", ["pugd", "sam", "gsam", "gnp", "friendly_sam", "momentum_sam"])
def test_complex_parameters_are_pairs_of_real_ones(method):
    """Gradients follow `jax.grad`: the conjugate of d/dx + i d/dy. PUGD differs, as its |z| couples both parts."""
    z = jnp.array([0.5 - 1.0j, 2.0 + 0.25j])
    tx = getattr(pugd_optax, method)()
    if method == "pugd":
        tx = pugd_optax.reevaluate(pugd_optax.normalize(), pugd_optax.unit_sum(1.0), radius=0.3)
    ours = pugd_optax.value_and_grad(complex_loss, tx)
    pairs = pugd_optax.value_and_grad(real_loss, tx)
    state, other = ours.init(z), pairs.init(jnp.stack([z.real, z.imag]))
    complex_step, real_step = jax.jit(lambda *args: ours(*args)), jax.jit(lambda *args: pairs(*args))
    for _ in range(3):
        value, grads, state = complex_step(z, state)
        expected, xy, other = real_step(jnp.stack([z.real, z.imag]), other)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        np.testing.assert_allclose(grads, xy[0] - 1j * xy[1], rtol=1e-4)
        z = z - 0.01 * jnp.conj(grads)


def test_complex_parameters_in_a_chain_take_conjugate_gradients():
    """In a chain, `value_fn` and a `grad_fn` that returns conjugate gradients give the same output."""
    z, tx = jnp.array([0.5 - 1.0j]), pugd_optax.asam()
    grad_fn = lambda v: jnp.conj(jax.grad(complex_loss)(v))
    u, _ = tx.update(grad_fn(z), tx.init(z), z, grad_fn=grad_fn)
    v, _ = tx.update(grad_fn(z), tx.init(z), z, value_fn=complex_loss)
    np.testing.assert_allclose(u, v, rtol=1e-6)
    _, w, _ = pugd_optax.value_and_grad(complex_loss, tx)(z, tx.init(z))
    np.testing.assert_allclose(jnp.conj(w), u, rtol=1e-6)


def test_donation_and_one_trace():
    vg = pugd_optax.value_and_grad(lambda params, data: extra_args(data)["value_fn"](params), pugd_optax.pugd())
    chex.clear_trace_counter()

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    @chex.assert_max_traces(n=1)
    def step(params, state, data):
        _, grads, state = vg(params, state, data)
        return jax.tree.map(lambda w, g: w - 0.1 * g, params, grads), state

    params, state = classifier(), vg.init(classifier())
    for seed in range(4):
        params, state = step(params, state, examples(seed=seed))


@pytest.mark.parametrize(
    ("share", "rows"), [(0.25, [0, 4]), (0.2, [0, 4]), (0.01, [0]), (0.4, [0, 2, 4]), (0.75, [0, 1, 2, 3, 4, 5])]
)
def test_the_second_gradient_may_be_of_a_part_of_the_batch(share, rows):
    """The examples are evenly spaced, as many as the share says, rounded, but at least one."""
    x, y = jnp.arange(16.0).reshape(8, 2) / 8, jnp.arange(8.0) / 4
    loss_fn = lambda w, x, y, *, power: jnp.mean(jnp.abs(x @ w - y) ** power)
    w = jnp.array([0.5, -1.0])
    vg = pugd_optax.value_and_grad(loss_fn, SAM, second_batch=share)
    value, grads, _ = jax.jit(lambda w, *batch: vg(w, vg.init(w), *batch, power=2))(w, x, y)
    part = lambda p: jax.grad(loss_fn)(p, x[np.array(rows)], y[np.array(rows)], power=2)
    g = jax.grad(loss_fn)(w, x, y, power=2)
    expected, _ = SAM.update(g, SAM.init(w), w, grad_fn=part)
    np.testing.assert_allclose(grads, expected, rtol=1e-6)
    np.testing.assert_allclose(value, loss_fn(w, x, y, power=2), rtol=1e-6)


def test_groups_share_scalars_keys_and_keywords():
    def loss_fn(w, x, scale, key, *, shift):
        aux = {"rows": len(x), "noise": jax.random.normal(key), "key": key, "shift": shift}
        return jnp.mean((scale * x @ w - shift.sum()) ** 2), aux

    w, x, key, shift = jnp.array([0.5, -1.0]), jnp.arange(8.0).reshape(4, 2), jax.random.key(3), jnp.arange(3.0)
    vg = pugd_optax.value_and_grad(loss_fn, SAM, has_aux=True, groups=2)
    (loss, aux), _, _ = jax.jit(lambda *args: vg(w, vg.init(w), *args, shift=shift))(x, jnp.float32(2), key)
    np.testing.assert_allclose(loss, np.mean((2 * np.arange(8.0).reshape(4, 2) @ [0.5, -1] - 3) ** 2), rtol=1e-6)
    assert (aux["rows"], aux["key"], aux["shift"].tolist()) == (4, key, [0, 1, 2])
    np.testing.assert_allclose(aux["noise"], jax.random.normal(key))


AUX = {"hits": jnp.int32(2), "any": jnp.bool_(True), "mean": jnp.float32(3.0), "total": jnp.float32(5.0)}


@pytest.mark.parametrize(
    ("aux_reduce", "expected"),
    [
        (None, {"hits": 8, "any": 4, "mean": 3.0, "total": 5.0}),
        ("sum", {"hits": 8, "any": 4, "mean": 12.0, "total": 20.0}),
        (
            {"hits": "mean", "any": None, "mean": "mean", "total": "sum"},
            {"hits": 2, "any": 4, "mean": 3.0, "total": 20.0},
        ),
    ],
    ids=["by type", "sum", "each"],
)
@pytest.mark.parametrize("where", ["groups", "shard_map", "unchecked", "pmap"])
def test_auxiliary_output_is_reduced_as_it_says(aux_reduce, expected, where):
    loss_fn = lambda w, x: (jnp.mean(x @ w), jax.tree.map(lambda a: jnp.where(jnp.isfinite(x[0, 0]), a, a), AUX))
    place = {"groups": 4} if where == "groups" else {"axis_name": "d"}
    vg = pugd_optax.value_and_grad(loss_fn, SAM, has_aux=True, aux_reduce=aux_reduce, **place)
    run = lambda w, x: vg(w, vg.init(w), x)[0]
    x, w = jnp.ones((8, 2)), jnp.ones(2)
    if where == "pmap":
        _, aux = jax.pmap(run, axis_name="d", in_axes=(None, 0), devices=jax.devices()[:4])(w, x.reshape(4, 2, 2))
        chex.assert_trees_all_close(jax.tree.map(lambda a: a[3], aux), expected)
        return
    if where != "groups":
        mesh = Mesh(np.array(jax.devices()[:4]), ("d",))
        checked = where == "shard_map"
        run = jax.shard_map(run, mesh=mesh, in_specs=(P(), P("d")), out_specs=P(), check_vma=checked)
    chex.assert_trees_all_close(jax.jit(run)(w, x)[1], expected)


@pytest.mark.parametrize(("dtype", "rtol"), [(jnp.float16, 1e-3), (jnp.bfloat16, 1e-2)])
def test_the_mean_over_groups_is_rounded_once(dtype, rtol):
    """In float16 the sum of eight gradients of 2e4 is infinite; in bfloat16 a sum of 64 would be off by 4 %."""
    x = 2e4 * (1 + np.random.default_rng(0).uniform(size=(64, 100)))
    loss_fn = lambda w, x: jnp.mean(x @ w.astype(jnp.float32))
    vg = pugd_optax.value_and_grad(loss_fn, SAM, groups=64)
    w = jnp.ones(100, dtype)
    _, grads, _ = vg(w, vg.init(w), jnp.asarray(x, jnp.float32))
    assert grads.dtype == dtype
    np.testing.assert_allclose(grads.astype(jnp.float32), x.mean(0), rtol=rtol)
