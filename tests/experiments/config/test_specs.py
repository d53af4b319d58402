"""Text to numbers, schedules, gates and masks."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.config import specs
from experiments.config.errors import UsageError


@pytest.mark.parametrize(
    ("text", "meaning"),
    [("3", 3), ("-0.5", -0.5), ("1e-3", 1e-3), ("True", True), ("none", None), ("norm_ratio", "norm_ratio")],
)
def test_literals_keep_their_type(text, meaning):
    made = specs.value(text, steps=10)
    assert made == meaning
    assert type(made) is type(meaning)


def test_schedules_span_the_run():
    steps = np.arange(101)
    for text, formula in {
        "cosine:2.0:0.5": 0.5 + 0.75 * (1 + np.cos(np.pi * steps / 100)),
        "linear:1:3": 1 + 2 * steps / 100,
        "quarter:sin:2:0.01": 0.01 + 1.99 * np.sin(np.pi * steps / 200),
        "constant:0.3": np.full(101, 0.3),
        "cosine_decay:0.1": 0.05 * (1 + np.cos(np.pi * steps / 100)),
    }.items():
        made = jax.vmap(specs.schedule(text, steps=100))(jnp.arange(101))  # pyright: ignore
        np.testing.assert_allclose(jnp.broadcast_to(made, 101), formula, atol=1e-6, err_msg=text)


def test_a_fraction_where_steps_are_meant_is_one_of_the_run():
    schedule: Any = specs.schedule("warmup_cosine_decay:0:0.1:0.25", steps=40)
    assert float(schedule(10)) == pytest.approx(0.1)
    assert float(schedule(40)) == pytest.approx(0.0, abs=1e-7)


def test_drops_follow_a_rise():
    schedule: Any = specs.schedule("drops:0.1:0.01:0.8:0.9:warmup=0.1", steps=100)
    expected = {0: 0.0, 5: 0.05, 10: 0.1, 79: 0.1, 80: 1e-3, 89: 1e-3, 90: 1e-5, 99: 1e-5}
    assert {t: float(schedule(t)) for t in expected} == pytest.approx(expected)
    once: Any = specs.schedule("drops:0.5:0.1:50", steps=100)
    assert [float(once(t)) for t in (0, 49, 50, 99)] == pytest.approx([0.5, 0.5, 0.05, 0.05])


def test_keywords_and_restarts():
    schedule: Any = specs.schedule("cosine:2:0:cycles=2", steps=100)
    assert float(schedule(50)) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("text", "active"),
    [
        ("after:0.5", range(10, 20)),
        ("after:3", range(3, 20)),
        ("between:0:0.25", range(5)),
        ("every:5", range(0, 20, 5)),
        ("every:5:offset=2", range(2, 20, 5)),
        ("bernoulli:1.0", range(20)),
    ],
)
def test_gates_by_step(text, active):
    made = jax.vmap(specs.gate(text, steps=20))(jnp.arange(20))
    assert np.flatnonzero(made).tolist() == list(active)


def test_gates_with_memory_take_a_tenth_of_the_run_as_reference():
    gate, state, fired = specs.gate("low_variance:window=2", steps=40), None, []
    state = gate.init({})
    for t, size in enumerate([1.0, 9.0, 2.0, 8.0, 3.0, 3.1]):
        active, state = gate.update(state, {"w": jnp.float32(size)}, step=jnp.int32(t))
        fired.append(bool(active))
    assert fired == [False] * 5 + [True]


def test_masks():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    assert specs.mask("matrices")(params) == {"kernel": True, "bias": False}
    assert specs.mask("vectors")(params) == {"kernel": False, "bias": True}


def test_every_known_schedule_is_a_function_of_optax_or_ours():
    assert specs.SCHEDULES["linear"] is optax.linear_schedule
    assert {"cosine", "quarter", "half_cosine", "quarter_wave", "exponential_decay"} <= set(specs.SCHEDULES)
    assert {"after", "between", "every", "bernoulli", "low_variance", "large_gradient"} <= set(specs.GATES)
    assert all(name and callable(f) for name, f in specs.SCHEDULES.items())


@pytest.mark.parametrize(
    ("read", "complaint"),
    [
        (lambda: specs.schedule("cosin:1:0", 10), "did you mean 'cosine'"),
        (lambda: specs.schedule("unit", 10), "neither a number nor a schedule"),
        (lambda: specs.schedule("cosine:1:0:2:3", 10), "too many arguments"),
        (lambda: specs.schedule("cosine:1", 10), "needs min"),
        (lambda: specs.schedule("cosine:1:0:cycle=2", 10), "did you mean 'cycles'"),
        (lambda: specs.gate("aftr:3", 10), "did you mean 'after'"),
        (lambda: specs.gate("after:1.5", 10), "fraction of training"),
        (lambda: specs.mask("matrix"), "did you mean 'matrices'"),
        (lambda: specs.call("method f", lambda radius: radius, {"radus": 1}, {}), "did you mean 'radius'"),
    ],
)
def test_wrong_text_is_answered_with_the_right_one(read, complaint):
    with pytest.raises(UsageError, match=complaint):
        read()


def test_own_checks_speak_through():
    with pytest.raises(ValueError, match="min"):
        specs.schedule("cosine:1:2", 10)
    assert math.isclose(specs.call("f", lambda a, b=2: a / b, {"a": 3}, {"b": 4, "c": 5}), 0.75)
