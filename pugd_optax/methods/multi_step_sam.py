"""Multi-step SAM: several normalised ascent steps inside SAM's ball."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import check_count
from pugd_optax._norms import widen
from pugd_optax._typing import Mask
from pugd_optax.ascents import normalize, offset, restrict
from pugd_optax.combines import replace, weighted_sum
from pugd_optax.reevaluate import reevaluate
from pugd_optax.schedules import Radius
from pugd_optax.timing import When


def multi_step_sam(
    radius: Radius = 0.05,
    steps: int = 2,
    *,
    when: When = None,
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""SAM with several ascent steps, each an equal part of the radius.

    $$\epsilon_0 = 0, \qquad
      \epsilon_{k+1} = \epsilon_k + \frac{\rho}{N}\,\frac{\nabla L(w + \epsilon_k)}{\|\nabla L(w + \epsilon_k)\|},
      \qquad u = \nabla L(w + \epsilon_N)$$

    so that $\|\epsilon_N\| \le \rho$, with equality if the direction of the gradient does not change. $N + 1$ gradient
    evaluations per step; $N = 1$ is SAM. `pugd_optax.amp` is the projected, unnormalised ascent instead.

    Args:
      radius: $\rho \ge 0$; a number or a schedule.
      steps: $N \ge 1$, the number of ascent steps.
      when: the gate (see `pugd_optax.timing`). Default: every step. On other steps $g$ is passed on unchanged.
      mask: the parameters to perturb, a tree of bools or a function of the parameters; the norms are over these only.
        Default: all.
      report: also store norms, cosine and distance of active steps in the state (see `pugd_optax.reevaluate`).

    Returns:
      An `optax.GradientTransformationExtraArgs`; `update` needs `params` and `grad_fn` (or `value_fn`), see
      `pugd_optax.reevaluate`.

    Raises:
      ValueError, TypeError: if an argument is out of its range.

    Example:
      >>> import optax, pugd_optax
      >>> tx = optax.chain(pugd_optax.multi_step_sam(steps=3), optax.sgd(0.1))

    References:
      The inner maximisation of Foret, Kleiner, Mobahi and Neyshabur, Sharpness-Aware Minimization for Efficiently
      Improving Generalization, ICLR 2021, https://arxiv.org/abs/2010.01412, carried further; compared with one step in
      Andriushchenko and Flammarion, Towards Understanding Sharpness-Aware Minimization, ICML 2022,
      https://arxiv.org/abs/2206.06232
    """
    check_count("steps", steps, low=1, static=True)
    ascent = _climb(restrict(normalize(), mask), steps)
    return reevaluate(ascent, replace, radius=radius, when=when, report=report)


def _climb(ascent: optax.GradientTransformation, steps: int) -> optax.GradientTransformationExtraArgs:
    """The mean direction of `steps` ascent steps, each evaluated where the last one ended."""

    def update(updates, state, params=None, *, radius: Any = 0.0, grad_fn: Any = None, **extra_args: Any):
        climb = lambda g: ascent.update(g, ascent.init(updates), params, **extra_args)[0]
        share = jnp.asarray(radius) / steps
        total = climb(updates)
        for _ in range(steps - 1):
            eps = jax.tree.map(lambda x: share.astype(widen(x).real.dtype) * widen(x), total)
            total = weighted_sum(1.0, total, 1.0, climb(grad_fn(offset(params, eps))))
        return jax.tree.map(lambda x: (widen(x) / steps).astype(x.dtype), total), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
