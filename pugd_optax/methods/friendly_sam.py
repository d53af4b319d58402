"""Friendly SAM: SAM along the difference between the batch gradient and its running mean."""

from typing import Any, NamedTuple

import jax
import optax

from pugd_optax._checks import check_number
from pugd_optax._running_mean import RunningMean, moved, started_from
from pugd_optax._typing import Mask
from pugd_optax._unit_ascent import unit_ascent
from pugd_optax.ascents import restrict
from pugd_optax.combines import replace, weighted_sum
from pugd_optax.reevaluate import reevaluate
from pugd_optax.schedules import Radius
from pugd_optax.timing import When


class FriendlySAMState(NamedTuple):
    """State of `friendly_sam`.

    Attributes:
      mean: running mean of the gradients, updated on every step, active or not. Gradients that are not finite are
        skipped.
      started: above 0 once a finite gradient has entered it.
      reevaluate: state of the re-evaluation.
    """

    mean: optax.Updates
    started: jax.Array
    reevaluate: optax.OptState


def friendly_sam(
    radius: Radius = 0.2,
    sigma: float = 1.0,
    decay: float = 0.9,
    *,
    adaptive: bool = False,
    when: When = None,
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Friendly SAM: ascend along the batch's own part of the gradient, not along the full gradient.

    $$d = g - \sigma\, m, \qquad \epsilon = \rho\,\frac{d}{\|d\|}, \qquad u = \nabla L(w + \epsilon), \qquad
      m \leftarrow \lambda m + (1 - \lambda)\, g$$

    $m$ estimates the gradient of the full data. The ascent uses it before it is updated with this step's gradient; it
    starts at the first gradient. Two gradient evaluations per step, and one more copy of the parameters. $\sigma = 0$
    is SAM.

    Args:
      radius: $\rho \ge 0$; a number or a schedule.
      sigma: $\sigma$, how much of the running mean is subtracted.
      decay: $\lambda$ in [0, 1].
      adaptive: whether the ball scales with the parameters, as in `pugd_optax.asam` with $\eta = 0$:
        $\epsilon = \rho\, w^2 \odot d / \|w \odot d\|$.
      when: the gate (see `pugd_optax.timing`). Default: every step. On other steps $g$ is passed on unchanged.
      mask: the parameters to perturb, a tree of bools or a function of the parameters; the norm is over these only.
        Default: all.
      report: also store norms, cosine and distance of active steps in the state (see `pugd_optax.reevaluate`).

    Returns:
      An `optax.GradientTransformationExtraArgs`; `update` needs `params` and `grad_fn` (or `value_fn`), see
      `pugd_optax.reevaluate`.

    Raises:
      ValueError, TypeError: if an argument is out of its range.

    Example:
      >>> import optax, pugd_optax
      >>> tx = optax.chain(pugd_optax.friendly_sam(radius=0.05), optax.sgd(0.1))

    References:
      Li, Zhou, He, Cheng and Huang, Friendly Sharpness-Aware Minimization, CVPR 2024, https://arxiv.org/abs/2403.12350

    Notes:
      The formula was checked against the authors' code, https://github.com/nblt/F-SAM. Its script sets $\rho = 0.2$ and
      $\lambda = 0.6$, the trainer's default for $\lambda$ is 0.95, that of the class 0.9. If $m$ were updated before
      the ascent, as in a third-party summary, https://junaidaliop.github.io/zij/math/fsam/, the direction at $\sigma =
      1$ would be the same.
    """
    check_number("sigma", sigma)
    check_number("decay", decay, low=0, high=1)

    def subtract_mean(updates, state, params=None, **extra_args):
        del params
        return weighted_sum(1.0, updates, -sigma, extra_args["mean"]), state

    center = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), subtract_mean)
    ascent = unit_ascent(adaptive, restrict(center, mask))  # the mean has entries outside of the mask too
    inner = reevaluate(ascent, replace, radius=radius, when=when, report=report)

    def init(params: optax.Params) -> FriendlySAMState:
        return FriendlySAMState(*started_from(params), inner.init(params))

    def update(updates, state: Any, params=None, **extra_args):
        u, inner_state = inner.update(updates, state.reevaluate, params, **{**extra_args, "mean": state.mean})
        memory = RunningMean(state.mean, state.started)
        return u, FriendlySAMState(*moved(memory, updates, decay, extra_args.get("norm_axis_name")), inner_state)

    return optax.GradientTransformationExtraArgs(init, update)
