"""Perturbed gradient descent: noise on the parameters after the step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import check_floating, check_number
from pugd_optax.combines import weighted_sum
from pugd_optax.noise import check_key, shift


class PerturbedGradientDescentState(NamedTuple):
    """State of `perturbed_gradient_descent`: `step` counts every call."""

    step: jax.Array


def perturbed_gradient_descent(
    sigma: optax.ScalarOrSchedule = 0.01, key: jax.Array | int = 0
) -> optax.GradientTransformationExtraArgs:
    r"""Perturbed gradient descent: add noise to the update itself.

    $$w_{t+1} = w_t + \Delta_t + \sigma_t\, \xi_t, \qquad \xi_t \sim \mathcal{N}(0, I)$$

    It goes **last** in the chain, after the base optimizer: $\Delta_t$ is the finished update, and the noise is not
    scaled by the learning rate. There is no second gradient evaluation. Noise that is never subtracted again performs a
    random walk and does not prefer flat regions; `pugd_optax.anti_pgd` does.

    Args:
      sigma: $\sigma \ge 0$, the standard deviation on each parameter; a number or a schedule.
      key: a PRNG key or an integer seed; the noise of step t is drawn from `fold_in(key, t)`. Two noise methods in one
        chain need different keys: with the same key they draw the same numbers.

    Returns:
      An `optax.GradientTransformationExtraArgs`. Wrap it in `optax.masked` to perturb a subset.

    Raises:
      ValueError, TypeError: if an argument is out of its range.

    Example:
      >>> import optax, pugd_optax
      >>> tx = optax.chain(optax.sgd(0.1), pugd_optax.perturbed_gradient_descent(sigma=0.01, key=0))

    References:
      Jin, Ge, Netrapalli, Kakade and Jordan, How to Escape Saddle Points Efficiently, ICML 2017,
      https://arxiv.org/abs/1703.00887; in this form the baseline of https://arxiv.org/abs/2202.02831
    """
    check_number("sigma", sigma, low=0, schedule=True)
    check_key(key)

    def init(params: optax.Params) -> PerturbedGradientDescentState:
        check_floating(params)
        return PerturbedGradientDescentState(jnp.zeros((), jnp.int32))

    def update(updates, state: Any, params=None, **extra_args: Any):
        del params, extra_args
        noisy = weighted_sum(1.0, updates, 1.0, shift(sigma, key, state.step, updates))
        return noisy, PerturbedGradientDescentState(jnp.asarray(optax.safe_increment(state.step)))

    return optax.GradientTransformationExtraArgs(init, update)
