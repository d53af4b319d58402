"""Parsing text into numbers, schedules, gates and masks, and the errors for wrong text."""

import math
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.config import schedules
from experiments.config.errors import UsageError
from experiments.config.specs import Spec, colon_usage, dotted, spec, value


@pytest.mark.parametrize(
    ("text", "meaning"),
    [("3", 3), ("-0.5", -0.5), ("1e-3", 1e-3), ("True", True), ("none", None), ("norm_ratio", "norm_ratio")],
)
def test_literals_keep_their_type(text, meaning):
    made = value(text)
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
        made = jax.vmap(schedules.number(value(text), steps=100))(jnp.arange(101))  # pyright: ignore
        np.testing.assert_allclose(jnp.broadcast_to(made, 101), formula, atol=1e-6, err_msg=text)


def test_a_fraction_where_steps_are_meant_is_one_of_the_run():
    schedule: Any = schedules.number(value("warmup_cosine_decay:0:0.1:0.25"), steps=40)
    assert float(schedule(10)) == pytest.approx(0.1)
    assert float(schedule(40)) == pytest.approx(0.0, abs=1e-7)


def test_drops_follow_a_rise():
    schedule: Any = schedules.number(value("drops:0.1:0.01:0.8:0.9:warmup=0.1"), steps=100)
    expected = {0: 0.0, 5: 0.05, 10: 0.1, 79: 0.1, 80: 1e-3, 89: 1e-3, 90: 1e-5, 99: 1e-5}
    assert {t: float(schedule(t)) for t in expected} == pytest.approx(expected)
    once: Any = schedules.number(value("drops:0.5:0.1:50"), steps=100)
    assert [float(once(t)) for t in (0, 49, 50, 99)] == pytest.approx([0.5, 0.5, 0.05, 0.05])


def test_keywords_and_restarts():
    schedule: Any = schedules.number(value("cosine:2:0:cycles=2"), steps=100)
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
    made = jax.vmap(schedules.gate(value(text), steps=20))(jnp.arange(20))
    assert np.flatnonzero(made).tolist() == list(active)


def test_gates_with_memory_take_a_tenth_of_the_run_as_reference():
    gate, state, fired = schedules.gate(value("low_variance:window=2"), steps=40), None, []
    state = gate.init({})
    for t, size in enumerate([1.0, 9.0, 2.0, 8.0, 3.0, 3.1, 9.0]):
        active, state = gate.update(state, {"w": jnp.float32(size)}, step=jnp.int32(t))
        fired.append(bool(active))
    assert fired == [False] * 6 + [True]


def test_triggers_check_once_an_epoch_and_their_reference_is_an_epoch_at_least():
    gate, fired = schedules.gate(value("generalization_gap:factor=2.0"), steps=12, steps_per_epoch=4), []
    state = gate.init({})
    for t in range(12):
        gap = jnp.float32(jnp.nan if t < 4 else 0.1 if t < 8 else 0.3)
        active, state = gate.update(state, {}, step=jnp.int32(t), train_loss=0.0, val_loss=gap)
        fired.append(bool(active))
    assert fired == [False] * 8 + [True] * 4


def test_the_tail_is_that_of_the_learning_rate():
    gate = schedules.gate(value("tail:0.25"), steps=20, lr=optax.linear_schedule(0.1, 0.0, 20))
    assert np.flatnonzero(jax.vmap(gate)(jnp.arange(20))).tolist() == list(range(15, 20))
    for lr, complaint in [(optax.constant_schedule(0.1), "can never be active"), (0.1, "expected a schedule")]:
        with pytest.raises(UsageError, match=f"tail:0.25: .*{complaint}"):
            schedules.gate(value("tail:0.25"), steps=20, lr=lr)


def test_masks():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    assert schedules.mask("matrices")(params) == {"kernel": True, "bias": False}
    assert schedules.mask("vectors")(params) == {"kernel": False, "bias": True}


def test_every_known_schedule_is_a_function_of_optax_or_ours():
    assert schedules.SCHEDULES["linear"] is optax.linear_schedule
    assert {"cosine", "quarter", "half_cosine", "quarter_wave", "exponential_decay"} <= set(schedules.SCHEDULES)
    assert {"after", "between", "every", "bernoulli", "low_variance", "large_gradient"} <= set(schedules.GATES)
    assert all(name and callable(f) for name, f in schedules.SCHEDULES.items())


@pytest.mark.parametrize(
    ("read", "complaint"),
    [
        (lambda: schedules.number(value("cosin:1:0"), steps=10), "did you mean 'cosine'"),
        (lambda: schedules.rate(value("unit"), 10), "neither a number nor a schedule"),
        (lambda: schedules.number(value("cosine:1:0:2:3"), steps=10), "too many arguments"),
        (lambda: schedules.number(value("cosine:1"), steps=10), "needs min"),
        (lambda: schedules.number(value("cosine:1:0:cycle=2"), steps=10), "did you mean 'cycles'"),
        (lambda: schedules.gate(value("aftr:3"), steps=10), "did you mean 'after'"),
        (lambda: schedules.gate(value("after:1.5"), steps=10), "fraction of training"),
        (lambda: schedules.mask("matrix"), "did you mean 'matrices'"),
        (
            lambda: schedules.number(value("cosine:1", "--lr"), 10),
            r"--lr cosine:1: needs min; expected cosine:max:min\[",
        ),
        (
            lambda: dotted("--method", "F", []).build("method", {"f": abs}),
            r"did you mean 'f'\? Usage: --method f ",
        ),
        (lambda: spec("f:1.5").build("", {"f": whole}), "expected a whole number"),
    ],
)
def test_wrong_text_is_answered_with_the_right_one(read, complaint):
    with pytest.raises(UsageError, match=complaint):
        read()


def whole(count: int) -> int:
    return count


def test_own_checks_name_the_option():
    with pytest.raises(UsageError, match=r"--lr cosine:1:2: .*min"):
        schedules.number(value("cosine:1:2", "--lr"), 10)


def test_arguments_by_position_by_name_and_filled_in():
    divide = lambda a, b=2: a / b
    assert math.isclose(spec("f:3").build("", {"f": divide}, fills={"b": 4, "c": 5}), 0.75)
    assert math.isclose(spec("f:b=4:3").build("", {"f": divide}), 0.75)
    made = dotted("--method", "f", [("b", "cosine:1:0"), ("a", "3")])
    assert made.build("", {"f": lambda a, b: (a, b)}) == (3, spec("cosine:1:0", "--method.b"))


def test_a_last_argument_that_is_text_takes_the_rest():
    own = lambda folder, file: (folder, file)
    own.__annotations__["file"] = str
    assert spec("npz:C:/a=b:2").build("", {"npz": own}, fills={"folder": None}) == (None, "C:/a=b:2")
    assert spec("npz:2024").build("", {"npz": own}, fills={"folder": None}) == (None, "2024")


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_what_is_written_as_the_usage_says_is_parsed(name):
    usage = colon_usage(name, schedules.SCHEDULES[name])
    assert isinstance(value(f"{usage}:1"), Spec)
    assert usage.startswith(name)


def test_no_other_module_takes_options_apart():
    """Only `config/specs.py` parses options; the colon in `sources/files.py` is part of a checksum, `md5:...`."""
    root = Path(__file__).parents[3] / "experiments"
    parser = re.compile(r"\.r?(?:split|partition)\([\"']:")
    found = {path.relative_to(root).as_posix() for path in root.rglob("*.py") if parser.search(path.read_text())}
    assert found == {"config/specs.py", "data/sources/files.py"}
