"""One step: running statistics of the first pass, static gates, augmentation, evaluation."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import pugd_optax
from experiments.data import augment
from experiments.data.batch import Data
from experiments.data.pipeline import Source, resident
from experiments.models.functional import Network, network
from experiments.models.zoo import constructor
from experiments.runs.state import State, initial
from experiments.training.evaluate import evaluate
from experiments.training.step import make_step


class Small(nnx.Module):
    """A network of a dense layer, BatchNorm and a dense layer."""

    def __init__(self, rngs: nnx.Rngs):
        self.first, self.norm = nnx.Linear(16, 8, rngs=rngs), nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(nnx.relu(self.norm(self.first(x.reshape(len(x), -1)))))


def small() -> Network:
    graphdef, params, model_state = nnx.split(Small(nnx.Rngs(0)), nnx.Param, ...)
    return Network(graphdef, lambda seed: (nnx.to_pure_dict(params), nnx.to_pure_dict(model_state)))


def some_data(count: int = 12) -> Data:
    images = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 1), np.uint8)
    labels = jnp.arange(count, dtype=jnp.int32) % 3
    return Data(jnp.asarray(images), labels, jnp.full((1, 1, 1, 1), 127.0), jnp.full((1, 1, 1, 1), 70.0))


def one_step(method, base=None, active=None, **options) -> tuple[State, dict[str, jax.Array]]:
    net, data, base = small(), some_data(), base or optax.sgd(0.1)
    state = initial(optax.chain(method, base), *net.init(0), seed=0)
    step = make_step(net.graphdef, method, base, augment.pipeline("none", 0, 0.0, 3), **options)
    step = jax.jit(step, static_argnames="active")
    state, metrics = step(state, data, np.arange(6), jax.random.key(0), jnp.float32(0), active=active)
    return state, metrics._asdict()


@pytest.mark.parametrize("active", [True, None])
def test_running_statistics_are_those_of_the_first_pass(active):
    state, _ = one_step(pugd_optax.pugd(radius=2.0), active=active)
    params, model_state = small().init(0)
    data = some_data()
    x = np.asarray(data.normalised(data.images[:6]), np.float64).reshape(6, 16)
    hidden = x @ np.asarray(params["first"]["kernel"], np.float64) + np.asarray(params["first"]["bias"])
    np.testing.assert_allclose(state.model_state["norm"]["mean"], 0.1 * hidden.mean(0), atol=1e-6)
    np.testing.assert_allclose(state.model_state["norm"]["var"], 0.9 + 0.1 * hidden.var(0), atol=1e-6)
    assert not jnp.array_equal(state.model_state["norm"]["mean"], model_state["norm"]["mean"])


def test_the_reported_loss_is_the_clean_one():
    _, plain = one_step(optax.identity())
    _, perturbed = one_step(pugd_optax.sam(radius=0.5), active=True)
    assert float(perturbed["loss"]) == pytest.approx(float(plain["loss"]), rel=1e-6)
    assert float(perturbed["radius"]) == 0.5
    assert bool(perturbed["active"])
    assert not bool(plain["active"])


def test_the_metrics_are_those_of_the_two_gradients():
    _, metrics = one_step(pugd_optax.sam(radius=0.5, report=True))
    params, data = small().init(0)[0], some_data()

    def logits(params):
        nnx.update(model := Small(nnx.Rngs(0)), params)
        return model(data.normalised(data.images[:6]))

    gradient = jax.grad(lambda p: optax.softmax_cross_entropy_with_integer_labels(logits(p), data.labels[:6]).mean())
    g = gradient(params)
    length = optax.tree.norm(g)
    star = gradient(jax.tree.map(lambda w, x: w + 0.5 * x / length, params, g))
    assert abs(optax.tree.norm(star) / length - 1) > 0.01
    expected = {"grad_norm": length, "perturbed_grad_norm": optax.tree.norm(star), "radius": 0.5, "active": True}
    expected["cosine"] = optax.tree.vdot(g, star) / length / expected["perturbed_grad_norm"]
    expected["accuracy"] = (logits(params).argmax(-1) == data.labels[:6]).mean()
    chex.assert_trees_all_close({name: metrics[name] for name in expected}, expected, rtol=1e-4)


def test_an_idle_step_is_a_step_of_the_base_optimizer():
    base = optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.1, momentum=0.9))
    expected, _ = one_step(optax.identity(), base)
    for active in (False, None):
        state, _ = one_step(pugd_optax.sam(when=pugd_optax.timing.after(5)), base, active)
        chex.assert_trees_all_close(state.params, expected.params, atol=1e-7)


def test_a_static_gate_equals_the_traced_one():
    (a, _), (b, _) = (one_step(pugd_optax.pugd(), active=active) for active in (True, None))
    chex.assert_trees_all_close(a.params, b.params, atol=1e-6)


@pytest.mark.parametrize(("name", "differ"), [("crop_flip", True), ("none", False)])
def test_the_same_examples_are_augmented_in_another_way_at_the_next_step(name, differ):
    net, data = small(), some_data()
    step = make_step(net.graphdef, optax.identity(), optax.sgd(0.1), augment.pipeline(name, 0, 0.0, 3))
    state = initial(optax.chain(optax.identity(), optax.sgd(0.1)), *net.init(0), seed=0)
    given = data, np.arange(6), jax.random.key(0), jnp.float32(0)
    first, second = (step(s, *given, active=None)[1].loss for s in (state, state._replace(step=state.step + 1)))
    assert (float(first) != float(second)) == differ


def test_keys_that_a_method_carries_differ_by_seed():
    def update(updates, state, params=None):
        return updates, state

    carrier: Any = optax.GradientTransformation(lambda params: jax.random.key(0), update)
    first, second = (initial(carrier, {}, {}, seed).opt_state for seed in (0, 1))
    assert (jax.random.key_data(first) != jax.random.key_data(second)).any()  # pyright: ignore


def test_evaluation_covers_every_example_once():
    net, data = network("mlp", (4, 4, 1), 3, "group", "float32"), some_data(25)
    params, model_state = net.init(0)
    model = constructor("mlp", image_shape=(4, 4, 1), num_classes=3)(nnx.Rngs(0))
    nnx.update(model, params)
    logits = model(data.normalised(data.images))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, data.labels)
    loss, accuracy = evaluate(net.graphdef, params, model_state, Source(data, resident), chunk=10)
    assert loss == pytest.approx(float(losses.mean()), rel=1e-5)
    assert accuracy == pytest.approx(float((logits.argmax(-1) == data.labels).mean()))


def test_crops_are_windows_of_the_padded_image_and_flips_their_mirror():
    image = jnp.arange(1, 65, dtype=jnp.uint8).reshape(8, 8, 1)
    images = jnp.stack([image] * 40)
    padded = np.pad(image[..., 0], 4)
    windows = {padded[i : i + 8, j : j + 8].tobytes() for i in range(9) for j in range(9)}
    mirrored = {
        np.ascontiguousarray(padded[i : i + 8, j : j + 8][:, ::-1]).tobytes() for i in range(9) for j in range(9)
    }
    crops = [np.asarray(x[..., 0]).tobytes() for x in augment.crop(jax.random.key(0), images)]
    assert set(crops) <= windows
    assert len(set(crops)) > 20
    flips = [np.asarray(x[..., 0]).tobytes() for x in augment.crop_flip(jax.random.key(0), images)]
    assert set(flips) <= windows | mirrored
    assert set(flips) & windows
    assert set(flips) & mirrored
    assert augment.crop_flip(jax.random.key(0), images).dtype == jnp.uint8
