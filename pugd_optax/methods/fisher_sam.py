"""Fisher SAM: SAM in the ellipsoid of the diagonal Fisher information."""

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import check_number
from pugd_optax._norms import AxisName, inverse, norm, times, widen
from pugd_optax._typing import Mask
from pugd_optax.ascents import restrict
from pugd_optax.combines import replace
from pugd_optax.reevaluate import reevaluate
from pugd_optax.schedules import Radius
from pugd_optax.timing import When


def fisher_sam(
    radius: Radius = 0.1,
    eta: float = 0.2,
    *,
    when: When = None,
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Fisher SAM: the ball is measured by the Fisher information, so that sensitive parameters move less.

    $$\epsilon = \rho\,\frac{F^{-1} g}{\sqrt{\langle g, F^{-1} g \rangle}}, \qquad
      F^{-1} = \frac{1}{1 + \eta\, g^2}, \qquad u = \nabla L(w + \epsilon)$$

    all elementwise, with the squared gradient of the batch as Fisher information. Two gradient evaluations per step.
    $\eta = 0$ is SAM; entries of $g$ far below $1 / \sqrt\eta$ are moved as by SAM.

    Args:
      radius: $\rho \ge 0$; a number or a schedule.
      eta: $\eta \ge 0$, the weight of the Fisher information.
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
      >>> tx = optax.chain(pugd_optax.fisher_sam(radius=0.05), optax.sgd(0.1, momentum=0.9))

    References:
      Kim, Li, Hu and Hospedales, Fisher SAM: Information Geometry and Sharpness Aware Minimisation, ICML 2022,
      https://arxiv.org/abs/2206.04920

    Notes:
      The formula was checked against a third-party implementation,
      https://github.com/johnjaejunlee95/torch-unified-SAM-optimization, whose class has $\rho = 0.1$ and $\eta = 1$ and
      whose commands set $\rho = 0.05$ and $\eta = 0.2$. Of the paper only the abstract was available, and its authors
      have published no code.
    """
    check_number("eta", eta, low=0)

    def inverse_fisher(g: jax.Array) -> jax.Array:
        square = jnp.real(widen(g) * jnp.conj(widen(g)))
        return 1 / (1 + jnp.asarray(eta).astype(square.dtype) * square)

    def precondition(updates, state, params=None, *, norm_axis_name: AxisName = None, **extra_args):
        del params, extra_args
        length = norm(jax.tree.map(lambda g: jnp.sqrt(inverse_fisher(g)) * widen(g), updates), norm_axis_name)
        along = lambda g: times(inverse(length), inverse_fisher(g) * widen(g)).astype(g.dtype)
        return jax.tree.map(along, updates), state

    ascent = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), precondition)
    return reevaluate(restrict(ascent, mask), replace, radius=radius, when=when, report=report)
