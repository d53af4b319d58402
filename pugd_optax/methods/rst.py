"""RST: randomized sharpness-aware training."""

import jax
import optax

from pugd_optax._checks import check_number, check_sometimes
from pugd_optax._typing import Mask
from pugd_optax.methods.sam import sam
from pugd_optax.schedules import Radius
from pugd_optax.timing import bernoulli


def rst(
    probability: optax.ScalarOrSchedule = 0.5,
    radius: Radius = 0.05,
    key: jax.Array | int = 0,
    *,
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Randomized sharpness-aware training: each step is randomly either SAM or plain training.

    $$u = \begin{cases} \nabla L(w + \rho\, g / \|g\|) & \text{with probability } p_t \\ g & \text{otherwise}
      \end{cases}$$

    $1 + p$ gradient evaluations per step. $p = 1$ is SAM. For another method on random steps, pass
    `when=pugd_optax.timing.bernoulli(p, key)` to it; the paper's G-RST is `pugd_optax.gnp` with this gate.

    Args:
      probability: $p_t$ in (0, 1]; a number, or a schedule, which may be 0 at times. The paper tries constant,
        piecewise, linear and cosine schedules.
      radius: $\rho \ge 0$; a number or a schedule.
      key: a PRNG key or an integer seed; the decision of step t is drawn from `fold_in(key, t)`.
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
      >>> tx = optax.chain(pugd_optax.rst(probability=0.5), optax.sgd(0.1))

    References:
      Zhao, Zhang and Hu, Randomized Sharpness-Aware Training for Boosting Computational Efficiency in Deep Learning,
      https://arxiv.org/abs/2203.09962, whose first version is called SS-SAM
    """
    check_number("probability", probability, low=0, high=1, schedule=True)
    check_sometimes("probability", probability)
    return sam(radius, when=bernoulli(probability, key), mask=mask, report=report)
