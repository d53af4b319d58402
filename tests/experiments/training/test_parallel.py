"""One training run, however it is split: over devices, into microbatches, into calls of several steps."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import pugd_optax
from experiments.config.errors import UsageError
from experiments.config.schema import Config
from experiments.data.pipeline import Source, channels
from experiments.data.split import split
from experiments.models.functional import network
from experiments.runs.state import State, initial
from experiments.training import parallel
from experiments.training.epoch import run_epoch
from experiments.training.evaluate import evaluate_each
from experiments.training.experiment import Experiment, prepare

BASE = Config(model="mlp", method="pugd", batch=16, train_size=48, val_size=40, epochs=1, devices=1, lr="0.1")


def start(experiment: Experiment) -> tuple[State, Source]:
    train = split(experiment.config, experiment.dataset, 0).train
    state = initial(experiment.optimizer.tx, *experiment.network.init(0), seed=0)
    return experiment.place(state), experiment.source(train, channels(train.images))


@functools.cache
def trained(**settings):
    """Return parameters, running statistics and metrics after an epoch of three steps."""
    experiment = prepare(dataclasses.replace(BASE, **settings))
    state, train = start(experiment)
    state, metrics = run_epoch(experiment, state, train, jax.random.key(0), jnp.float32(0), seed=0, epoch=1)
    return jax.device_get((state.params, state.model_state, metrics))


def assert_close(actual, expected, tolerance=1e-4):
    chex.assert_trees_all_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "resnet8"])
def test_one_program_over_any_number_of_devices_is_one_training(model):
    alone = trained(model=model)
    for devices in (2, 4, 8):
        assert_close(trained(model=model, devices=devices), alone)


@pytest.mark.slow
def test_under_jit_batch_norm_is_of_the_whole_batch():
    settings = {"model": "resnet8", "norm": "batch", "method": "none"}
    assert_close(trained(**settings, devices=4), trained(**settings))


def in_turn(method, devices):
    """Local perturbation without a mesh: the perturbed gradient of each device's rows, one by one, then their mean."""
    experiment = prepare(dataclasses.replace(BASE, method="none"))
    state, train = start(experiment)
    images, labels = train.data.normalised(train.data.images), train.data.labels
    forward = network("mlp", (8, 8, 1), 10, "group", "float32").graphdef
    params, model_state, base, method_state = (
        state.params,
        state.model_state,
        state.opt_state[1],
        method.init(state.params),
    )

    def loss(params, rows):
        logits = nnx.merge(forward, params, model_state)(images[rows])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()

    @jax.jit
    def perturbed(params, rows):
        gradient = lambda p: jax.grad(loss)(p, rows)
        return method.update(gradient(params), method_state, params, grad_fn=gradient)[0]

    for batch in np.random.default_rng([0, 4, 1]).permutation(48).reshape(3, 16):
        found = [perturbed(params, rows) for rows in np.split(batch, devices)]
        mean = jax.tree.map(lambda *g: sum(g) / devices, *found)
        updates, base = experiment.optimizer.base.update(mean, base, params)
        params = optax.apply_updates(params, updates)
    return jax.device_get(params)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["shard_map", "pmap"])
def test_a_program_for_each_device_perturbs_with_its_own_examples(mode):
    params, _, metrics = trained(method="sam", method_options=(("radius", "0.5"),), parallel=mode, devices=4)
    assert_close(params, in_turn(pugd_optax.sam(radius=0.5), devices=4))
    together, _, _ = trained(method="sam", method_options=(("radius", "0.5"),), devices=4)
    assert max(np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (params, together)), strict=True)) > 1e-3
    assert metrics.active.all()


@pytest.mark.parametrize(
    ("mode", "method", "options"),
    [
        ("pmap", "lpg", ()),
        ("shard_map", "lpg", ()),
        ("shard_map", "lpl", ()),
        ("shard_map", "pegr", (("strength", "0.01"),)),
    ],
)
def test_methods_of_logits_and_of_single_examples_are_the_same_in_every_mode(mode, method, options):
    local = trained(method=method, method_options=options, parallel=mode, devices=4)
    assert_close(local[:2], trained(method=method, method_options=options)[:2])


def test_a_program_for_each_device_takes_one_all_reduce():
    experiment = prepare(dataclasses.replace(BASE, method="sam", parallel="shard_map", devices=4))
    state, train = start(experiment)
    feed = np.zeros((1, 16), np.int32)
    lowered = experiment.step.trace.lower(state, train.data, feed, jax.random.key(0), jnp.float32(0), active=True)
    text = lowered.compile().as_text()
    assert sum(" all-reduce(" in line or " all-reduce-start(" in line for line in text.splitlines()) == 1


def test_devices_draw_their_own_augmentation():
    experiment = prepare(dataclasses.replace(BASE, augment="crop", parallel="shard_map", devices=2, method="none"))
    state, train = start(experiment)
    feed = np.zeros((1, 16), np.int32)  # one example, over and over
    drawn = lambda key: parallel.over_devices({"x": jax.random.uniform(key)})["x"]
    call = lambda state, data, feed, key, val_loss, *, active: (drawn(key), jax.random.uniform(key))
    program = parallel.MODES["shard_map"](call, experiment.layout.mesh)
    mean, own = program(state, train.data, feed, jax.random.key(0), jnp.float32(0), active=True)
    assert float(mean) != pytest.approx(float(own), abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"method_options": (("when", "after:0.34"),)}, {"method": "ae_sam"}], ids=str)
def test_several_steps_a_call_are_the_same_steps(settings):
    assert_close(trained(**settings, steps_per_call=2), trained(**settings))


def test_a_run_goes_on_in_the_middle_of_a_call():
    experiment = prepare(dataclasses.replace(BASE, steps_per_call=2))
    state, train = start(experiment)
    whole = trained(steps_per_call=2)
    state, first = run_epoch(
        experiment, state, train, jax.random.key(0), jnp.float32(0), 0, 1, pause=lambda done: done == 2
    )
    state, second = run_epoch(experiment, state, train, jax.random.key(0), jnp.float32(0), 0, 1, start=2)
    assert (len(first.loss), len(second.loss)) == (2, 1)
    chex.assert_trees_all_equal(jax.device_get(state.params), whole[0])


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"model": "resnet8"}, marks=pytest.mark.slow),
        {"method": "lpg"},
        {"flooding": "flood:1.0"},
        {"method": "pegr", "method_options": (("strength", "0.1"),)},
        pytest.param(
            {"method": "pegr", "method_options": (("strength", "0.1"), ("group_size", "4"))}, marks=pytest.mark.slow
        ),
        {"devices": 2, "parallel": "shard_map"},
    ],
    ids=str,
)
def test_a_batch_in_pieces_is_the_whole_batch(settings):
    assert_close(trained(**settings, accumulate=4), trained(**settings))


def test_evaluation_on_several_devices_covers_every_example_once():
    experiment = prepare(dataclasses.replace(BASE, devices=8))
    state, train = start(experiment)
    on_eight = evaluate_each(
        experiment.network.graphdef, state.params, state.model_state, train, experiment.layout.mesh, chunk=20
    )
    alone = evaluate_each(experiment.network.graphdef, state.params, state.model_state, train)
    assert on_eight[0].shape == (48,)
    assert_close(on_eight, alone)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"devices": 3}, r"--batch 16: not divisible by 3 devices; --devices 2"),
        ({"devices": 9}, r"--devices 9: only 8 available"),
        ({"devices": 4, "accumulate": 3}, r"--accumulate 3: does not divide the 4 examples of each device"),
        ({"method": "ae_sam", "devices": 2, "parallel": "shard_map"}, r"--parallel jit"),
        (
            {"method": "pegr", "method_options": (("strength", "0.1"), ("group_size", "2")), "accumulate": 4},
            r"ghost norms cannot follow",
        ),
        (
            {
                **{"model": "resnet8", "norm": "batch", "accumulate": 2, "method": "pegr"},
                "method_options": (("strength", "0.1"), ("penalty", "signs")),
            },
            r"BatchNorm",
        ),
        ({"devices": 0}, r"--devices 0: expected at least 1"),
    ],
)
def test_what_cannot_be_divided_is_one_line(settings, complaint):
    with pytest.raises(UsageError, match=complaint) as error:
        prepare(dataclasses.replace(BASE, **settings))
    assert "\n" not in str(error.value)


def test_several_processes_take_all_devices_so_that_the_batch_has_to_fit(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UsageError, match=r"--batch 50: not divisible by 8 devices; choose a multiple of 8$"):
        parallel.layout("jit", batch=50)
