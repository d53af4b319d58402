"""ZSharp: SAM along the entries of the gradient with the largest z-scores in their tensor."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import check_number
from pugd_optax._masks import resolve_mask
from pugd_optax._norms import AxisName, average, inverse, largest, norm, safe_ratio, times, total, widen
from pugd_optax._typing import Mask
from pugd_optax.ascents import restrict
from pugd_optax.combines import replace
from pugd_optax.reevaluate import reevaluate
from pugd_optax.schedules import Radius
from pugd_optax.timing import When

HALVINGS = 32
"""How often the interval that contains the threshold is halved; each time is a pass over the scores."""


def zsharp(
    radius: Radius = 0.05,
    quantile: float = 0.95,
    *,
    when: When = None,
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""ZSharp: the perturbation uses only the entries of the gradient with the largest z-scores.

    $$z = \frac{g - \mathrm{mean}(g)}{\mathrm{std}(g)} \text{ tensor by tensor}, \qquad
      \tilde g = \mathbb 1\big[\,|z| > q\,\big] \odot g, \qquad
      \epsilon = \rho\,\frac{\tilde g}{\|\tilde g\|}, \qquad u = \nabla L(w + \epsilon)$$

    with $q$ the given quantile of $|z|$ over all tensors. If no entry is selected, $\tilde g = g$. Two gradient
    evaluations per step, and 32 passes over the gradient to find $q$ without sorting, which is expensive for small
    batches.

    Args:
      radius: $\rho \ge 0$; a number or a schedule.
      quantile: in [0, 1): 0.95 keeps the 5 % of the entries with the largest |z|.
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
      >>> tx = optax.chain(pugd_optax.zsharp(radius=0.05), optax.sgd(0.1, momentum=0.9))

    References:
      Yun, Sharpness-Aware Minimization with Z-Score Gradient Filtering for Neural Networks,
      https://arxiv.org/abs/2505.02369

    Notes:
      The formula was checked against a third-party summary,
      https://junaidaliop.github.io/zij/math/zsharpsamwithzscoregradientfiltering/, and the paper's abstract; the
      defaults are those of the summary. A reproduction, https://github.com/bangyen/zsharp, agrees on z-scores for each
      layer and one threshold for all layers, but its default quantile is 0.7, and of a layer below the threshold it
      keeps the fifth with the largest |z|. A layer is a tensor here. A tensor with one entry has no z-score and is
      never kept.
    """
    check_number("quantile", quantile, low=0, below=1)

    def stand_out(updates, state, params: Any = None, *, norm_axis_name: AxisName = None, **extra_args):
        del extra_args
        scores = jax.tree.map(lambda g: _scores(widen(g), norm_axis_name), updates)
        counted = jax.tree.map(lambda on, g: jnp.float32(g.size * on), resolve_mask(mask, params), updates)
        number = total(updates, counted, norm_axis_name)
        bar = _bar(scores, number - 1 - jnp.floor(quantile * (number - 1)), norm_axis_name)
        kept = jax.tree.map(lambda g, z: jnp.where(z > bar.astype(z.dtype), g, 0), updates, scores)
        length, whole = norm(kept, norm_axis_name), norm(updates, norm_axis_name)
        instead = jnp.where(length == 0, inverse(whole), 0)
        both = lambda x, g: (times(inverse(length), x) + times(instead, g)).astype(g.dtype)
        return jax.tree.map(both, kept, updates), state

    ascent = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), stand_out)
    return reevaluate(restrict(ascent, mask), replace, radius=radius, when=when, report=report)


def _scores(g: jax.Array, axis_name: AxisName) -> jax.Array:
    """|z|, or 0 if all entries of the tensor are equal."""
    away = jnp.abs(g - average(g, axis_name))
    return away * safe_ratio(jnp.ones((), away.dtype), jnp.sqrt(average(away * away, axis_name)))


def _bar(scores: Any, keep: jax.Array, axis_name: AxisName) -> jax.Array:
    """The smallest number exceeded by at most `keep` of the scores, up to 32 halvings."""

    def halve(_, bounds):
        low, high = bounds
        middle = 0.5 * (low + high)
        above = jax.tree.map(lambda z: jnp.sum(z > middle.astype(z.dtype)), scores)
        few = total(scores, above, axis_name) <= keep
        return jnp.where(few, low, middle), jnp.where(few, middle, high)

    top = largest(scores, axis_name)
    return jax.lax.fori_loop(0, HALVINGS, halve, (jnp.zeros_like(top), top))[1]
