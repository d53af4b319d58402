"""GNP: penalizing the gradient norm."""

import optax

from pugd_optax._checks import check_number
from pugd_optax._typing import Mask
from pugd_optax.ascents import normalize, restrict
from pugd_optax.combines import mix
from pugd_optax.reevaluate import reevaluate
from pugd_optax.schedules import Radius
from pugd_optax.timing import When


def gnp(
    radius: Radius = 0.1,
    alpha: optax.ScalarOrSchedule = 0.8,
    *,
    when: When = None,
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Gradient-norm penalty: the gradient of $L + \lambda \|\nabla L\|$ by one finite difference.

    $$\epsilon = r\,\frac{g}{\|g\|}, \qquad u = (1 - \alpha)\, g + \alpha\, g^*, \qquad \alpha = \lambda / r$$

    Two gradient evaluations per step. $\alpha = 1$ is SAM, $\alpha = 0$ plain training.

    Args:
      radius: $r \ge 0$, the step of the finite difference; a number or a schedule.
      alpha: $\alpha$, the share of the new gradient; a number or a schedule. The strength of the penalty is
        $\lambda = \alpha r$.
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
      >>> tx = optax.chain(pugd_optax.gnp(radius=0.05), optax.sgd(0.1))

    References:
      Zhao, Zhang and Hu, Penalizing Gradient Norm for Efficiently Improving Generalization in Deep Learning, ICML 2022,
      https://arxiv.org/abs/2202.03599

    Notes:
      The authors' code divides the first gradient by its norm before mixing unless an option is set; this is the
      published formula.
    """
    check_number("alpha", alpha, schedule=True)
    rest = (lambda step: 1 - alpha(step)) if callable(alpha) else 1 - alpha
    return reevaluate(restrict(normalize(), mask), mix(rest, alpha), radius=radius, when=when, report=report)
