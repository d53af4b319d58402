"""PUGD: perturbed unit gradient descent."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import optax

from pugd_optax._by_name import by_name
from pugd_optax._norms import Norms, cast_like, finite_or, inverse, multiply
from pugd_optax._typing import Combine, Mask
from pugd_optax.ascents import normalize, restrict, scale_by_abs_params
from pugd_optax.combines import Scale, StatefulCombine, unit_sum, weighted_sum
from pugd_optax.reevaluate import reevaluate
from pugd_optax.schedules import Radius
from pugd_optax.timing import When

Idle = Literal["unit", "raw", "reuse"]
"""The output of inactive steps."""


def pugd(
    radius: Radius = 1.0,
    scale: Scale = 1.0,
    *,
    when: When = None,
    idle: Idle = "unit",
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Perturbed unit gradient descent: the unit vector along the sum of the old and the perturbed gradient.

    $$\epsilon = r\,\frac{|w| \odot g}{\big\| |w| \odot g \big\|}, \qquad g^* = \nabla L(w + \epsilon), \qquad
      u = \frac{s\,g + g^*}{\| s\,g + g^* \|}$$

    The norms are global: biases and normalisation layers are perturbed too, unless `mask` excludes them. A parameter
    that is exactly 0 is not perturbed. Two gradient evaluations per step. $|u| = 1$, or 0 if both gradients are 0, so
    the learning rate is the length of a step before momentum; weight decay follows in the base optimizer.

    Args:
      radius: $r \ge 0$ (1 in the paper), the length of the perturbation; a number or a schedule. Keep it below about 3.
      scale: $s \ge 0$, the weight of the old gradient (1 in the paper): a number, a schedule, `"norm_ratio"` or
        `"cosine"` (see `pugd_optax.unit_sum`). $s \to \infty$ is normalised gradient descent.
      when: the gate (see `pugd_optax.timing`). Default: every step.
      idle: the output of inactive steps: `"unit"`, $g/\|g\|$, so that the step size does not jump; `"raw"`, $g$ itself;
        or `"reuse"`, the unit vector along $g + \|g\|\, v$, where $v$ is the part of the last active output orthogonal
        to its $g$, that is, the rotation caused by the second gradient. `"reuse"` stores a copy of the parameters.
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
      >>> tx = optax.chain(pugd_optax.pugd(radius=0.1), optax.sgd(0.1))

    References:
      Tseng, Liu, Lee and Zeng, Perturbed Gradients Updating within Unit Space for Deep Learning, IJCNN 2022,
      https://arxiv.org/abs/2110.00199

    Notes:
      The authors' code computes $g + g^*$ by not zeroing gradients between the two passes, and updates BatchNorm
      statistics in both. Here `grad_fn` decides about the statistics, and `pugd_optax.value_and_grad` keeps those of
      the first pass.
    """
    if idle not in get_args(Idle):
        raise ValueError(f"idle={idle!r}: expected 'unit', 'raw' or 'reuse'.")
    ascent, combine = restrict(normalize(scale_by_abs_params()), mask), unit_sum(scale)
    rest = {"unit": _unit, "raw": None, "reuse": _turn_again}[idle]
    combine = _remembering_the_turn(combine) if idle == "reuse" else combine
    return reevaluate(ascent, combine, radius=radius, when=when, idle=rest, report=report)


def _unit(g: optax.Updates, norms: Norms) -> optax.Updates:
    return multiply(inverse(norms.g), g)


def _remembering_the_turn(combine: Combine) -> StatefulCombine:
    """The same combine, with the part of its output that is orthogonal to $g$ as its state; 0 if that is not finite."""
    combine = by_name(combine)

    def join(g, g_star, step: jax.Array, norms: Norms, state: optax.Updates):
        u = combine(g, g_star, step=step, norms=norms)
        along = Norms(u, g, norms.axis_name).dot * inverse(norms.g) * inverse(norms.g)
        usable = jnp.isfinite(along).astype(along.dtype)
        return u, cast_like(weighted_sum(usable, u, -finite_or(0, along), g), state)

    return StatefulCombine(lambda params: jax.tree.map(jnp.zeros_like, params), join)


def _turn_again(g: optax.Updates, norms: Norms, state: optax.Updates) -> optax.Updates:
    factor = inverse(norms.of(weighted_sum(1.0, g, norms.g, state)))
    return weighted_sum(factor, g, factor * norms.g, state)
