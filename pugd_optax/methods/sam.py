"""SAM: sharpness-aware minimization."""

import optax

from pugd_optax._typing import Mask
from pugd_optax.ascents import normalize, restrict
from pugd_optax.combines import replace
from pugd_optax.reevaluate import reevaluate
from pugd_optax.schedules import Radius
from pugd_optax.timing import When


def sam(
    radius: Radius = 0.05,
    *,
    when: When = None,
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Sharpness-aware minimization: the gradient at the point with the highest loss in a small ball, to first order.

    $$\epsilon = \rho\,\frac{g}{\|g\|}, \qquad u = g^* = \nabla L(w + \epsilon)$$

    Two gradient evaluations per step. Only the ascent is normalised, so the base optimizer can keep its learning rate.

    Args:
      radius: $\rho \ge 0$, the radius of the ball (0.05 for CIFAR-10 and 0.1 for CIFAR-100 in the paper); a number or a
        schedule.
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
      >>> tx = optax.chain(pugd_optax.sam(radius=0.05), optax.sgd(0.1))

    References:
      Foret, Kleiner, Mobahi and Neyshabur, Sharpness-Aware Minimization for Efficiently Improving Generalization, ICLR
      2021, https://arxiv.org/abs/2010.01412
    """
    return reevaluate(restrict(normalize(), mask), replace, radius=radius, when=when, report=report)
