"""AE-SAM: SAM on steps whose gradient is larger than usual."""

import optax

from pugd_optax._checks import check_count, check_number
from pugd_optax._typing import Mask
from pugd_optax.methods.sam import sam
from pugd_optax.schedules import Radius
from pugd_optax.timing import large_gradient


def ae_sam(
    total_steps: int,
    radius: Radius = 0.05,
    *,
    start: float = 1.0,
    stop: float = -1.0,
    decay: float = 0.9,
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""AE-SAM: an adaptive policy uses SAM's second gradient only where the loss is steep.

    $$u = \begin{cases} \nabla L(w + \rho\, g / \|g\|) & \text{if } \|g\|^2 \ge \mu_t + c_t \sigma_t \\
      g & \text{otherwise} \end{cases}$$

    with running mean $\mu_t$ and standard deviation $\sigma_t$ of $\|g\|^2$ (see `pugd_optax.timing.large_gradient`)
    and $c_t$ changing linearly from `start` to `stop`. A step costs on average 1 + the fraction of active steps in
    gradient evaluations: about half of the steps are active at $c = 0$, more below and fewer above. To use this policy
    with another method, pass the gate as its `when=`.

    Args:
      total_steps: the number of steps over which $c_t$ changes, at least 1.
      radius: $\rho \ge 0$; a number or a schedule.
      start: $c_0$, in standard deviations.
      stop: $c_T$, in standard deviations; kept after `total_steps`.
      decay: $\delta$ in [0, 1), the memory of the running moments.
      mask: the parameters to perturb, a tree of bools or a function of the parameters; the norm of the perturbation is
        over these only, the norm used by the policy is over all. Default: all.
      report: also store norms, cosine and distance of active steps in the state (see `pugd_optax.reevaluate`).

    Returns:
      An `optax.GradientTransformationExtraArgs`; `update` needs `params` and `grad_fn` (or `value_fn`), see
      `pugd_optax.reevaluate`.

    Raises:
      ValueError, TypeError: if an argument is out of its range.

    Example:
      >>> import optax, pugd_optax
      >>> tx = optax.chain(pugd_optax.ae_sam(total_steps=10), optax.sgd(0.1))

    References:
      Jiang, Yang, Zhang and Kwok, An Adaptive Policy to Employ Sharpness-Aware Minimization, ICLR 2023,
      https://arxiv.org/abs/2304.14647

    Notes:
      The linear change is the paper's; its $\lambda_2$ is `start` and its $\lambda_1$ is `stop`, according to a
      third-party summary, https://junaidaliop.github.io/zij/math/aesam/. Their values, and so the direction (rare at
      first, frequent at the end, where SAM is known to help most), are our choice: check them against the paper before
      you compare with its tables.
    """
    check_count("total_steps", total_steps, low=1, static=True)
    check_number("start", start)
    check_number("stop", stop)
    threshold = optax.linear_schedule(start, stop, total_steps)
    return sam(radius, when=large_gradient(threshold, decay=decay), mask=mask, report=report)
