"""Gates with memory, which decide from the gradients or losses so far."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import check_count, check_number, check_sometimes, is_traced
from pugd_optax._norms import AxisName, norm
from pugd_optax.timing.gate import Gate


class LowVarianceState(NamedTuple):
    """Memory of `low_variance`: latest gradient norms, early mean and squares, best accuracy, and whether it fired."""

    window: jax.Array
    early_mean: jax.Array
    early_squares: jax.Array
    best: jax.Array
    triggered: jax.Array


def low_variance(warmup: int = 1000, *, ratio: float = 0.2, window: int = 10, every: int = 1) -> Gate:
    r"""Permanently active once the gradient norm has become steady.

    Before each step $t > w$ that is a multiple of `every`, the norms so far are checked, and the gate fires if

    $$\mathrm{Var}(\|g_{t-k}\|, \dots, \|g_{t-1}\|) < \gamma\, \mathrm{Var}(\|g_0\|, \dots, \|g_{w-1}\|)$$

    With a check at every step the gate fires by chance sooner or later, even if the norms are stationary. The author
    of RTS (see the references) checks once per epoch, and only at a new best validation accuracy. His rule is `every` =
    one epoch, with the extra argument

        tx.update(grads, state, params, grad_fn=grad_fn, val_accuracy=val_accuracy)

    which is the latest measured accuracy. If it is given, a check counts only if this accuracy exceeds all earlier
    ones.

    Args:
      warmup: $w \ge 2$, the number of steps at the start that set the reference. The author uses a tenth of training
        plus one epoch.
      ratio: $\gamma > 0$. The draft gives .2; the author's stored runs use .002 to .25.
      window: $k \ge 2$, the number of latest steps compared with the reference.
      every: steps between two checks, at least 1.

    Returns:
      A gate. It computes the gradient norm once per step; a norm that is not finite is replaced by the previous one.

    Raises:
      ValueError, TypeError: if an argument is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> gate = low_variance(warmup=4, window=2)
      >>> state, fired = gate.init({}), []
      >>> for t, g in enumerate([1.0, 9.0, 2.0, 8.0, 3.0, 3.1, 5.0]):
      ...     active, state = gate.update(state, {"w": jnp.float32(g)}, step=jnp.int32(t))
      ...     fired.append(bool(active))
      >>> fired
      [False, False, False, False, False, False, True]

    References:
      The variance trigger of https://github.com/eeyzs1/CV_RTS. Two peculiarities of its loop are not copied: it waits
      until more epochs have passed than the window has steps, and it never fires if the last epoch of the reference is
      not a new best.
    """
    check_count("warmup", warmup, low=2)
    check_number("ratio", ratio, low=0)
    check_sometimes("ratio", ratio)
    check_count("window", window, low=2)
    check_count("every", every, low=1)

    def init(params: optax.Params) -> LowVarianceState:
        del params
        mean, squares, best = (jnp.full((), x, jnp.float32) for x in (0, 0, -jnp.inf))
        return LowVarianceState(jnp.zeros(window, jnp.float32), mean, squares, best, jnp.zeros((), bool))

    def update(state, grads, *, step: jax.Array, val_accuracy=None, norm_axis_name: AxisName = None, **extra_args):
        del extra_args
        due, best = (step > 0) & (step % every == 0), state.best
        steady = jnp.var(state.window) < ratio * state.early_squares / warmup
        fires = due & (step > warmup) & (step >= window) & steady
        if val_accuracy is not None:
            accuracy = jnp.where(due, jnp.asarray(val_accuracy, jnp.float32), -jnp.inf)
            fires, best = fires & (accuracy > best), jnp.fmax(best, accuracy)
        triggered = state.triggered | fires
        recent, mean, squares = _remember(state, norm(grads, norm_axis_name), step, warmup)
        return triggered, LowVarianceState(recent, mean, squares, best, triggered)

    return Gate(init, update)


def _remember(
    state: LowVarianceState, length: jax.Array, step: jax.Array, warmup: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Window, early mean and early squared deviations, updated with one more norm."""
    window = state.window.size
    length = length.astype(jnp.float32)
    length = jnp.where(jnp.isfinite(length), length, state.window[(step - 1) % window])
    early, change = step < warmup, length - state.early_mean
    mean = jnp.where(early, state.early_mean + change / (step + 1).astype(jnp.float32), state.early_mean)
    squares = jnp.where(early, state.early_squares + change * (length - mean), state.early_squares)
    return jnp.asarray(state.window).at[step % window].set(length), mean, squares


class LargeGradientState(NamedTuple):
    """Memory of `large_gradient`: running mean and variance of the squared norm, and whether they have started."""

    mean: jax.Array
    variance: jax.Array
    started: jax.Array


def large_gradient(threshold: optax.ScalarOrSchedule = 0.0, *, decay: float = 0.9) -> Gate:
    r"""Active if the gradient norm is large compared with its running mean, as in AE-SAM.

    $$\|g_t\|^2 \ge \mu_t + c_t \sigma_t, \qquad
      \mu_t = \delta \mu_{t-1} + (1-\delta)\|g_t\|^2, \quad
      \sigma_t^2 = \delta \sigma_{t-1}^2 + (1-\delta)(\|g_t\|^2 - \mu_t)^2$$

    Args:
      threshold: $c_t$, a number or a schedule; in the paper it changes linearly between two bounds, as
        `optax.linear_schedule(1.0, -1.0, steps)` does. A higher threshold means fewer active steps.
      decay: $\delta$ in [0, 1).

    Returns:
      A gate. It computes the gradient norm once per step, and skips a norm whose squared deviation is not finite. The
      means start at the first finite squared norm, with variance 0, so that step is active for any $c_t$.

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
        return LargeGradientState(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32), jnp.zeros((), bool))

    def update(state, grads, *, step: jax.Array, norm_axis_name: AxisName = None, **extra_args):
        del extra_args
        square = norm(grads, norm_axis_name).astype(jnp.float32) ** 2
        mean = jnp.where(state.started, decay * state.mean + (1 - decay) * square, square)
        variance = decay * state.variance + (1 - decay) * (square - mean) ** 2
        c = threshold(step) if callable(threshold) else threshold
        readable = jnp.isfinite(square) & jnp.isfinite(variance)
        active = square >= mean + c * jnp.sqrt(variance)
        mean, variance = jnp.where(readable, mean, state.mean), jnp.where(readable, variance, state.variance)
        mean, variance = mean.astype(jnp.float32), variance.astype(jnp.float32)  # `decay` may be float64
        return active, LargeGradientState(mean, variance, state.started | readable)

    return Gate(init, update)


class GeneralizationGapState(NamedTuple):
    """Memory of `generalization_gap`: sum and number of the early gaps, and whether it fired."""

    early_sum: jax.Array
    early_count: jax.Array
    triggered: jax.Array


def generalization_gap(
    warmup: int = 1000, *, factor: float = 3.0, every: int = 100, reference_every: int | None = None
) -> Gate:
    r"""Permanently active once the loss on held-out data has moved away from the training loss.

    The gap $|L_{val} - L_{train}|$ is computed from the extra arguments `train_loss` and `val_loss`. Up to step
    `warmup` it is read at every multiple of `reference_every`, and the mean of these gaps is the reference. Later it is
    read at every multiple of `every`, and the gate fires if it exceeds `factor` times the reference.

        tx.update(grads, state, params, grad_fn=grad_fn, train_loss=train_loss, val_loss=val_loss)

    Both are scalars at the unperturbed parameters, the latest ones measured; at steps at which the gap is not read, any
    value will do. Gaps that are not finite are skipped, and so is step 0, before which nothing was measured.

    Args:
      warmup: last step that can be part of the reference, at least `reference_every`; the author of RTS (see
        the references) uses a tenth of training.
      factor: the multiple of the reference above which the gate fires. The draft gives 2 and its author's stored runs
        use 2 to 4; his newest notebook has .01 (with `every` 10 epochs), which fires at the first check.
      every: steps between two checks, at least 1; the author's stored runs use 3 epochs.
      reference_every: steps between two readings for the reference. Default: `every`. The author uses one epoch.

    Returns:
      A gate.

    Raises:
      ValueError, TypeError: if an argument is out of its range, or no reading falls into the warm-up; in `update`, if
        `train_loss` or `val_loss` is missing.

    Example:
      >>> import jax.numpy as jnp
      >>> gate = generalization_gap(warmup=2, factor=2.0, every=1)
      >>> state, fired = gate.init({}), []
      >>> for t, gap in enumerate([0.0, 0.1, 0.1, 0.15, 0.3, 0.0]):
      ...     active, state = gate.update(state, {}, step=jnp.int32(t), train_loss=0.0, val_loss=gap)
      ...     fired.append(bool(active))
      >>> fired
      [False, False, False, False, True, True]

    References:
      The generalisation-gap trigger of https://github.com/eeyzs1/CV_RTS. Two peculiarities of its loop are not copied:
      it skips a check right after the warm-up, and its newest version starts the sum of the reference at -1.
    """
    period = every if reference_every is None else reference_every
    check_count("warmup", warmup, low=1)
    check_number("factor", factor, low=0)
    check_count("every", every, low=1)
    check_count("reference_every", period, low=1)
    _check_reference(warmup, period)

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
        early = (step > 0) & (step <= warmup) & (step % period == 0) & jnp.isfinite(gap)
        late = (step > warmup) & (step % every == 0) & jnp.isfinite(gap)
        total = state.early_sum + jnp.where(early, gap, 0)
        count = state.early_count + early.astype(jnp.int32)
        wide = (count > 0) & (gap > factor * total / jnp.maximum(count, 1).astype(jnp.float32))
        triggered = state.triggered | (late & wide)
        return triggered, GeneralizationGapState(total, count, triggered)

    return Gate(init, update)


def _check_reference(warmup: int, period: int) -> None:
    if not any(map(is_traced, (warmup, period))) and warmup < period:
        raise ValueError(
            f"warmup={warmup}: no reading, one every {period} steps, falls into the warm-up, so the gate can never be "
            f"active. Fix: warmup={period} or more."
        )
