r"""Schedules: `step -> float`, for radii and scales, that Optax lacks.

Every Optax schedule works as a radius or a scale too; these are the shapes of the Radius-Timing-Scale papers. Each
holds its last value after `steps`.
"""

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import check_count, check_number

Kind = Literal["cos", "sin", "icos", "isin"]


def quarter_wave(kind: Kind, max: float, min: float, steps: int) -> optax.Schedule:
    r"""A quarter of a wave between two bounds, or the reciprocal of one.

    With $x = \pi t / 2T$, $b_1$ = `max`, $b_0$ = `min` and $T$ = `steps`:

    | kind | value at step $t$ | runs |
    |---|---|---|
    | `cos` | $b_0 + (b_1 - b_0)\cos x$ | from $b_1$ down to $b_0$ |
    | `sin` | $b_0 + (b_1 - b_0)\sin x$ | from $b_0$ up to $b_1$ |
    | `icos` | $1 / (b_0 + (b_1 - b_0)\cos x)$ | from $1/b_1$ up to $1/b_0$ |
    | `isin` | $1 / (b_0 + (b_1 - b_0)\sin x)$ | from $1/b_0$ down to $1/b_1$ |

    The inverse kinds are **not** bounded by `max`: with `min` = 0.01 a radius reaches 100, and training collapses. Keep
    $1/b_0$ below about 3 where the value is a radius.

    Args:
      kind: one of `cos`, `sin`, `icos`, `isin`.
      max: $b_1$.
      min: $b_0$, at least 0 and at most `max`; greater than 0 for the inverse kinds.
      steps: $T \ge 1$, the length in steps.

    Returns:
      A schedule.

    Raises:
      ValueError: if the kind is unknown or a bound is out of its range.

    Example:
      >>> radius = quarter_wave("cos", 2.0, 0.5, steps=100)
      >>> [round(float(radius(t)), 3) for t in (0, 50, 100, 200)]
      [2.0, 1.561, 0.5, 0.5]

    References:
      Tseng, Radius-Timing-Scale in PUGD Optimization, draft and code at https://github.com/eeyzs1/CV_RTS
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind={kind!r}: expected one of {', '.join(get_args(Kind))}.")
    check_number("max", max, low=0)
    check_number("min", min, low=0, high=max)
    check_count("steps", steps, low=1)
    inverse, falling = kind.startswith("i"), kind.endswith("cos")
    if inverse and min == 0:
        raise ValueError(f"min=0: kind={kind!r} runs to 1/min. Fix: min=1/3 bounds it by 3.")

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        progress = jnp.clip(jnp.asarray(step, jnp.float32) / steps, 0.0, 1.0)
        # cos x as sin(pi/2 - x): in float32 cos(pi/2) is not 0 but below it.
        value = min + (max - min) * jnp.sin(0.5 * math.pi * (1 - progress if falling else progress))
        return 1 / value if inverse else value

    return schedule


def half_cosine(max: float, min: float, steps: int, *, cycles: int = 1) -> optax.Schedule:
    r"""Half a cosine from `max` down to `min`, restarted `cycles` times.

    $$r(t) = r_{min} + \tfrac12 (r_{max} - r_{min}) \left(1 + \cos\frac{\pi t_{cur}}{T / c}\right)$$

    where $t_{cur}$ counts from the last restart. Its mean is $(r_{max} + r_{min}) / 2$.

    Args:
      max: $r_{max}$, the value at every start.
      min: $r_{min}$, between 0 and `max`.
      steps: $T \ge 1$, the length in steps, all cycles together.
      cycles: $c \ge 1$, the number of descents; a Python int. Restarts fall on the exact step, whatever $T c$ is.

    Returns:
      A schedule.

    Raises:
      ValueError, TypeError: if an argument is out of its range, or `cycles` is traced.

    Example:
      >>> radius = half_cosine(2.0, 0.0, steps=100, cycles=2)
      >>> [round(float(radius(t)), 3) for t in (0, 25, 49, 50, 100)]
      [2.0, 1.0, 0.002, 2.0, 0.0]

    References:
      Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, https://arxiv.org/abs/1608.03983
    """
    check_number("max", max, low=0)
    check_number("min", min, low=0, high=max)
    check_count("steps", steps, low=1)
    check_count("cycles", cycles, low=1, static=True)

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        # The remainder is taken of whole numbers: one of a rounded quotient would miss restarts by a whole cycle.
        step = jnp.asarray(step)
        step = step.astype(jnp.int32) if step.dtype.itemsize < 4 else step
        within = _product_modulo(step % steps, cycles, steps).astype(jnp.float32) / steps
        within = jnp.where(step >= steps, 1.0, within)
        return min + 0.5 * (max - min) * (1 + jnp.cos(math.pi * within))

    return schedule


def _product_modulo(x: jax.Array, factor: int, modulus: int) -> jax.Array:
    """`x * factor % modulus` for `0 <= x < modulus`, bit by bit: nothing on the way exceeds `modulus`."""
    add = lambda a, b: jnp.where(a < modulus - b, a + b, a - (modulus - b))
    product = jnp.zeros_like(x)
    for bit in f"{int(factor):b}":
        product = add(product, product)
        product = add(product, x) if bit == "1" else product
    return product
