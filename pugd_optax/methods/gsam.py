"""GSAM: surrogate gap guided sharpness-aware minimization."""

import optax

from pugd_optax._checks import check_number
from pugd_optax._typing import Mask
from pugd_optax._unit_ascent import unit_ascent
from pugd_optax.ascents import restrict
from pugd_optax.combines import decompose
from pugd_optax.reevaluate import reevaluate
from pugd_optax.schedules import Radius
from pugd_optax.timing import When


def gsam(
    radius: Radius = 0.05,
    alpha: optax.ScalarOrSchedule = 0.4,
    *,
    adaptive: bool = False,
    when: When = None,
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Surrogate gap guided SAM: descend the perturbed loss, and reduce its gap to the unperturbed loss.

    $$\epsilon = \rho\,\frac{g}{\|g\|}, \qquad u = g^* - \alpha\, g_\perp, \qquad
      g_\perp = g - \frac{\langle g, g^* \rangle}{\|g^*\|^2}\, g^*$$

    Two gradient evaluations per step. Because of the term $-\alpha\, g_\perp$ a step also moves along $g_\perp$, which
    to first order raises the loss at $w$ but not the loss at $w + \epsilon$: the gap closes. $\alpha = 0$ is SAM.

    Args:
      radius: $\rho \ge 0$; a number or a schedule. The paper lets it follow the learning rate linearly.
      alpha: $\alpha \ge 0$, the strength of the gap term; a number or a schedule. In the paper 0.4 to 1 for vision
        transformers, 0.01 to 0.6 for MLP-Mixers, 0.005 to 0.01 for ResNets.
      adaptive: whether the ball scales with the parameters, as in `pugd_optax.asam` with $\eta = 0$:
        $\epsilon = \rho\, w^2 \odot g / \|w \odot g\|$.
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
      >>> tx = optax.chain(pugd_optax.gsam(), optax.sgd(0.1))

      As for the ResNets of the paper, with a radius that falls from 0.04 to 0.02 along with the learning rate:

      >>> lr = optax.cosine_decay_schedule(0.1, 1000)
      >>> radius = lambda step: 0.02 + 0.02 * lr(step) / 0.1
      >>> tx = optax.chain(pugd_optax.gsam(radius, alpha=0.01), optax.sgd(lr))

    References:
      Zhuang et al., Surrogate Gap Minimization Improves Sharpness-Aware Training, ICLR 2022,
      https://arxiv.org/abs/2203.08065

    Notes:
      The formula was checked against the authors' code for JAX, in https://github.com/google-research/big_vision, and
      for PyTorch, https://github.com/juntang-zhuang/GSAM. `adaptive=True` is that of the latter; the former perturbs by
      $\rho\, |w| \odot g / \|g\|$.
    """
    check_number("alpha", alpha, low=0, schedule=True)
    return reevaluate(restrict(unit_ascent(adaptive), mask), decompose(alpha), radius=radius, when=when, report=report)
