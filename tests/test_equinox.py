"""`pugd_optax.equinox`, and the ways to write an Optax chain with Equinox."""

# pyright: reportArgumentType=false

import functools

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec as P

import pugd_optax

X = jax.random.normal(jax.random.key(1), (8, 3))
Y = jnp.sin(X.sum(axis=1, keepdims=True))
SAM = pugd_optax.sam(radius=0.3)
MODEL = eqx.nn.MLP(3, 1, 8, 1, key=jax.random.key(0))


def loss_fn(model, x, y):
    return jnp.mean((jax.vmap(model)(x) - y) ** 2)


assert_close = functools.partial(chex.assert_trees_all_close, rtol=1e-5, atol=1e-7)


def by_hand(model, loss_fn=loss_fn):
    g = eqx.filter_grad(loss_fn)(model, X, Y)
    away = eqx.apply_updates(model, jax.tree.map(lambda x: 0.3 * x / optax.tree.norm(g), g))
    return eqx.filter_grad(loss_fn)(away, X, Y)


@pytest.mark.parametrize("compile", [eqx.filter_jit, lambda f: f], ids=["jit", "eager"])
def test_the_gradient_is_perturbed_and_the_loss_is_not(compile):
    vg = pugd_optax.equinox.filter_value_and_grad(loss_fn, SAM)
    loss, grads, state = compile(vg)(MODEL, vg.init(MODEL), X, y=Y)
    np.testing.assert_allclose(loss, loss_fn(MODEL, X, Y), rtol=1e-6)
    assert_close(grads, by_hand(MODEL))
    assert int(optax.tree.get(state, "step")) == 1


def test_state_in_the_auxiliary_output_moves_once_and_keys_are_shared():
    class Network(eqx.Module):
        norm: eqx.nn.BatchNorm
        dropout: eqx.nn.Dropout
        last: eqx.nn.Linear

        def __call__(self, x, state, key):
            x, state = self.norm(x, state)
            return self.last(self.dropout(x, key=key)), state

    def loss_fn(model, state, key):
        out, state = jax.vmap(model, axis_name="batch", in_axes=(0, None, 0), out_axes=(0, None))(X, state, key)
        return jnp.mean((out - Y) ** 2), state

    def build():
        norm = eqx.nn.BatchNorm(3, axis_name="batch", mode="ema")
        return Network(norm, eqx.nn.Dropout(0.5), eqx.nn.Linear(3, 1, key=jax.random.key(0)))

    (model, running), keys = eqx.nn.make_with_state(build)(), jax.random.split(jax.random.key(5), len(X))
    vg = pugd_optax.equinox.filter_value_and_grad(loss_fn, SAM, has_aux=True)
    (loss, moved), grads, _ = eqx.filter_jit(vg)(model, vg.init(model), running, keys)
    (clean, expected), _ = eqx.filter_value_and_grad(loss_fn, has_aux=True)(model, running, keys)
    np.testing.assert_allclose(loss, clean, rtol=1e-6)
    assert_close(jax.tree.leaves(moved), jax.tree.leaves(expected))
    assert_close(grads, by_hand(model, lambda model, x, y: loss_fn(model, running, keys)[0]))


def test_gates_and_extra_arguments():
    gap = pugd_optax.timing.generalization_gap(warmup=1, every=1)
    vg = pugd_optax.equinox.filter_value_and_grad(loss_fn, pugd_optax.sam(0.3, when=gap))
    losses = {"train_loss": 1.0, "val_loss": 2.0}
    _, idle, state = vg(MODEL, vg.init(MODEL), X, Y, extra_args=losses)
    assert_close(idle, eqx.filter_grad(loss_fn)(MODEL, X, Y))
    _, active, _ = vg(MODEL, state, X, Y, active=True, extra_args=losses)
    assert_close(active, by_hand(MODEL))


@pytest.mark.parametrize("where", ["groups", "devices", "all devices"])
def test_parts_of_the_batch_perturb_apart(where):
    vg = pugd_optax.equinox.filter_value_and_grad(loss_fn, SAM)
    each = [vg(MODEL, vg.init(MODEL), X[i : i + 4], Y[i : i + 4])[1] for i in (0, 4)]
    expected = jax.tree.map(lambda *g: sum(g) / 2, *each)
    if where == "groups":
        vg = pugd_optax.equinox.filter_value_and_grad(loss_fn, SAM, groups=2)
        _, grads, _ = eqx.filter_jit(vg)(MODEL, vg.init(MODEL), X, Y)
    else:
        perturb = "local" if where == "devices" else "global"
        vg = pugd_optax.equinox.filter_value_and_grad(loss_fn, SAM, axis_name="d", perturb=perturb)
        inside = lambda params, x, y: vg(eqx.combine(params, STATIC), vg.init(MODEL), x, y)[1]
        mesh = Mesh(np.array(jax.devices()[:2]), ("d",))
        split = jax.shard_map(inside, mesh=mesh, in_specs=(P(), P("d"), P("d")), out_specs=P())
        grads = jax.jit(split)(PARAMS, X, Y)
    assert_close(grads, by_hand(MODEL) if where == "all devices" else expected)


def test_modules_in_containers_are_not_split():
    """A teacher in a tuple is not part of the batch."""
    teacher = eqx.nn.MLP(3, 4, 8, 1, key=jax.random.key(7))

    def loss_fn(model, teachers, x):
        return jnp.mean((jax.vmap(model)(x) - jax.vmap(teachers[0])(x)[:, 3:]) ** 2)

    alone = lambda groups: pugd_optax.equinox.filter_value_and_grad(loss_fn, SAM, groups=groups)
    loss, _, _ = alone(2)(MODEL, SAM.init(PARAMS), (teacher,), X)
    np.testing.assert_allclose(loss, loss_fn(MODEL, (teacher,), X), rtol=1e-6)


def test_the_second_gradient_may_be_of_a_part_of_the_batch():
    vg = pugd_optax.equinox.filter_value_and_grad(loss_fn, SAM, second_batch=0.5)
    _, grads, _ = vg(MODEL, vg.init(MODEL), X, Y)
    g = eqx.filter_grad(loss_fn)(MODEL, X, Y)
    away = eqx.apply_updates(MODEL, jax.tree.map(lambda x: 0.3 * x / optax.tree.norm(g), g))
    assert_close(grads, eqx.filter_grad(loss_fn)(away, X[::2], Y[::2]))


def test_auxiliary_output_is_reduced_as_it_says():
    counted = lambda model, x, y: (loss_fn(model, x, y), jnp.float32(len(x)))
    vg = pugd_optax.equinox.filter_value_and_grad(counted, SAM, True, groups=2, aux_reduce="sum")
    assert vg(MODEL, vg.init(MODEL), X, Y)[0][1] == 8


def test_auxiliary_output_may_be_anything():
    vg = pugd_optax.equinox.filter_value_and_grad(
        lambda model: (loss_fn(model, X, Y), ("text", jax.nn.relu)), SAM, True
    )
    (_, aux), _, _ = vg(MODEL, vg.init(MODEL))
    assert aux == ("text", jax.nn.relu)


PARAMS, STATIC = eqx.partition(MODEL, eqx.is_inexact_array)


@pytest.mark.parametrize(
    "grad_fn",
    [
        lambda p: eqx.filter_grad(loss_fn)(eqx.combine(p, STATIC), X, Y),
        lambda p: jax.grad(lambda p: loss_fn(eqx.combine(p, STATIC), X, Y))(p),
        lambda p: eqx.filter_value_and_grad(loss_fn)(eqx.combine(p, STATIC), X, Y)[1],
    ],
    ids=["filter_grad", "jax.grad", "filter_value_and_grad"],
)
def test_spellings_of_a_chain_that_work(grad_fn):
    grads = eqx.filter_grad(loss_fn)(MODEL, X, Y)
    u, _ = SAM.update(grads, SAM.init(PARAMS), PARAMS, grad_fn=grad_fn)
    assert_close(u, by_hand(MODEL))


@pytest.mark.parametrize(
    ("params", "grad_fn", "message"),
    [
        (PARAMS, lambda m: eqx.filter_grad(loss_fn)(m, X, Y), "'NoneType' object is not callable"),
        (MODEL, lambda m: eqx.filter_grad(loss_fn)(m, X, Y), r"grads has another structure: no \.activation"),
        (eqx.filter(MODEL, eqx.is_array), None, "needs grad_fn="),
    ],
    ids=["params for the model", "the model for params", "no grad_fn"],
)
def test_other_spellings_name_the_right_call(params, grad_fn, message):
    grads = eqx.filter_grad(loss_fn)(MODEL, X, Y)
    with pytest.raises(ValueError, match=message) as caught:
        SAM.update(grads, SAM.init(params), params, grad_fn=grad_fn)
    assert "pugd_optax.equinox.filter_value_and_grad(loss_fn, tx)(model, state, *args)" in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_model_in_the_door_for_trees_is_shown_its_own():
    with pytest.raises(
        ValueError, match=r"params is a model, MLP of equinox.*pugd_optax.equinox.filter_value_and_grad"
    ):
        pugd_optax.value_and_grad(loss_fn, SAM).init(MODEL)
