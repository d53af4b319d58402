"""Unified SAM: between the normalised ascent and the plain one."""

import jax.numpy as jnp
import optax

from pugd_optax._checks import check_number
from pugd_optax._norms import AxisName, inverse, multiply, norm
from pugd_optax._typing import Mask
from pugd_optax.ascents import restrict
from pugd_optax.combines import replace
from pugd_optax.reevaluate import reevaluate
from pugd_optax.schedules import Radius
from pugd_optax.timing import When


def unified_sam(
    radius: Radius = 0.1,
    share: optax.ScalarOrSchedule = 0.5,
    *,
    when: When = None,
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Unified SAM: an ascent between the gradient itself and the unit vector along it.

    $$\epsilon = \rho \left(1 - \lambda + \frac{\lambda}{\|g\|}\right) g, \qquad u = \nabla L(w + \epsilon)$$

    Two gradient evaluations per step. $\lambda = 1$ is SAM, $\lambda = 0$ unnormalised SAM, whose perturbation shrinks
    with the gradient.

    Args:
      radius: $\rho \ge 0$; a number or a schedule.
      share: $\lambda$ in [0, 1], the share of the unit vector; a number or a schedule of the step count, which starts
        at 0. The paper's runs use constants, $1/t$ and $1 - 1/t$ with $t$ from 1 on: `lambda step: 1 / (step + 1)`.
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
      >>> tx = optax.chain(pugd_optax.unified_sam(radius=0.05), optax.sgd(0.1, momentum=0.9))

    References:
      Oikonomou and Loizou, Sharpness-Aware Minimization: General Analysis and Improved Rates, ICLR 2025,
      https://arxiv.org/abs/2503.02225

    Notes:
      The formula was checked against the authors' code, https://github.com/dimitris-oik/unifiedsam.
    """
    check_number("share", share, low=0, high=1, schedule=True)

    def between(updates, state, params=None, *, step=0, norm_axis_name: AxisName = None, **extra_args):
        del params, extra_args
        length = norm(updates, norm_axis_name)
        at = jnp.asarray(share(step) if callable(share) else share).astype(length.dtype)
        return multiply(1 - at + at * inverse(length), updates), state

    ascent = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), between)
    return reevaluate(restrict(ascent, mask), replace, radius=radius, when=when, report=report)
