"""Each schedule against plain Python over all of its steps and beyond."""

# Optax types every tree as a union that cannot be subscripted, and schedules take any ArrayLike.
# pyright: reportArgumentType=false

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pugd_optax import schedules

QUARTERS = {
    "cos": lambda x, low, high: low + (high - low) * math.cos(x),
    "sin": lambda x, low, high: low + (high - low) * math.sin(x),
    "icos": lambda x, low, high: 1 / (low + (high - low) * math.cos(x)),
    "isin": lambda x, low, high: 1 / (low + (high - low) * math.sin(x)),
}


def values(schedule, steps):
    """The values of a schedule, after a check that single calls and a vmap under jit agree."""
    single = np.asarray([float(schedule(t)) for t in range(steps)])
    at_once = np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(steps)))
    np.testing.assert_allclose(single, at_once, rtol=1e-4, atol=1e-6)
    return at_once


@pytest.mark.parametrize("kind", QUARTERS)
@pytest.mark.parametrize(("high", "low"), [(2.0, 0.01), (1.0, 1.0), (3.0, 0.5)])
def test_quarter_wave(kind, high, low):
    steps = 37
    expected = [QUARTERS[kind](math.pi * min(t, steps) / 2 / steps, low, high) for t in range(steps + 5)]
    np.testing.assert_allclose(values(schedules.quarter_wave(kind, high, low, steps), steps + 5), expected, rtol=2e-4)


@pytest.mark.parametrize(("kind", "first", "last"), [("cos", 2.0, 0.0), ("sin", 0.0, 2.0)])
@pytest.mark.parametrize("steps", [1, 7, 1000, 123_457])
def test_quarter_wave_reaches_its_bounds_exactly(kind, first, last, steps):
    """The bounds are reached exactly; rounding must not give a negative radius such as -9e-8."""
    schedule = schedules.quarter_wave(kind, 2.0, 0.0, steps)
    assert [float(jax.jit(schedule)(t)) for t in (0, steps, steps + 1)] == [first, last, last]


def test_inverse_quarter_wave_ends_at_one_over_min():
    for kind, last in [("icos", 1 / 1e-7), ("isin", 0.5)]:
        np.testing.assert_allclose(schedules.quarter_wave(kind, 2.0, 1e-7, 50)(50), last, rtol=1e-5)


@pytest.mark.parametrize(("steps", "cycles"), [(100, 1), (100, 2), (90, 3), (90, 9), (820, 41), (980, 49), (17, 5)])
def test_half_cosine(steps, cycles):
    """Restarts happen at the exact step, regardless of how float32 rounds t / T."""

    def reference(t):
        within = 1.0 if t >= steps else (t * cycles % steps) / steps
        return 0.25 + 0.5 * (2.0 - 0.25) * (1 + math.cos(math.pi * within))

    schedule = schedules.half_cosine(2.0, 0.25, steps, cycles=cycles)
    np.testing.assert_allclose(values(schedule, steps + 3), [reference(t) for t in range(steps + 3)], rtol=1e-4)


@pytest.mark.parametrize(("steps", "cycles"), [(10**9, 5), (2 * 10**9, 1001), (2**31 - 1, 3), (10**6, 10**6)])
def test_half_cosine_is_exact_where_steps_times_cycles_leaves_int32(steps, cycles):
    """The schedule equals exact fractions, around restarts in particular."""
    schedule = jax.jit(schedules.half_cosine(2.0, 0.25, steps, cycles=cycles))
    restarts = [-(-j * steps // cycles) for j in (1, cycles // 2, cycles - 1)]
    for t in [0, 7, steps // 3, steps - 1, *(r + d for r in restarts for d in (-1, 0, 1) if 0 <= r + d < steps)]:
        within = float(Fraction(t * cycles % steps, steps))
        expected = 0.25 + 0.5 * (2.0 - 0.25) * (1 + math.cos(math.pi * within))
        np.testing.assert_allclose(schedule(t), expected, rtol=1e-4, err_msg=f"step {t}")
    np.testing.assert_allclose(schedule(steps), 0.25)


def test_schedules_are_in_float64_where_it_is_enabled(x64):
    quarter, half = schedules.quarter_wave("sin", 2.0, 0.5, 37), schedules.half_cosine(2.0, 0.5, 37)
    np.testing.assert_allclose(quarter(5), 0.5 + 1.5 * math.sin(math.pi * 5 / 74), rtol=1e-14)
    np.testing.assert_allclose(half(5), 0.5 + 0.75 * (1 + math.cos(math.pi * 5 / 37)), rtol=1e-14)


def test_half_cosine_has_the_mean_of_its_bounds():
    mean = values(schedules.half_cosine(2.0, 0.5, 1000), 1000).mean()
    np.testing.assert_allclose(mean, 1.25, rtol=1e-3)


def test_schedules_take_traced_counts_of_any_integer_type(strict_dtypes):
    for schedule in (schedules.quarter_wave("sin", 1.0, 0.1, 10), schedules.half_cosine(1.0, 0.1, 10)):
        for dtype in (jnp.int32, jnp.uint8, jnp.uint32):
            np.testing.assert_allclose(jax.jit(schedule)(jnp.asarray(5, dtype)), schedule(5), rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda high, low: schedules.quarter_wave("isin", high, low, 10),
        lambda high, low: schedules.half_cosine(high, low, 10),
    ],
    ids=["quarter_wave", "half_cosine"],
)
def test_bounds_may_be_traced(make):
    """Both or one of them, as `optax.inject_hyperparams` or a search over radii traces them."""
    expected = make(2.0, 0.5)(3)
    for found in (
        jax.jit(lambda high, low: make(high, low)(3))(2.0, 0.5),
        jax.jit(lambda high: make(high, 0.5)(3))(2.0),
        jax.jit(lambda low: make(2.0, low)(3))(0.5),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
