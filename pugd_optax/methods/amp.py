"""AMP: adversarial model perturbation."""

import optax

from pugd_optax._typing import Mask
from pugd_optax.ascents import projected_ascent, restrict
from pugd_optax.combines import replace
from pugd_optax.reevaluate import reevaluate
from pugd_optax.timing import When


def amp(
    epsilon: optax.ScalarOrSchedule = 0.5,
    step_size: optax.ScalarOrSchedule = 1.0,
    steps: int = 1,
    *,
    when: When = None,
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Adversarial model perturbation: ascend inside a ball of each tensor, then take the gradient there.

    $$\delta_0 = 0, \qquad \delta_{k+1} = \Pi\big(\delta_k + \zeta\, \nabla L(w + \delta_k)\big), \qquad
      u = \nabla L(w + \delta_N)$$

    where $\Pi$ scales each **tensor** down to a norm of at most `epsilon`. Unlike in SAM, a small gradient is not
    scaled up. `steps + 1` gradient evaluations per step.

    Args:
      epsilon: radius of each tensor's ball, at least 0; a number or a schedule.
      step_size: $\zeta > 0$, the inner learning rate; a number or a schedule.
      steps: $N \ge 1$, the number of ascent steps.
      when: the gate (see `pugd_optax.timing`). Default: every step. On other steps $g$ is passed on unchanged.
      mask: the parameters to perturb, a tree of bools or a function of the parameters; norms of the perturbation are
        over these only. Default: all.
      report: also store norms, cosine and distance of active steps in the state (see `pugd_optax.reevaluate`).

    Returns:
      An `optax.GradientTransformationExtraArgs`; `update` needs `params` and `grad_fn` (or `value_fn`), see
      `pugd_optax.reevaluate`; `state.radius` is 1 on active steps, as the ascent has its own $\epsilon$.

    Raises:
      ValueError, TypeError: if an argument is out of its range.

    Example:
      >>> import optax, pugd_optax
      >>> tx = optax.chain(pugd_optax.amp(epsilon=0.05), optax.sgd(0.1))

    References:
      Zheng, Zhang and Mao, Regularizing Neural Networks via Adversarial Model Perturbation, CVPR 2021,
      https://arxiv.org/abs/2010.04925

    Notes:
      The defaults are the authors'. Since every tensor has its own ball, the whole perturbation grows with the number
      of tensors. On five of six small tasks the defaults lost 15 to 68 points against plain training (`python -m
      experiments compare`): choose `epsilon` on validation data, and try smaller values first.
    """
    return reevaluate(restrict(projected_ascent(epsilon, step_size, steps), mask), replace, when=when, report=report)
