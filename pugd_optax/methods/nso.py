"""NSO: noise stability optimization."""

import jax
import optax

from pugd_optax._checks import check_number
from pugd_optax._typing import Mask
from pugd_optax.ascents import restrict
from pugd_optax.combines import replace
from pugd_optax.evaluations import evaluate_by, two_sided_mean
from pugd_optax.noise import gaussian
from pugd_optax.reevaluate import reevaluate
from pugd_optax.timing import When


def nso(
    sigma: optax.ScalarOrSchedule = 0.01,
    key: jax.Array | int = 0,
    *,
    when: When = None,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Noise stability optimization: the mean gradient at two opposite random points.

    $$u = \tfrac12 \big(\nabla L(w + \sigma \xi) + \nabla L(w - \sigma \xi)\big), \qquad \xi \sim \mathcal{N}(0, I)$$

    Its expectation is that of `pugd_optax.noise_injection`, $\nabla(L + \frac{\sigma^2}{2} \operatorname{tr} H)$ to
    leading order, but the term $\sigma H \xi$, which carries most of the variance, cancels; on a quadratic loss $u =
    g$. **Two** gradient evaluations per step: the gradient at $w$ is not used, so under jit it is never computed.

    Args:
      sigma: $\sigma \ge 0$, the standard deviation on each parameter; a number or a schedule.
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
      >>> tx = optax.chain(pugd_optax.nso(sigma=0.1, key=0), optax.sgd(0.1))

    References:
      Zhang, Li and Ju, Noise Stability Optimization for Finding Flat Minima: A Hessian-based Regularization Approach,
      TMLR 2024, https://arxiv.org/abs/2306.08553

    Notes:
      This is the paper's estimator with one pair of draws. The authors' code also adds the gradient at $w$ with a
      separate weight.
    """
    check_number("sigma", sigma, low=0, schedule=True)
    noisy = reevaluate(restrict(gaussian(key), mask), replace, radius=sigma, when=when)
    return evaluate_by(two_sided_mean, noisy)
