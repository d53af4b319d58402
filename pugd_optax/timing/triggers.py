"""Gates with memory: they watch gradients or losses, and decide by what they saw."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import check_count, check_number
from pugd_optax._norms import norm
from pugd_optax.timing.gate import Gate


class LowVarianceState(NamedTuple):
    """Memory of `low_variance`: the last gradient norms, their early mean and squared deviations, and the trigger."""

    window: jax.Array
    early_mean: jax.Array
    early_squares: jax.Array
    triggered: jax.Array


def low_variance(warmup: int = 1000, *, ratio: float = 0.2, window: int = 10) -> Gate:
    r"""Active for good once the gradient norm has become steady.

    Fires at the first step $t \ge$ `warmup` at which

    $$\mathrm{Var}(\|g_{t-k+1}\|, \dots, \|g_t\|) < \gamma\, \mathrm{Var}(\|g_0\|, \dots, \|g_{w-1}\|)$$

    Args:
      warmup: $w \ge 2$, the number of first steps that set the reference; the papers take a tenth of training.
      ratio: $\gamma > 0$.
      window: $k \ge 2$, the number of latest steps compared with it.

    Returns:
      A gate. It reads the gradient norm once a step; one that is not finite counts as the one before it.

    Raises:
      ValueError, TypeError: if an argument is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> gate = low_variance(warmup=4, window=2)
      >>> state, fired = gate.init({}), []
      >>> for t, g in enumerate([1.0, 9.0, 2.0, 8.0, 3.0, 3.1]):
      ...     active, state = gate.update(state, {"w": jnp.float32(g)}, step=jnp.int32(t))
      ...     fired.append(bool(active))
      >>> fired
      [False, False, False, False, False, True]

    References:
      The variance trigger of https://github.com/eeyzs1/CV_RTS
    """
    check_count("warmup", warmup, low=2)
    check_number("ratio", ratio, low=0)
    check_count("window", window, low=2)

    def init(params: optax.Params) -> LowVarianceState:
        del params
        mean, squares = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32)
        return LowVarianceState(jnp.zeros(window, jnp.float32), mean, squares, jnp.zeros((), bool))

    def update(state: LowVarianceState, grads: optax.Updates, *, step: jax.Array, **extra_args):
        del extra_args
        length = norm(grads).astype(jnp.float32)
        length = jnp.where(jnp.isfinite(length), length, state.window[(step - 1) % window])
        recent = state.window.at[step % window].set(length)
        early = step < warmup
        change = length - state.early_mean
        mean = jnp.where(early, state.early_mean + change / (step + 1).astype(jnp.float32), state.early_mean)
        squares = jnp.where(early, state.early_squares + change * (length - mean), state.early_squares)
        steady = jnp.var(recent) < ratio * squares / warmup
        triggered = state.triggered | (~early & (step >= window - 1) & steady)
        return triggered, LowVarianceState(recent, mean, squares, triggered)

    return Gate(init, update)


class LargeGradientState(NamedTuple):
    """Memory of `large_gradient`: running mean and variance of the squared gradient norm."""

    mean: jax.Array
    variance: jax.Array


def large_gradient(threshold: optax.ScalarOrSchedule = 0.0, *, decay: float = 0.9) -> Gate:
    r"""Active where the gradient is large for its time, as AE-SAM decides.

    $$\|g_t\|^2 \ge \mu_t + c_t \sigma_t, \qquad
      \mu_t = \delta \mu_{t-1} + (1-\delta)\|g_t\|^2, \quad
      \sigma_t^2 = \delta \sigma_{t-1}^2 + (1-\delta)(\|g_t\|^2 - \mu_t)^2$$

    Args:
      threshold: $c_t$, a number or a schedule; the paper lets it run linearly between two bounds, for which
        `optax.linear_schedule(1.0, -1.0, steps)` serves. Higher means rarer.
      decay: $\delta$ in [0, 1).

    Returns:
      A gate. It reads the gradient norm once a step, and forgets one whose squared deviation is not finite. The means
      start at the first squared norm with variance 0, so the first step is active whatever $c_0$.

    Raises:
      ValueError: if `decay` is outside [0, 1).

    Example:
      >>> import jax.numpy as jnp
      >>> gate = large_gradient(threshold=0.5)
      >>> state, fired = gate.init({}), []
      >>> for t, g in enumerate([1.0, 0.5, 3.0, 0.5]):
      ...     active, state = gate.update(state, {"w": jnp.float32(g)}, step=jnp.int32(t))
      ...     fired.append(bool(active))
      >>> fired
      [True, False, True, False]

    References:
      Jiang et al., An Adaptive Policy to Employ Sharpness-Aware Minimization, ICLR 2023,
      https://arxiv.org/abs/2304.14647
    """
    check_number("threshold", threshold, schedule=True)
    check_number("decay", decay, low=0, below=1)

    def init(params: optax.Params) -> LargeGradientState:
        del params
        return LargeGradientState(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))

    def update(state: LargeGradientState, grads: optax.Updates, *, step: jax.Array, **extra_args):
        del extra_args
        square = norm(grads).astype(jnp.float32) ** 2
        mean = jnp.where(step == 0, square, decay * state.mean + (1 - decay) * square)
        variance = decay * state.variance + (1 - decay) * (square - mean) ** 2
        c = threshold(step) if callable(threshold) else threshold
        readable = jnp.isfinite(square) & jnp.isfinite(variance)
        memory = (jnp.where(readable, new, old) for new, old in zip((mean, variance), state, strict=True))
        return square >= mean + c * jnp.sqrt(variance), LargeGradientState(*memory)

    return Gate(init, update)


class GeneralizationGapState(NamedTuple):
    """Memory of `generalization_gap`: sum and number of the early gaps, and the trigger."""

    early_sum: jax.Array
    early_count: jax.Array
    triggered: jax.Array


def generalization_gap(warmup: int = 1000, *, factor: float = 3.0, every: int = 100) -> Gate:
    r"""Active for good once the loss on held-out data has left the training loss.

    The gap $|L_{val} - L_{train}|$ is read from the extra arguments `train_loss` and `val_loss` at every step
    divisible by `every`. Readings before `warmup` set the reference; a later one above `factor` times their mean fires.

        tx.update(grads, state, params, grad_fn=grad_fn, train_loss=train_loss, val_loss=val_loss)

    Both are scalars at the clean parameters, the latest that were measured; between two readings any value will do. A
    reading that is not finite is left out.

    Args:
      warmup: number of first steps whose readings set the reference, at least 1; the papers take a tenth of training.
      factor: how many times the reference counts as a gap; the papers take 2 to 4.
      every: distance of two readings in steps, at least 1; the papers take 3 epochs.

    Returns:
      A gate.

    Raises:
      ValueError: in `update`, if `train_loss` or `val_loss` is missing.

    Example:
      >>> import jax.numpy as jnp
      >>> gate = generalization_gap(warmup=2, factor=2.0, every=1)
      >>> state, fired = gate.init({}), []
      >>> for t, gap in enumerate([0.1, 0.1, 0.15, 0.3, 0.0]):
      ...     active, state = gate.update(state, {}, step=jnp.int32(t), train_loss=0.0, val_loss=gap)
      ...     fired.append(bool(active))
      >>> fired
      [False, False, False, True, True]

    References:
      The generalisation-gap trigger of https://github.com/eeyzs1/CV_RTS
    """
    check_count("warmup", warmup, low=1)
    check_number("factor", factor, low=0)
    check_count("every", every, low=1)

    def init(params: optax.Params) -> GeneralizationGapState:
        del params
        return GeneralizationGapState(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32), jnp.zeros((), bool))

    def update(state, grads, *, step: jax.Array, train_loss=None, val_loss=None, **extra_args):
        del grads, extra_args
        if train_loss is None or val_loss is None:
            raise ValueError(
                "timing.generalization_gap reads train_loss= and val_loss=. Fix: tx.update(grads, state, params, "
                "grad_fn=grad_fn, train_loss=train_loss, val_loss=val_loss)."
            )
        gap = jnp.abs(jnp.asarray(val_loss, jnp.float32) - jnp.asarray(train_loss, jnp.float32))
        reading, early = (step % every == 0) & jnp.isfinite(gap), step < warmup
        total = state.early_sum + jnp.where(reading & early, gap, 0)
        count = state.early_count + (reading & early).astype(jnp.int32)
        wide = (count > 0) & (gap > factor * total / jnp.maximum(count, 1).astype(jnp.float32))
        triggered = state.triggered | (reading & ~early & wide)
        return triggered, GeneralizationGapState(total, count, triggered)

    return Gate(init, update)
