"""LE-SAM: a radius such that every step increases the loss by the same amount."""

import jax.numpy as jnp
import optax

from pugd_optax._checks import check_number
from pugd_optax._norms import AxisName, inverse, multiply, norm, safe_ratio
from pugd_optax._typing import Mask
from pugd_optax.ascents import restrict
from pugd_optax.combines import replace
from pugd_optax.reevaluate import reevaluate
from pugd_optax.schedules import Radius
from pugd_optax.timing import When


def le_sam(
    radius: Radius = 0.3,
    sigma: optax.ScalarOrSchedule = 0.35,
    *,
    when: When = None,
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Loss-equated SAM: the perturbation that increases the linearised loss by a fixed amount.

    $$\epsilon = \min\left(\frac{\sigma_t}{\|g\|},\ \rho_{max}\right) \frac{g}{\|g\|}, \qquad
      u = \nabla L(w + \epsilon)$$

    Two gradient evaluations per step. $\langle g, \epsilon \rangle = \sigma_t$ unless the maximum $\rho_{max}$ is
    reached: the smaller the gradient, the larger the perturbation. $\sigma \to \infty$ is SAM.

    Args:
      radius: $\rho_{max} \ge 0$, the largest length of $\epsilon$, the `radius` in the state; a number or a schedule.
      sigma: $\sigma_t \ge 0$, the increase, in units of the loss; a number or a schedule of the step count. The authors
        warm it up over 10 of 200 epochs and decay it to 0 along half a cosine from epoch 160 on.
      when: the gate (see `pugd_optax.timing`). Default: every step. On other steps $g$ is passed on unchanged.
      mask: the parameters to perturb, a tree of bools or a function of the parameters; norms of the perturbation are
        over these only. Default: all.
      report: also store norms, cosine and distance of active steps in the state (see `pugd_optax.reevaluate`).

    Returns:
      An `optax.GradientTransformationExtraArgs`; `update` needs `params` and `grad_fn` (or `value_fn`), see
      `pugd_optax.reevaluate`.

    Raises:
      ValueError, TypeError: if an argument is out of its range.

    Example:
      >>> import optax, pugd_optax
      >>> tx = optax.chain(pugd_optax.le_sam(sigma=0.1), optax.sgd(0.1, momentum=0.9))

    References:
      Wang, Liu, Xie and Gao, Fix the Loss, Not the Radius: Rethinking the Adversarial Perturbation of Sharpness-Aware
      Minimization, ICML 2026, https://arxiv.org/abs/2605.10183

    Notes:
      The formula was checked against the authors' code, https://github.com/smithgun2005/LE-SAM-ICML2026, whose script
      uses $\sigma = 0.35$ and $\rho_{max} = 0.3$; its README sets $\rho_{max}$ to 999. At the defaults, this is SAM
      with radius 0.3 on every step whose gradient is shorter than $\sigma / \rho_{max} = 1.2$.
    """
    check_number("sigma", sigma, low=0, schedule=True)

    def equate(updates, state, params=None, *, step=0, radius=1.0, norm_axis_name: AxisName = None, **extra_args):
        del params, extra_args
        length = norm(updates, norm_axis_name)
        budget = jnp.asarray(sigma(step) if callable(sigma) else sigma).astype(length.dtype)
        ceiling = jnp.asarray(radius).astype(length.dtype)
        short = budget < length * ceiling
        share = jnp.where(short, safe_ratio(budget, length * ceiling), 1)
        return multiply(share * inverse(length), updates), state

    ascent = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), equate)
    return reevaluate(restrict(ascent, mask), replace, radius=radius, when=when, report=report)
