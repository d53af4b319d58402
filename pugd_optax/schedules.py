r"""Schedules, `step -> float`, for radii and scales, that Optax lacks.

Every Optax schedule also works as a radius or a scale; these are the shapes of the Radius-Timing-Scale papers. Each
keeps its last value after `steps`.

A `Controller` is a radius that depends on measurements of the steps instead of the step count: see `target_cosine` and
`target_rise`.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.core
import jax.numpy as jnp
import optax

from pugd_optax._checks import check_count, check_number
from pugd_optax._norms import Norms, vdot, widen

Kind = Literal["cos", "sin", "icos", "isin"]


class Controller(NamedTuple):
    """A radius that adapts itself, for the `radius=` of `pugd_optax.reevaluate` and of every method built on it.

    Attributes:
      init: `params -> state`, a named tuple of arrays whose field `value` is the radius of the next step.
      update: `(state, ...) -> state` after an active step; it may name `norms` (`pugd_optax.combines.Norms` of $g$ and
        $g^*$), `g`, `g_star`, `eps`, `step` and `value`, the loss at the parameters if the caller passes it.
    """

    init: Callable[[optax.Params], Any]
    update: Callable[..., Any]


class ControllerState(NamedTuple):
    """State of `target_cosine` and `target_rise`: `value`, the radius of the next step, float32."""

    value: jax.Array


Radius = optax.ScalarOrSchedule | Controller
"""What `radius=` accepts."""


def quarter_wave(kind: Kind, max: float, min: float, steps: int) -> optax.Schedule:
    r"""A quarter of a wave between two bounds, or the reciprocal of such a wave.

    With $x = \pi t / 2T$, $b_1$ = `max`, $b_0$ = `min` and $T$ = `steps`:

    | kind | value at step $t$ | course |
    |---|---|---|
    | `cos` | $b_0 + (b_1 - b_0)\cos x$ | from $b_1$ down to $b_0$ |
    | `sin` | $b_0 + (b_1 - b_0)\sin x$ | from $b_0$ up to $b_1$ |
    | `icos` | $1 / (b_0 + (b_1 - b_0)\cos x)$ | from $1/b_1$ up to $1/b_0$ |
    | `isin` | $1 / (b_0 + (b_1 - b_0)\sin x)$ | from $1/b_0$ down to $1/b_1$ |

    The inverse kinds are **not** bounded by `max`: with `min` = 0.01 a radius reaches 100, and training collapses. For
    a radius keep $1/b_0$ below about 3.

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
      Sui, When and How Much to Perturb? Decoding Radius-Timing-Scale (RTS) in PUGD Optimization, draft and code at
      https://github.com/eeyzs1/CV_RTS
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind={kind!r}: expected one of {', '.join(get_args(Kind))}.")
    check_number("max", max, low=0)
    check_number("min", min, low=0, high=max)
    check_count("steps", steps, low=1)
    inverse, falling = kind.startswith("i"), kind.endswith("cos")
    if inverse and _known_as_zero(min):
        raise ValueError(f"min=0: kind={kind!r} runs to 1/min. Fix: min=1/3 bounds it by 3.")

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        progress = jnp.clip(jnp.asarray(step, float) / steps, 0.0, 1.0)  # float64 if that is enabled
        # cos x as sin(pi/2 - x): in float32 cos(pi/2) is slightly below 0.
        value = min + (max - min) * jnp.sin(0.5 * math.pi * (1 - progress if falling else progress))
        return 1 / value if inverse else value

    return schedule


def half_cosine(max: float, min: float, steps: int, *, cycles: int = 1) -> optax.Schedule:
    r"""Half a cosine from `max` down to `min`, restarted `cycles` times.

    $$r(t) = r_{min} + \tfrac12 (r_{max} - r_{min}) \left(1 + \cos\frac{\pi t_{cur}}{T / c}\right)$$

    where $t_{cur}$ counts from the last restart. Its mean is $(r_{max} + r_{min}) / 2$.

    Args:
      max: $r_{max}$, the value at the start of every cycle.
      min: $r_{min}$, between 0 and `max`.
      steps: $T \ge 1$, the length in steps, all cycles together.
      cycles: $c \ge 1$, the number of cycles; a Python int. Restarts happen at the exact step, for any $T c$.

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
        # The remainder is computed with integers: with a rounded quotient, restarts could be off by a whole cycle.
        step = jnp.asarray(step)
        step = step.astype(jnp.int32) if step.dtype.itemsize < 4 else step
        within = _product_modulo(step % steps, cycles, steps).astype(float) / steps
        within = jnp.where(step >= steps, 1.0, within)
        return min + 0.5 * (max - min) * (1 + jnp.cos(math.pi * within))

    return schedule


def target_cosine(
    target: float = 0.9, *, start: float = 0.05, gain: float = 0.1, low: float = 1e-3, high: float = 10.0
) -> Controller:
    r"""A radius that keeps a given angle between the perturbed gradient and the gradient.

    $$r \leftarrow \mathrm{clip}\big(r\, e^{k\,(\cos(g, g^*) - c)},\ r_{min},\ r_{max}\big)$$

    after each active step: if the perturbation changes the gradient too little the radius grows, if too much it
    shrinks.

    Args:
      target: $c$ in [-1, 1].
      start: the first radius, between `low` and `high`.
      gain: $k \ge 0$; at 0.1 it takes a few hundred steps to correct a radius that is ten times too small.
      low: $r_{min} > 0$.
      high: $r_{max}$.

    Returns:
      A controller. If a gradient is 0 or not finite, the radius does not change.

    Raises:
      ValueError, TypeError: if an argument is out of its range.

    Example:
      >>> import jax, jax.numpy as jnp, optax, pugd_optax
      >>> loss = lambda w: 0.5 * (w[0] ** 2 + 9 * w[1] ** 2)
      >>> tx = pugd_optax.sam(radius=target_cosine(0.95, gain=2.0))
      >>> w, grad_fn = jnp.array([1.0, 0.2]), jax.grad(loss)
      >>> state = tx.init(w)
      >>> for _ in range(200):
      ...     u, state = tx.update(grad_fn(w), state, w, grad_fn=grad_fn)
      >>> print(f"{pugd_optax.combines.cosine(grad_fn(w), u):.2f}")
      0.95
    """
    check_number("target", target, low=-1, high=1)
    init = _started(start, gain, low, high)

    def update(state: ControllerState, norms: Norms) -> ControllerState:
        usable = jnp.isfinite(norms.g * norms.g_star) & (norms.g * norms.g_star > 0)
        return _moved(state, jnp.where(usable, norms.cosine - target, 0), gain, low, high)

    return Controller(init, update)


def target_rise(
    target: float = 0.1, *, start: float = 0.05, gain: float = 0.1, low: float = 1e-3, high: float = 10.0
) -> Controller:
    r"""A radius at which the loss increases by a given share between the parameters and the perturbed point.

    $$r \leftarrow \mathrm{clip}\big(r\, e^{k\,\mathrm{clip}(1 - h / c,\, -1,\, 1)},\ r_{min},\ r_{max}\big), \qquad
      h = \frac{\langle g + g^*, \epsilon \rangle}{2\,|L(w)|}$$

    after each active step. $h$ is the relative increase by the trapezoid rule, exact on quadratics; no loss is
    evaluated for it.

    Args:
      target: $c > 0$.
      start: the first radius, between `low` and `high`.
      gain: $k \ge 0$.
      low: $r_{min} > 0$.
      high: $r_{max}$.

    Returns:
      A controller. It needs the extra argument `value` of `update`, the loss at the parameters, as some of Optax's
      transformations do; `pugd_optax.value_and_grad` passes it. If a number is not finite, or the loss is 0, the radius
      does not change.

    Raises:
      ValueError, TypeError: if an argument is out of its range; in `update`, if `value` is missing.

    Example:
      >>> import jax, jax.numpy as jnp, optax, pugd_optax
      >>> loss = lambda w: jnp.sum(w**2)
      >>> tx = pugd_optax.sam(radius=target_rise(0.21, gain=0.5))
      >>> w, grad_fn = jnp.array([0.6, 0.8]), jax.grad(loss)
      >>> state = tx.init(w)
      >>> for _ in range(100):
      ...     _, state = tx.update(grad_fn(w), state, w, grad_fn=grad_fn, value=loss(w))
      >>> print(f"{optax.tree.get(state, 'radius'):.3f}")  # (1 + 0.1)^2 = 1.21
      0.100
    """
    check_number("target", target, low=0)
    if _known_as_zero(target):
        raise ValueError("target=0: only the radius 0 gives no increase. Fix: target=0.1.")
    init = _started(start, gain, low, high)

    def update(state: ControllerState, g, g_star, eps, norms: Norms, value=None) -> ControllerState:
        if value is None:
            raise ValueError(_NO_VALUE)
        both = jax.tree.map(lambda x, y: widen(x) + widen(y), g, g_star)
        rise = 0.5 * vdot(both, eps, norms.axis_name)
        loss = target * jnp.abs(jnp.asarray(value)).astype(rise.dtype)
        share = rise / loss
        usable = jnp.isfinite(loss) & jnp.isfinite(share)
        return _moved(state, jnp.where(usable, jnp.clip(1 - share, -1, 1), 0), gain, low, high)

    return Controller(init, update)


def _started(start: float, gain: float, low: float, high: float) -> Callable[[optax.Params], ControllerState]:
    check_number("gain", gain, low=0)
    check_number("low", low, low=0)
    if _known_as_zero(low):
        raise ValueError("low=0: a radius of 0 could never grow again. Fix: low=1e-3.")
    check_number("high", high, low=low)
    check_number("start", start, low=low, high=high)
    # A copy, because an array passed as start must not be donated with the state.
    return lambda params: ControllerState(jnp.array(start, jnp.float32))


def _known_as_zero(x: jax.typing.ArrayLike) -> bool:
    """Whether a number is 0; False for a traced one, whose value is not known."""
    return not isinstance(x, jax.core.Tracer) and bool(x == 0)


def _moved(state: ControllerState, error: jax.Array, gain: float, low: float, high: float) -> ControllerState:
    value = jnp.clip(state.value * jnp.exp(gain * error.astype(jnp.float32)), low, high)
    return ControllerState(value.astype(jnp.float32))


_NO_VALUE = (
    "value is None: target_rise needs the loss at params. Fix: "
    "tx.update(grads, state, params, grad_fn=grad_fn, value=loss)."
)


def _product_modulo(x: jax.Array, factor: int, modulus: int) -> jax.Array:
    """`x * factor % modulus` for `0 <= x < modulus`, bit by bit, so that no intermediate exceeds `modulus`."""
    add = lambda a, b: jnp.where(a < modulus - b, a + b, a - (modulus - b))
    product = jnp.zeros_like(x)
    for bit in f"{int(factor):b}":
        product = add(product, product)
        product = add(product, x) if bit == "1" else product
    return product
