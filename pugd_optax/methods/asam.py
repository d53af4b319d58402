"""ASAM: adaptive sharpness-aware minimization."""

import functools

import optax

from pugd_optax._masks import resolve_mask
from pugd_optax._typing import Mask
from pugd_optax.ascents import normalize, restrict, scale_by_abs_params
from pugd_optax.combines import replace
from pugd_optax.reevaluate import reevaluate
from pugd_optax.schedules import Radius
from pugd_optax.timing import When


def asam(
    radius: Radius = 0.5,
    eta: optax.ScalarOrSchedule = 0.01,
    *,
    scaled: Mask | None = None,
    when: When = None,
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Adaptive sharpness-aware minimization: SAM in a ball that scales with the parameters.

    $$T = |w| + \eta, \qquad \epsilon = \rho\,\frac{T^2 \odot g}{\| T \odot g \|}, \qquad u = \nabla L(w + \epsilon)$$

    Two gradient evaluations per step. Rescaling a layer leaves the loss in the ball unchanged, so one radius suits
    layers of every size. The length of $\epsilon$ itself is not $\rho$; that of $\epsilon / T$ is.

    Args:
      radius: $\rho \ge 0$ (0.5 for CIFAR-10 and 1.0 for CIFAR-100 in the paper); a number or a schedule.
      eta: $\eta \ge 0$; above 0, parameters that are 0 can move too.
      scaled: the parameters that get $T$, a tree of bools or a function of the parameters; the others get $T = 1$. By
        default all are scaled. The authors scale weights only; `lambda p: jax.tree.map(lambda w: w.ndim > 1, p)` does
        nearly that, and the best radius is then about four times smaller.
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
      >>> tx = optax.chain(pugd_optax.asam(radius=0.05), optax.sgd(0.1))

    References:
      Kwon, Kim, Park and Choi, ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural
      Networks, ICML 2021, https://arxiv.org/abs/2102.11600

    Notes:
      `SAM(..., adaptive=True)` of davda54/sam is $\eta = 0$ here; its example sets the radius to 2.
    """
    scale = scale_by_abs_params(eta, mask=functools.partial(resolve_mask, scaled, name="scaled"))
    ascent = restrict(optax.chain(normalize(scale), scale), mask)
    return reevaluate(ascent, replace, radius=radius, when=when, report=report)
