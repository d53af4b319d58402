"""Optimizer chains made from settings, their costs, and gates that are known in advance."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pugd_optax
from experiments.config.errors import UsageError
from experiments.config.schema import Config
from experiments.training import gate_plan, optimizer
from pugd_optax import per_example, timing


def build(**settings) -> Any:
    return optimizer.build(dataclasses.replace(Config(epochs=2), **settings), steps_per_epoch=10, num_classes=3)


def test_a_gate_of_the_step_count_is_known_ahead():
    plan = build(method="pugd", method_options=(("when", "after:0.25"),)).plan
    np.testing.assert_array_equal(plan, np.arange(20) >= 5)
    looksam = build(method="looksam", method_options=(("every", "4"),))
    np.testing.assert_array_equal(looksam.plan, np.arange(20) % 4 == 0)
    coins = timing.bernoulli(0.5, 0)
    np.testing.assert_array_equal(build(method="rst").plan, [bool(coins(t)) for t in range(20)])
    assert not np.any(build(method="none").plan)


def test_a_gate_with_memory_is_not():
    assert build(method="sam", method_options=(("when", "low_variance"),)).plan is None
    assert build(method="ae_sam").plan is None


@pytest.mark.parametrize(
    ("tx", "cost"),
    [
        (optax.identity(), (1, 1)),
        (pugd_optax.pugd(), (1, 2)),
        (pugd_optax.amp(steps=3), (1, 4)),
        (pugd_optax.momentum_sam(), (1, 1)),
        (pugd_optax.noise_injection(), (1, 1)),
        (pugd_optax.nso(), (1, 2)),
        (pugd_optax.lpg(2, inner=pugd_optax.sam()), (1, 2)),
        (pugd_optax.gradient_regularization(0.1, 0.1), (1, 2)),
        (pugd_optax.gradient_regularization(0.1, 0.1, "exact"), (1, 3)),
        (pugd_optax.pegr(0.1), (1, 2)),
        (pugd_optax.pegr(0.1, per_example.signs(0)), (1, 3)),
    ],
)
def test_costs_are_counted_in_gradient_evaluations(tx, cost):
    assert gate_plan.cost(tx) == cost


def test_weight_decay_and_momentum_come_after_the_method():
    made = build(method="pugd", lr="0.1", weight_decay=0.5)
    w = jnp.array([[1.0, 2.0]])
    state = made.tx.init(w)
    updates, _ = made.tx.update(w, state, w, grad_fn=lambda p: p, active=True)
    method: Any = pugd_optax.pugd()
    u, _ = method.update(w, method.init(w), w, grad_fn=lambda p: p)
    np.testing.assert_allclose(updates, -0.1 * (np.asarray(u) + 0.5 * np.asarray(w)), rtol=1e-6)


def test_an_optimizer_with_weight_decay_of_its_own_gets_it():
    w, g = jnp.array([1.0, -2.0]), jnp.array([0.3, 0.1])
    made = build(optimizer="adamw", lr="0.01", weight_decay=0.3, optimizer_options=(("b1", "0.8"),))
    expected: Any = optax.adamw(0.01, b1=0.8, weight_decay=0.3)
    ours, _ = made.tx.update(g, made.tx.init(w), w)
    theirs, _ = expected.update(g, expected.init(w), w)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("name", ["lion", "muon", "rmsprop", "lars", "adam"])
def test_optimizers_by_name(name):
    made, w = build(optimizer=name), {"w": jnp.ones((2, 2))}
    updates, _ = made.tx.update(w, made.tx.init(w), w)
    assert float(jnp.abs(updates["w"]).sum()) > 0


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"method": "pudg"}, r"did you mean 'pugd'\? Usage: --method pugd \[--method.radius 1.0\]"),
        ({"method": "SAM"}, "did you mean 'sam'"),
        ({"optimizer": "adamaxx"}, r"did you mean 'adamax'\?.*Known: (?!.*_deprecated)"),
        ({"method": "pugd", "method_options": (("radus", "1"),)}, "did you mean 'radius'"),
        ({"method": "pegr"}, "needs strength"),
        ({"optimizer": "sdg"}, "did you mean 'sgd'"),
        ({"optimizer": "scale_by_rprop"}, "unknown optimizer 'scale_by_rprop'"),  # a part of rprop, which goes uphill
        ({"optimizer_options": (("nestrov", "true"),)}, "did you mean 'nesterov'"),
        ({"lr": "fast"}, "neither a number nor a schedule"),
        ({"lr": "-0.1"}, "--lr -0.1: -0.1 in a learning rate; expected finite numbers >= 0"),
        ({"lr": "nan"}, "--lr nan: nan in a learning rate"),
        ({"lr": "cosine:0.1:-0.2"}, "--lr cosine:0.1:-0.2: -0.2 in"),
        ({"lr": "drops:0.1:0.1:0.5:warmup=-1"}, "warmup=-1: -1 in"),
        (
            {"optimizer_options": (("nesterov", "maybe"),)},
            "nesterov is 'maybe'; expected true or false",
        ),
        ({"optimizer_options": (("nesterov", "2"),)}, "nesterov is 2; expected true or false"),
        ({"method": "lpg", "method_options": (("renormalize", "maybe"),)}, "--method lpg: renormalize is 'maybe'"),
        ({"optimizer_options": (("learning_rate", "0.5"),)}, "--optimizer.learning_rate 0.5: use --lr 0.5"),
    ],
)
def test_wrong_settings(settings, complaint):
    with pytest.raises(UsageError, match=complaint):
        build(**settings)


UNFIT = {
    "lbfgs": "needs the loss as a function",
    "sophia": "needs the loss as a function",
    "schedule_free_sgd": "uses different parameters for evaluation",
    "schedule_free_adamw": "uses different parameters for evaluation",
}


@pytest.mark.parametrize("name", UNFIT)
def test_optimizers_that_want_more_than_a_gradient_are_refused(name):
    with pytest.raises(UsageError, match=f"--optimizer {name}: {UNFIT[name]}.*; choose another, such as sgd or adamw"):
        build(optimizer=name)


@pytest.mark.parametrize("name", ["rprop", "sm3"])
def test_a_learning_rate_that_cannot_be_a_schedule(name):
    with pytest.raises(
        UsageError, match=f"--optimizer {name}: takes no schedule, such as --lr cosine:.*; give a number"
    ):
        build(optimizer=name)
    assert build(optimizer=name, lr="0.01").lr[0] == 0.01


def test_costs_are_counted_where_jax_runs_on_a_gpu(monkeypatch):
    """On a GPU, JAX analyses the cost of an uncompiled program only if the program is made for the CPU."""
    count, cpu = jax.stages.Lowered.cost_analysis, jax.devices("cpu")[0]
    on_gpu = lambda self: count(self) if jax.config.jax_default_device == cpu else None  # pyright: ignore
    monkeypatch.setattr(jax.stages.Lowered, "cost_analysis", on_gpu)
    assert gate_plan.cost(pugd_optax.sam()) == (1, 2)
    assert gate_plan.cost(optax.identity()) == (1, 1)


def test_without_a_cpu_costs_cannot_be_counted(monkeypatch):
    def unknown(**_):
        raise RuntimeError("Unknown backend cpu")

    monkeypatch.setattr(jax, "local_devices", unknown)
    with pytest.raises(
        UsageError, match="JAX_PLATFORMS must include cpu, where the cost of a method is counted, such as"
    ):
        build(method="sam")


@pytest.mark.parametrize("tx", [pugd_optax.lpl(num_classes=1000), pugd_optax.lpg(num_classes=1000)])
def test_operations_on_a_thousand_classes_are_no_gradients(tx):
    assert gate_plan.cost(tx, num_classes=1000) == (1, 1)
