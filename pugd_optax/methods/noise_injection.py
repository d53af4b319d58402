"""Noise injection: the gradient at a randomly perturbed point."""

import jax
import optax

from pugd_optax._checks import check_number
from pugd_optax._typing import Mask
from pugd_optax.ascents import restrict
from pugd_optax.combines import replace
from pugd_optax.noise import gaussian
from pugd_optax.reevaluate import reevaluate
from pugd_optax.timing import When


def noise_injection(
    sigma: optax.ScalarOrSchedule = 0.01,
    key: jax.Array | int = 0,
    *,
    when: When = None,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Noise injection: perturb every parameter at random and take the gradient there.

    $$\epsilon = \sigma\,\xi, \quad \xi \sim \mathcal{N}(0, I), \qquad u = \nabla L(w + \epsilon), \qquad
      \mathbb{E}\,u = \nabla\Big(L + \frac{\sigma^2}{2} \operatorname{tr} H\Big) + O(\sigma^4)$$

    **One** gradient evaluation per step: the gradient at $w$ is not used, so under jit it is never computed. With a
    gate that is not a Python bool it is used on idle steps, and computed on all steps.

    Args:
      sigma: $\sigma \ge 0$, the standard deviation on each parameter; a number or a schedule. $\|\epsilon\|$ is about
        $\sigma$ times the square root of the number of parameters, so wide networks need small values.
      key: a PRNG key or an integer seed; the noise of step t is drawn from `fold_in(key, t)`. Two noise methods in one
        chain need different keys: with the same key they draw the same numbers.
      when: the gate (see `pugd_optax.timing`). Default: every step. On other steps $g$ is passed on unchanged.
      mask: the parameters to perturb, a tree of bools or a function of the parameters. Default: all.

    Returns:
      An `optax.GradientTransformationExtraArgs`; `update` needs `params` and `grad_fn` (or `value_fn`), see
      `pugd_optax.reevaluate`. `grads` only gives the tree structure. The radius in its state is $\sigma$.

    Raises:
      ValueError, TypeError: if an argument is out of its range.

    Example:
      >>> import optax, pugd_optax
      >>> tx = optax.chain(pugd_optax.noise_injection(sigma=0.1, key=0), optax.sgd(0.1))

    References:
      Orvieto, Raj, Kersting and Bach, Explicit Regularization in Overparametrized Models via Noise Injection, AISTATS
      2023, https://arxiv.org/abs/2206.04613

    Notes:
      In wide networks the noise of different layers is multiplied, and its variance dominates the regularisation;
      `pugd_optax.layerwise_noise` therefore perturbs one tensor per step. The same total noise per cycle, spread over
      all M tensors at once, is $\sigma / \sqrt{M}$ here.

      Random numbers are not free: on a CPU, drawing one for every parameter takes about as long as the gradient of a
      dense network at batch size 128. The larger the batch, the smaller its relative cost.
    """
    check_number("sigma", sigma, low=0, schedule=True)
    return reevaluate(restrict(gaussian(key), mask), replace, radius=sigma, when=when)
