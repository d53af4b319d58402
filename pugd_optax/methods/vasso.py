"""VaSSO: SAM along the running mean of the gradient."""

from typing import Any

import optax

from pugd_optax._checks import check_number
from pugd_optax._norms import AxisName
from pugd_optax._running_mean import moved, started_from
from pugd_optax._typing import Mask
from pugd_optax._unit_ascent import unit_ascent
from pugd_optax.ascents import restrict
from pugd_optax.combines import replace
from pugd_optax.reevaluate import reevaluate
from pugd_optax.schedules import Radius
from pugd_optax.timing import When


def vasso(
    radius: Radius = 0.05,
    theta: float = 0.4,
    *,
    adaptive: bool = False,
    when: When = None,
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Variance-suppressed sharpness-aware optimization: the ascent follows a running mean instead of one noisy batch.

    $$d \leftarrow (1 - \theta)\, d + \theta\, g, \qquad \epsilon = \rho\,\frac{d}{\|d\|}, \qquad
      u = \nabla L(w + \epsilon)$$

    $d$ starts at the first gradient and is updated on active steps. Two gradient evaluations per step, and one more
    copy of the parameters. $\theta = 1$ is SAM.

    Args:
      radius: $\rho \ge 0$; a number or a schedule.
      theta: $\theta$ in [0, 1], the weight of the new gradient.
      adaptive: whether the ball scales with the parameters, as in `pugd_optax.asam` with $\eta = 0$:
        $\epsilon = \rho\, w^2 \odot d / \|w \odot d\|$.
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
      >>> tx = optax.chain(pugd_optax.vasso(radius=0.05), optax.sgd(0.1, momentum=0.9))

    References:
      Li and Giannakis, Enhancing Sharpness-Aware Optimization Through Variance Suppression, NeurIPS 2023,
      https://arxiv.org/abs/2309.15639

    Notes:
      The formula was checked against the authors' code, https://github.com/BingcongLi/VaSSO, where every step is
      active. Its default is $\theta = 0.9$, with $\rho = 0.2$ in its script for CIFAR-100.
    """
    check_number("theta", theta, low=0, high=1)

    def follow(updates, state: Any, params=None, *, norm_axis_name: AxisName = None, **extra_args):
        del params, extra_args
        state = moved(state, updates, 1 - theta, norm_axis_name)
        return state.mean, state

    mean = optax.GradientTransformationExtraArgs(started_from, follow)
    ascent = restrict(unit_ascent(adaptive, mean), mask)
    return reevaluate(ascent, replace, radius=radius, when=when, report=report)
