"""StableSAM: SAM whose gradient keeps the norm of the plain gradient."""

import optax

from pugd_optax._norms import Norms, finite_or, inverse, multiply
from pugd_optax._typing import Mask
from pugd_optax.ascents import normalize, restrict
from pugd_optax.reevaluate import reevaluate
from pugd_optax.schedules import Radius
from pugd_optax.timing import When


def stable_sam(
    radius: Radius = 0.05,
    *,
    when: When = None,
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""StableSAM: the direction of SAM's gradient with the norm of the plain gradient.

    $$\epsilon = \rho\,\frac{g}{\|g\|}, \qquad u = \frac{\|g\|}{\|g^*\|}\, g^*$$

    Two gradient evaluations per step. Near a minimum $g^*$ stays of the order of $\rho$ times the curvature while $g$
    goes to zero, and SAM oscillates unless the learning rate is small; here the step shrinks with $g$.

    Args:
      radius: $\rho \ge 0$; a number or a schedule.
      when: the gate (see `pugd_optax.timing`). Default: every step. On other steps $g$ is passed on unchanged.
      mask: the parameters to perturb, a tree of bools or a function of the parameters; the norm in $\epsilon$ is over
        these only, those in $u$ over all. Default: all.
      report: also store norms, cosine and distance of active steps in the state (see `pugd_optax.reevaluate`).

    Returns:
      An `optax.GradientTransformationExtraArgs`; `update` needs `params` and `grad_fn` (or `value_fn`), see
      `pugd_optax.reevaluate`. Where $g^*$ is 0, so is $u$.

    Raises:
      ValueError, TypeError: if an argument is out of its range.

    Example:
      >>> import optax, pugd_optax
      >>> tx = optax.chain(pugd_optax.stable_sam(radius=0.05), optax.sgd(0.1))

    References:
      Tan, Zhang, Liu, Wang and Hao, Stabilizing Sharpness-aware Minimization Through A Simple Renormalization Strategy,
      https://arxiv.org/abs/2401.07250
    """
    return reevaluate(restrict(normalize(), mask), _keep_length, radius=radius, when=when, report=report)


def _keep_length(g: optax.Updates, g_star: optax.Updates, norms: Norms) -> optax.Updates:
    del g
    return multiply(finite_or(1, norms.g * inverse(norms.g_star)), g_star)
