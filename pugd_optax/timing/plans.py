"""Gates without memory: pure functions of the step count, known before training starts."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pugd_optax._checks import check_count, check_number, check_sometimes, is_traced
from pugd_optax._norms import widen
from pugd_optax.noise import check_key, key_at


def after(step: int) -> Callable[[jax.typing.ArrayLike], jax.Array]:
    """Active from a given step on: plain training first, perturbed training later.

    Args:
      step: first active step, at least 0.

    Returns:
      A gate.

    Example:
      >>> [bool(after(2)(t)) for t in range(4)]
      [False, False, True, True]

    References:
      Zhou et al., Sharpness-Aware Minimization Efficiently Selects Flatter Minima Late in Training, ICLR 2025,
      https://arxiv.org/abs/2410.10373
    """
    check_count("step", step)
    return lambda t: jnp.asarray(t) >= step


def between(start: int, stop: int) -> Callable[[jax.typing.ArrayLike], jax.Array]:
    """Active for `start <= step < stop`; `between(0, n)` is "early only".

    Args:
      start: first active step, at least 0.
      stop: first step that is no longer active, after `start`.

    Returns:
      A gate.

    Raises:
      ValueError, TypeError: if a step is not an integer, or the gate can never be active.

    Example:
      >>> [bool(between(1, 3)(t)) for t in range(4)]
      [False, True, True, False]
    """
    check_count("start", start)
    known = not any(map(is_traced, (start, stop)))
    check_count("stop", stop, low=start if known else 0)
    if known and start == stop:
        raise ValueError(f"stop={stop}: the gate can never be active, as start={start}. Fix: stop={stop + 1}.")
    return lambda t: (jnp.asarray(t) >= start) & (jnp.asarray(t) < stop)


def every(k: int, *, offset: int = 0) -> Callable[[jax.typing.ArrayLike], jax.Array]:
    """Active on every `k`-th step: at `offset`, `offset + k`, ...

    Args:
      k: period in steps, at least 1.
      offset: first active step, at least 0.

    Returns:
      A gate.

    Example:
      >>> [bool(every(3)(t)) for t in range(5)]
      [True, False, False, True, False]
    """
    check_count("k", k, low=1)
    check_count("offset", offset)
    return lambda t: (jnp.asarray(t) >= offset) & ((jnp.asarray(t) - offset) % k == 0)


def bernoulli(p: optax.ScalarOrSchedule, key: jax.Array | int = 0) -> Callable[[jax.typing.ArrayLike], jax.Array]:
    """Active at random, independently at each step with probability `p`, as in randomized sharpness-aware training.

    Args:
      p: probability in (0, 1]; a number, or a schedule, which may be 0 at times.
      key: a PRNG key or an integer seed. The decision of step t is drawn from `fold_in(key, t)`, so a resumed run makes
        the same decisions.

    Returns:
      A gate.

    Raises:
      ValueError, TypeError: if an argument is out of its range, or the gate can never be active.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> coins = jax.vmap(bernoulli(0.5, key=0))(jnp.arange(1000))
      >>> 400 < int(coins.sum()) < 600
      True

    References:
      Zhao, Zhang and Hu, Randomized Sharpness-Aware Training for Boosting Computational Efficiency in Deep Learning,
      https://arxiv.org/abs/2203.09962
    """
    check_number("p", p, low=0, high=1, schedule=True)
    check_sometimes("p", p)
    check_key(key)

    def gate(step: jax.typing.ArrayLike) -> jax.Array:
        now = jnp.asarray(1.0 * (p(step) if callable(p) else p))  # JAX refuses integers and bools
        return jax.random.bernoulli(key_at(key, step), widen(now))  # and draws in the dtype of p

    return gate


def tail(schedule: optax.Schedule, share: float, steps: int) -> Callable[[jax.typing.ArrayLike], jax.Array]:
    r"""Active in the last part of the decay of a learning rate: late SAM for any schedule.

    Active from the first step on after which the learning rate $\eta$ stays close to its final value,

    $$\eta_t - \eta_{T-1} \le s\, (\max_{t < T} \eta_t - \eta_{T-1})$$

    So a warm-up and all restarts but the last are inactive. A cosine to 0 reaches `share` = .1 after 79.5 % of
    training, a straight line after 90 %. Of a piecewise constant schedule all pieces are active that are as low as
    this: of the rates .1, .01 and .001, at `share` = .1 the last two, at .05 the last one.

    Args:
      schedule: the learning-rate schedule of the base optimizer.
      share: $s$ in (0, 1], the remaining part of the decay.
      steps: $T \ge 1$, the length of training.

    Returns:
      A gate, `after(step)` with a step computed immediately, so that a trainer can evaluate it beforehand.

    Raises:
      ValueError, TypeError: if an argument is out of its range, or the gate can never be active, because the learning
        rate is not lower at its end.

    Example:
      >>> import optax
      >>> gate = tail(optax.cosine_decay_schedule(0.1, 1000), share=0.1, steps=1000)
      >>> bool(gate(795)), bool(gate(796))
      (False, True)

    References:
      Zhou et al., Sharpness-Aware Minimization Efficiently Selects Flatter Minima Late in Training, ICLR 2025,
      https://arxiv.org/abs/2410.10373
    """
    check_number("share", share, low=0, high=1)
    check_count("steps", steps, low=1)
    if not callable(schedule):
        raise TypeError(f"schedule={schedule!r}: expected a schedule, step -> number. Fix: timing.after(step).")
    rates = np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(steps)), np.float64)
    above = np.flatnonzero(rates - rates[-1] > share * (rates.max() - rates[-1]))
    if not share or not rates.max() > rates[-1]:
        raise ValueError(
            f"share={share}: the gate can never be active, as the learning rate runs from {rates[0]:.3g} over at most "
            f"{rates.max():.3g} to {rates[-1]:.3g} in {steps} steps. Fix: share=0.1 of a schedule that falls."
        )
    return after(int(above[-1]) + 1 if above.size else 0)
