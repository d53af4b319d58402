"""WSAM: weighted sharpness-aware minimization."""

import optax

from pugd_optax._checks import check_number
from pugd_optax._typing import Mask
from pugd_optax._unit_ascent import unit_ascent
from pugd_optax.ascents import restrict
from pugd_optax.combines import mix
from pugd_optax.reevaluate import reevaluate
from pugd_optax.schedules import Radius
from pugd_optax.timing import When


def wsam(
    radius: Radius = 0.05,
    gamma: optax.ScalarOrSchedule = 0.9,
    *,
    adaptive: bool = False,
    when: When = None,
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Weighted SAM: sharpness as a regulariser with its own weight.

    $$\epsilon = \rho\,\frac{g}{\|g\|}, \qquad u = g + \frac{\gamma}{1 - \gamma}\,(g^* - g)$$

    Two gradient evaluations per step. $\gamma = 0$ is plain training, $\gamma = 1/2$ SAM; above that, the new gradient
    is extrapolated: 0.9 gives $9 g^* - 8 g$.

    Args:
      radius: $\rho \ge 0$; a number or a schedule.
      gamma: $\gamma \in [0, 1)$, useful from 0.8 to 0.95 in the paper; a number or a schedule.
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
      >>> tx = optax.chain(pugd_optax.wsam(gamma=0.8), optax.sgd(0.1))

    References:
      Yue et al., Sharpness-Aware Minimization Revisited: Weighted Sharpness as a Regularization Term, KDD 2023,
      https://arxiv.org/abs/2305.15817

    Notes:
      This is the coupled form. The paper's other form, its authors' default, passes only $g$ through the base optimizer
      and adds the sharpness term afterwards. It needs the base optimizer and its learning rate, so it takes two
      transformations whose updates are added: see the page "Methods in a few lines" of the documentation.

      At the default, $g^* - g$ has a weight of 9. Against plain training, this gained 3 and 8 points on two of six
      small tasks, those of an MLP with wrong labels, and lost 7 to 33 points on the other four (`python -m experiments
      compare`). At $\gamma = 0.5$, WSAM is SAM.
    """
    check_number("gamma", gamma, low=0, below=1, schedule=True)
    weight = (lambda step: gamma(step) / (1 - gamma(step))) if callable(gamma) else gamma / (1 - gamma)
    rest = (lambda step: 1 - weight(step)) if callable(weight) else 1 - weight
    ascent = restrict(unit_ascent(adaptive), mask)
    return reevaluate(ascent, mix(rest, weight), radius=radius, when=when, report=report)
