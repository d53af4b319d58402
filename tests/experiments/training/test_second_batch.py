"""The second gradient on part of a batch: which examples, what it costs, and the step that follows."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pugd_optax
from experiments.config.errors import UsageError
from experiments.config.schema import Config
from experiments.data import augment
from experiments.runs.state import initial
from experiments.training import experiment, optimizer
from experiments.training.second_batch import raised, second_batch, spread
from experiments.training.step import make_step
from tests.experiments.training.test_step import small, some_data

SIZE, RATE, RADIUS = 6, 0.1, 0.1


def losses(params, model_state, rows):
    """Return the losses of the examples in `rows`, given the parameters and the state of the model."""
    from flax import nnx

    data, net = some_data(), small()
    model = nnx.merge(net.graphdef, params, model_state)
    model.train()
    logits = model(data.normalised(data.images[rows]))
    return optax.softmax_cross_entropy_with_integer_labels(logits, data.labels[rows])


@pytest.mark.parametrize("second", [spread(0.5), raised(0.5)])
def test_a_step_of_sam_takes_the_gradient_of_the_chosen_examples(second):
    net, base = small(), optax.sgd(RATE)
    method = pugd_optax.sam(RADIUS)
    state = initial(optax.chain(method, base), *net.init(0), seed=0)
    step = make_step(net.graphdef, method, base, augment.pipeline("none", 0, 0.0, 3), second=second)
    after, _ = jax.jit(step, static_argnames="active")(
        state, some_data(), np.arange(SIZE), jax.random.key(0), jnp.float32(0), active=True
    )
    params, model_state = net.init(0)
    rows = np.arange(SIZE)
    compiled = jax.jit(losses)
    gradient = jax.jit(jax.grad(lambda p, rows: losses(p, model_state, rows).mean()))
    g = gradient(params, rows)
    moved = jax.tree.map(lambda w, x: w + RADIUS * x / optax.tree.norm(g), params, g)
    increases = compiled(moved, model_state, rows) - compiled(params, model_state, rows)
    chosen = rows[::2] if second.cost == 0.5 else np.sort(np.argsort(increases)[-3:])
    expected = gradient(moved, chosen)
    found = jax.tree.map(lambda before, now: (before - now) / RATE, params, after.params)
    chex.assert_trees_all_close(found, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("method", "text", "cost"),
    [
        ("sam", "0.25", (1, 1.25)),
        ("pugd", "raised:0.5", (1, 1 + 0.5 + 1 / 3)),
        ("momentum_sam", "0.5", (1, 0.5)),
        ("sam", "1", (1, 2)),
    ],
)
def test_cost_of_a_step(method, text, cost):
    config = Config(method=method, second_batch=text)
    found = optimizer.build(config, steps_per_epoch=2, num_classes=3).cost
    np.testing.assert_allclose(found, cost)


@pytest.mark.parametrize(
    ("method", "text", "said"),
    [
        ("sam", "0", r"--second-batch 0: share=0: expected a number in \(0, 1\]"),
        ("sam", "raised:2", r"--second-batch raised:2: share=2"),
        ("sam", "half", "--second-batch half: share='half'"),
        ("sam", "rised:0.5", "did you mean 'raised'"),
        ("none", "0.5", "--method none evaluates no second gradient"),
        ("pegr", "0.5", "--method pegr evaluates no second gradient"),
    ],
)
def test_what_cannot_be_meant_is_answered(method, text, said):
    options = (("strength", "0.1"),) if method == "pegr" else ()
    with pytest.raises(UsageError, match=said):
        optimizer.build(
            Config(method=method, method_options=options, second_batch=text), steps_per_epoch=2, num_classes=3
        )


@pytest.mark.slow
def test_microbatches_must_divide_the_part():
    config = Config(model="mlp", method="sam", second_batch="0.1", accumulate=2, devices=1)
    with pytest.raises(UsageError, match="--accumulate 2: does not divide the 5"):
        experiment.prepare(config)
    experiment.prepare(dataclasses.replace(config, second_batch="0.2"))


def test_the_whole_batch_is_none():
    assert second_batch(1) is None
    assert second_batch(1.0) is None
