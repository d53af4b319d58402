"""Anti-PGD: noise on the parameters whose increments are anticorrelated."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import check_number
from pugd_optax.combines import weighted_sum
from pugd_optax.noise import as_key, shift


class AntiPGDState(NamedTuple):
    """State of `anti_pgd`: `step` counts every call; `sigma` is the scale of the noise that the parameters carry.

    `sigma` is float32, in float64 too, and what is added is what is taken back, whatever becomes of the argument.
    """

    step: jax.Array
    sigma: jax.Array


def anti_pgd(sigma: optax.ScalarOrSchedule = 0.01, key: jax.Array | int = 0) -> optax.GradientTransformationExtraArgs:
    r"""Anticorrelated perturbed gradient descent: every step takes the last noise back and adds a new one.

    $$w_{t+1} = w_t + \Delta_t + (\sigma_{t+1} \xi_{t+1} - \sigma_t \xi_t), \qquad \xi_t \sim \mathcal{N}(0, I)$$

    It goes **last** in the chain, after the base optimizer: $\Delta_t$ is the finished update, and the noise is not
    scaled by the learning rate. The loss is regularised by $\frac{\sigma^2}{2} \operatorname{tr} H$. No gradient is
    evaluated again.

    With a plain SGD step it is `pugd_optax.noise_injection` in the variable $z_t = w_t - \sigma_t \xi_t$:
    $z_{t+1} = z_t - \eta \nabla L(z_t + \sigma_t \xi_t)$, with the same key and the same noise. The two differ in
    which iterate is kept.

    Args:
      sigma: $\sigma \ge 0$, the standard deviation on each parameter; a number or a schedule. The parameters carry
        one noise vector at all times; a schedule that ends at 0 takes the last one back.
      key: a PRNG key or an integer seed. The noise of step t is drawn from `fold_in(key, t)`, once when it is added and
        again when it is taken back, so no copy of it is kept. Two noise methods in one chain need two keys: those of
        one key draw the same numbers.

    Returns:
      An `optax.GradientTransformationExtraArgs`. Wrap it in `optax.masked` to perturb a subset.

    Raises:
      ValueError, TypeError: if an argument is out of its range.

    Example:
      >>> import jax, jax.numpy as jnp, optax, pugd_optax
      >>> loss = lambda w: jnp.sum(w**2)
      >>> sigma = optax.linear_schedule(0.1, 0.0, transition_steps=20)
      >>> tx = optax.chain(optax.sgd(0.1), pugd_optax.anti_pgd(sigma, key=0))
      >>> w = jnp.array([1.0, 2.0])
      >>> state = tx.init(w)
      >>> for _ in range(20):
      ...     updates, state = tx.update(jax.grad(loss)(w), state, w)
      ...     w = optax.apply_updates(w, updates)
      >>> bool(loss(w) < 0.1)
      True

    References:
      Orvieto, Kersting, Proske, Bach and Lucchi, Anticorrelated Noise Injection for Improved Generalization, ICML 2022,
      https://arxiv.org/abs/2202.02831

    Notes:
      The first step takes back $\xi_0$, which nobody has added: the iterates are those of a start at $z_0 = w_0 -
      \sigma_0 \xi_0$.
    """
    check_number("sigma", sigma, low=0, schedule=True)
    key = as_key(key)

    def scale(step: jax.Array) -> jax.Array:
        # A copy: an array given as sigma must not be donated with the state.
        return jnp.array(sigma(step) if callable(sigma) else sigma, jnp.float32)

    def init(params: optax.Params) -> AntiPGDState:
        del params
        step = jnp.zeros((), jnp.int32)
        return AntiPGDState(step, scale(step))

    def update(updates, state: Any, params=None, **extra_args: Any):
        del params, extra_args
        now = jnp.asarray(optax.safe_increment(state.step))
        added = AntiPGDState(now, scale(now))
        new, old = (shift(noise.sigma, key, noise.step, updates) for noise in (added, state))
        return weighted_sum(1.0, updates, 1.0, weighted_sum(1.0, new, -1.0, old)), added

    return optax.GradientTransformationExtraArgs(init, update)
