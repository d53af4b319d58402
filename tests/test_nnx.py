"""`pugd_optax.nnx`: variables are updated once, both passes draw the same, and chains work in `nnx.Optimizer`."""

# Gradients are states whose entries pyright does not know.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh, PartitionSpec as P

import pugd_optax

pytest.importorskip("flax", "0.12.2", "needs the Flax of the extra `flax`")

X = jax.random.normal(jax.random.key(1), (8, 3))
Y = jnp.sin(X.sum(axis=1, keepdims=True))
SAM = pugd_optax.sam(radius=0.3)


class Network(nnx.Module):
    """A network with BatchNorm, a list of layers, and dropout whose `Rngs` is its own or passed."""

    def __init__(self, rngs: nnx.Rngs, own: bool = True, rate: float = 0.5):
        self.first = nnx.Linear(3, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs if own else None)
        self.last = nnx.List([nnx.Linear(16, 1, rngs=rngs)])

    def __call__(self, x, rngs=None):
        x = nnx.relu(self.norm(self.first(x)))
        return self.last[0](self.dropout(x, rngs=rngs))


def loss_fn(model, x, rngs=None):
    predictions = model(x, rngs)
    return jnp.mean((predictions - Y) ** 2), predictions


def loss_alone(model, x, rngs=None):
    return loss_fn(model, x, rngs)[0]


def variables(*modules):
    """All variables as NumPy arrays, with keys as their bits."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    leaves = jax.tree.leaves([nnx.state(module) for module in modules])
    return [np.asarray(jax.random.key_data(x) if is_key(x) else x) for x in leaves]


@functools.partial(nnx.jit, static_argnums=2)
def by_hand(model, rngs, radius):
    """SAM's gradient computed on clones, which draw the same random numbers as the original."""

    def gradient(by):
        copy, passed = nnx.clone((model, rngs))
        nnx.update(copy, jax.tree.map(jnp.add, nnx.state(copy, nnx.Param), by))
        return nnx.grad(loss_alone)(copy, X, passed)

    g = gradient(jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param)))
    return gradient(jax.tree.map(lambda x: radius * x / optax.tree.norm(g), g))


assert_close = functools.partial(chex.assert_trees_all_close, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("own", [True, False], ids=["rngs in the model", "rngs passed"])
@pytest.mark.parametrize("compile", [nnx.jit, lambda f: f], ids=["jit", "eager"])
def test_everything_moves_once_and_both_passes_draw_the_same(own, compile):
    model = Network(nnx.Rngs(0), own)
    rngs = None if own else nnx.Rngs(dropout=5)
    vg = pugd_optax.nnx.value_and_grad(loss_fn, SAM, has_aux=True)
    step = compile(lambda model, state, rngs: vg(model, state, X, rngs))
    state = vg.init(model)
    for _ in range(2):
        plain = nnx.clone((model, rngs))
        expected = by_hand(model, rngs, 0.3)
        (loss, aux), grads, state = step(model, state, rngs)
        (clean, predictions), g = nnx.jit(nnx.value_and_grad(loss_fn, has_aux=True))(plain[0], X, plain[1])
        np.testing.assert_allclose(loss, clean, rtol=1e-5)
        np.testing.assert_allclose(aux, predictions, rtol=1e-4, atol=1e-6)
        assert jax.tree.structure(grads) == jax.tree.structure(g)
        assert_close(grads, expected)
        assert_close(variables(model, rngs), variables(*plain))
    assert int(optax.tree.get(state, "step")) == 2


def test_the_first_pass_decides_on_running_statistics():
    """The running statistics are updated once, from the pass at the unperturbed parameters."""
    model = Network(nnx.Rngs(0), rate=0.0)
    mean = model.first(X).mean(axis=0)
    vg = pugd_optax.nnx.value_and_grad(loss_alone, pugd_optax.sam(radius=10.0))
    vg(model, vg.init(model), X)
    np.testing.assert_allclose(model.norm.mean[...], 0.1 * mean, rtol=1e-4, atol=1e-6)


def test_keywords_gates_and_extra_arguments():
    model = Network(nnx.Rngs(0), rate=0.0)
    plain = nnx.grad(loss_alone)(nnx.clone(model), X)
    gap = pugd_optax.timing.generalization_gap(warmup=1, every=1)
    vg = pugd_optax.nnx.value_and_grad(loss_alone, pugd_optax.sam(radius=0.3, when=gap))
    losses = {"train_loss": 1.0, "val_loss": 2.0}
    _, idle, state = vg(model, vg.init(model), x=X, extra_args=losses)
    assert_close(idle, plain)
    assert not bool(optax.tree.get(state, "active"))
    _, active, state = vg(model, state, X, active=True, extra_args=losses)
    assert not np.allclose(active.first.kernel[...], plain.first.kernel[...], rtol=1e-3)
    with pytest.raises(ValueError, match="train_loss"):
        vg(model, state, X)


def test_only_what_the_filter_selects():
    """With low-rank adapters, the frozen kernel is neither differentiated nor perturbed."""
    model = nnx.LoRALinear(3, 1, lora_rank=2, rngs=nnx.Rngs(0))
    loss = lambda model: jnp.mean((model(X) - Y) ** 2)
    adapters = nnx.DiffState(0, nnx.LoRAParam)
    vg = pugd_optax.nnx.value_and_grad(loss, SAM, argnums=adapters)
    optimizer, state = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.LoRAParam), vg.init(model)
    before, start = model.kernel[...], loss(model)
    step = nnx.jit(lambda model, state: vg(model, state))
    for _ in range(20):
        value, grads, state = step(model, state)
        optimizer.update(model, grads)
    assert jax.tree.structure(grads) == jax.tree.structure(nnx.grad(loss, argnums=adapters)(model))
    np.testing.assert_array_equal(model.kernel[...], before)
    assert value < start


@pytest.mark.parametrize("parts", [{"groups": 3}, {"axis_name": "d"}], ids=["groups", "devices"])
def test_parts_leave_unchanged_variables_alone(parts):
    """The mean of three equal numbers is not exactly this number, and to reduce frozen kernels would cost time."""
    model = nnx.LoRALinear(3, 64, lora_rank=2, rngs=nnx.Rngs(0))
    graphdef, before = nnx.split(model)
    loss = lambda model, x: jnp.mean(model(x) ** 2)
    vg = pugd_optax.nnx.value_and_grad(loss, SAM, argnums=nnx.DiffState(0, nnx.LoRAParam), **parts)

    def step(variables, x):
        model = nnx.merge(graphdef, variables)
        vg(model, vg.init(model), x)
        return nnx.state(model)

    if "axis_name" in parts:
        mesh = Mesh(np.array(jax.devices()[:3]), ("d",))
        step = jax.shard_map(step, mesh=mesh, in_specs=(P(), P("d")), out_specs=P())
    after = jax.jit(step)(before, jnp.concatenate([X, X[:1]]))
    np.testing.assert_array_equal(after.kernel[...], before.kernel[...])


def test_metrics_count_a_batch_once():
    model, metrics = Network(nnx.Rngs(0)), nnx.MultiMetric(loss=nnx.metrics.Average("loss"))

    def counted(model, metrics):
        loss = loss_alone(model, X)
        metrics.update(loss=loss)
        return loss

    vg = pugd_optax.nnx.value_and_grad(counted, SAM)
    loss, _, _ = vg(model, vg.init(model), metrics)
    np.testing.assert_allclose(metrics.compute()["loss"], loss, rtol=1e-6)
    assert int(metrics.loss.count[...]) == 1


class Lowest(nnx.Metric):
    """The lowest loss so far, infinite before the first one."""

    def __init__(self):
        self.value = nnx.metrics.MetricState(jnp.array(jnp.inf))

    def update(self, loss):
        self.value[...] = jnp.minimum(self.value[...], loss)


def test_metrics_that_do_not_add_up():
    model, lowest, spread = nnx.Linear(3, 1, rngs=nnx.Rngs(0)), Lowest(), nnx.metrics.Welford()

    def counted(model, x, lowest, spread):
        losses = (model(x) - 1) ** 2
        lowest.update(losses.mean())
        spread.update(values=losses)
        return losses.mean()

    vg = pugd_optax.nnx.value_and_grad(counted, SAM)
    loss, _, _ = vg(model, vg.init(model), X, lowest, spread)
    assert lowest.value[...] == loss
    np.testing.assert_allclose(spread.compute().mean, loss, rtol=1e-6)
    vg = pugd_optax.nnx.value_and_grad(counted, SAM, groups=2)
    with pytest.raises(ValueError, match=r"Welford.*groups=2.*Fix: update it outside of loss_fn"):
        vg(model, vg.init(model), X, lowest, spread)


def test_a_filter_that_selects_nothing_is_named():
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    vg = pugd_optax.nnx.value_and_grad(loss_alone, SAM, argnums=nnx.DiffState(0, nnx.LoRAParam))
    with pytest.raises(ValueError, match=r"argnums selects no variable of the model, Linear.*Fix: .*nnx.Param"):
        vg(model, vg.init(model), X)


def by_parts(model, x, y, parts):
    """The mean of SAM's gradients over equal parts of the batch, each with its own perturbation."""
    vg, n = pugd_optax.nnx.value_and_grad(fit, SAM), len(x) // parts
    gradient = nnx.jit(lambda model, x, y: vg(model, vg.init(model), x, y)[1])
    each = [gradient(nnx.clone(model), x[i : i + n], y[i : i + n]) for i in range(0, len(x), n)]
    return jax.tree.map(lambda *g: sum(g) / parts, *each)


def fit(model, x, y, metrics=None, rngs=None):
    loss = jnp.mean((model(x) - y) ** 2)
    if metrics is not None and rngs is not None:
        metrics.update(loss=loss)
        rngs.dropout()
    return loss


def test_groups_perturb_apart_and_variables_move_once():
    """Statistics are averaged over the groups, metrics count every group, and random counters advance by one step."""
    model, metrics = Network(nnx.Rngs(0), rate=0.0), nnx.MultiMetric(loss=nnx.metrics.Average("loss"))
    expected, means, rngs = by_parts(model, X, Y, 2), jnp.mean(model.first(X), axis=0), nnx.Rngs(dropout=5)
    vg = pugd_optax.nnx.value_and_grad(fit, SAM, groups=2)
    step = nnx.jit(lambda model, *args: vg(model, vg.init(model), *args))
    loss, grads, _ = step(model, X, Y, metrics, rngs)
    assert_close(grads, expected, atol=1e-4)  # a bias before BatchNorm has gradient 0 up to rounding
    assert_close(model.norm.mean[...], 0.1 * means)
    assert int(metrics.loss.count[...]) == 2
    np.testing.assert_allclose(metrics.compute()["loss"], loss, rtol=1e-5)
    assert int(rngs.dropout.count[...]) == 1


def test_the_second_gradient_of_a_part_of_the_batch():
    model = Network(nnx.Rngs(0), rate=0.0)
    gradient = nnx.jit(nnx.grad(fit))
    g = gradient(nnx.clone(model), X, Y)
    away = nnx.clone(model)
    eps = jax.tree.map(lambda x: 0.3 * x / optax.tree.norm(g), g)
    nnx.update(away, jax.tree.map(jnp.add, nnx.state(model, nnx.Param), eps))
    vg = pugd_optax.nnx.value_and_grad(fit, SAM, second_batch=0.5)
    _, grads, _ = nnx.jit(lambda model, state: vg(model, state, X, Y))(model, vg.init(model))
    assert_close(grads, gradient(away, X[::2], Y[::2]), atol=1e-4)


def test_devices_perturb_apart():
    model = Network(nnx.Rngs(0), rate=0.0)
    expected = by_parts(model, X, Y, 2)
    graphdef, variables = nnx.split(model)
    vg = pugd_optax.nnx.value_and_grad(fit, SAM, axis_name="d")

    def inside(variables, x, y):
        model = nnx.merge(graphdef, variables)
        loss, grads, _ = vg(model, vg.init(model), x, y)
        return loss, grads, nnx.state(model)

    mesh = Mesh(np.array(jax.devices()[:2]), ("d",))
    split = jax.shard_map(inside, mesh=mesh, in_specs=(P(), P("d"), P("d")), out_specs=P())
    _, grads, moved = jax.jit(split)(variables, X, Y)
    assert_close(grads, expected, atol=1e-4)  # a bias before BatchNorm has gradient 0 up to rounding
    assert_close(moved.norm.mean[...], 0.1 * jnp.mean(model.first(X), axis=0))


def test_devices_may_perturb_together():
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    expected = by_parts(model, X, Y, 1)
    graphdef, variables = nnx.split(model)
    vg = pugd_optax.nnx.value_and_grad(fit, SAM, axis_name="d", perturb="global")
    inside = lambda variables, x, y: vg(model := nnx.merge(graphdef, variables), vg.init(model), x, y)[1]
    mesh = Mesh(np.array(jax.devices()[:2]), ("d",))
    split = jax.shard_map(inside, mesh=mesh, in_specs=(P(), P("d"), P("d")), out_specs=P())
    assert_close(jax.jit(split)(variables, X, Y), expected)


def test_auxiliary_output_is_reduced_as_it_says():
    model = nnx.Linear(3, 1, rngs=nnx.Rngs(0))
    counted = lambda model, x, y: (fit(model, x, y), jnp.float32(len(x)))
    vg = pugd_optax.nnx.value_and_grad(counted, SAM, has_aux=True, groups=2, aux_reduce="sum")
    assert vg(model, vg.init(model), X, Y)[0][1] == 8


@functools.cache
def by_the_front_door(own):
    """The variables after a step of SAM by `pugd_optax.nnx.value_and_grad`."""
    model, rngs = Network(nnx.Rngs(0), own), nnx.Rngs(5)
    base = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    vg = pugd_optax.nnx.value_and_grad(loss_alone, SAM)
    _, grads, _ = nnx.jit(lambda model, state, rngs: vg(model, state, X, rngs))(model, vg.init(model), rngs)
    base.update(model, grads)
    return variables(model)


def update_by(grad_fn, own=False, method=SAM):
    """Compares a step of `nnx.Optimizer` with `grad_fn(params, merge, rngs, model)` with one of `by_the_front_door`."""
    model, rngs = Network(nnx.Rngs(0), own), nnx.Rngs(5)
    chain = nnx.Optimizer(model, optax.chain(method, optax.sgd(0.1)), wrt=nnx.Param)

    @nnx.jit
    def step(model, chain, rngs):
        graphdef, _, rest = nnx.split(nnx.clone(model), nnx.Param, ...)  # without a copy, `rest` moves with the model
        passed = nnx.split(nnx.clone(rngs))
        (_, _), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model, X, rngs)
        merge = lambda p, copy=True: nnx.merge(graphdef, p, rest, copy=copy)
        again = lambda: nnx.merge(*passed, copy=True)
        chain.update(model, grads, grad_fn=lambda p: grad_fn(p, merge, again(), model))

    step(model, chain, rngs)
    assert_close(variables(model), by_the_front_door(own))


@pytest.mark.parametrize(
    "grad_fn",
    [
        lambda p, merge, rngs, _: nnx.grad(loss_alone)(merge(p), X, rngs),
        lambda p, merge, rngs, _: nnx.grad(loss_fn, has_aux=True)(merge(p), X, rngs)[0],
        lambda p, merge, rngs, _: jax.grad(lambda p: loss_alone(merge(p), X, nnx.clone(rngs)))(p),
        lambda p, merge, rngs, _: nnx.to_pure_dict(nnx.grad(loss_alone)(merge(p), X, rngs)),
    ],
    ids=["nnx.grad", "has_aux", "jax.grad", "pure dict"],
)
@pytest.mark.parametrize("own", [True, False], ids=["rngs in the model", "rngs passed"])
def test_spellings_of_grad_fn_that_nnx_optimizer_takes(grad_fn, own):
    update_by(grad_fn, own)


def test_a_value_fn_serves_too():
    model = Network(nnx.Rngs(0), rate=0.0)
    optimizer = nnx.Optimizer(model, optax.chain(SAM, optax.sgd(0.1)), wrt=nnx.Param)
    graphdef, _, rest = nnx.split(model, nnx.Param, ...)
    before = model.first.kernel[...]
    grads = nnx.grad(loss_alone)(model, X)
    optimizer.update(model, grads, value_fn=lambda p: loss_alone(nnx.merge(graphdef, p, rest, copy=True), X))
    assert not np.allclose(model.first.kernel[...], before)


def in_place(p, merge, rngs, model):
    nnx.update(model, p)
    return nnx.grad(loss_alone)(model, X, rngs)


@pytest.mark.parametrize(
    ("grad_fn", "message"),
    [
        (lambda p, merge, rngs, _: nnx.grad(loss_alone)(p, X, rngs), "'State' object is not callable"),
        (lambda p, merge, rngs, _: nnx.grad(loss_alone)(merge(p, copy=False), X, rngs), "statistics"),
        (lambda p, merge, rngs, _: nnx.grad(loss_fn, has_aux=True)(merge(p), X, rngs), "structure"),
        (in_place, "statistics"),
    ],
    ids=["params for the model", "no copy", "with aux", "in place"],
)
@pytest.mark.parametrize("when", [None, pugd_optax.timing.every(2)], ids=["always", "gated"])
def test_other_spellings_name_the_right_call(grad_fn, message, when):
    with pytest.raises(ValueError, match=message) as caught:
        update_by(grad_fn, method=pugd_optax.sam(0.3, when=when))
    assert "pugd_optax.nnx.value_and_grad(loss_fn, tx)(model, state, *args)" in str(caught.value)
    assert len(str(caught.value)) < 700


def test_a_missing_grad_fn_is_answered_for_nnx():
    model = Network(nnx.Rngs(0), rate=0.0)
    optimizer = nnx.Optimizer(model, optax.chain(SAM, optax.sgd(0.1)), wrt=nnx.Param)
    with pytest.raises(ValueError, match=r"needs grad_fn=.*pugd_optax.nnx.value_and_grad"):
        optimizer.update(model, nnx.grad(loss_alone)(model, X))


def test_models_and_states_in_the_door_for_trees_are_shown_their_own():
    model = Network(nnx.Rngs(0), rate=0.0)
    vg = pugd_optax.value_and_grad(loss_alone, SAM)
    with pytest.raises(ValueError, match=r"params is a model, Network of flax.nnx.*pugd_optax.nnx.value_and_grad"):
        vg(model, vg.init(nnx.state(model, nnx.Param)), X)
    params = nnx.state(model, nnx.Param)
    with pytest.raises(ValueError, match=r"'State' object is not callable.*pugd_optax.nnx.value_and_grad"):
        vg(params, vg.init(params), X)
