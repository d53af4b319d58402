"""LookSAM: SAM every k steps, its sharpness direction reused in between."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import check_count, check_number
from pugd_optax._cond import cond
from pugd_optax._norms import norm, safe_ratio, select, widen
from pugd_optax._typing import Mask
from pugd_optax.combines import projection, weighted_sum
from pugd_optax.methods.sam import sam
from pugd_optax.timing import When, every as every_k


class LookSAMState(NamedTuple):
    r"""State of `looksam`: `direction` is $g_v$ of the last active step, 0 before it; `sam` the state of SAM.

    It is also 0 where $g^*$ is parallel to $g$ up to rounding errors: those have no direction to reuse.
    """

    direction: optax.Updates
    sam: optax.OptState


def looksam(
    radius: optax.ScalarOrSchedule = 0.1,
    alpha: optax.ScalarOrSchedule = 0.7,
    every: int = 10,
    *,
    when: When = None,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""LookSAM: SAM every few steps; in between, the part of its gradient that points to flatness is reused.

    $$u = \begin{cases} g^*, \quad g_v \leftarrow g^* - \frac{\langle g^*, g\rangle}{\|g\|^2}\, g & \text{active} \\
      g + \alpha \frac{\|g\|}{\|g_v\|}\, g_v & \text{otherwise} \end{cases}$$

    with $\epsilon = \rho\, g / \|g\|$. The part of $g^*$ along $g$ changes quickly, the part $g_v$ orthogonal to it
    slowly. $1 + 1/k$ gradient evaluations a step, and one copy of the parameters more.

    Args:
      radius: $\rho \ge 0$; a number or a schedule.
      alpha: $\alpha \ge 0$, the weight of the reused direction; a number or a schedule.
      every: $k \ge 1$, the period of SAM steps.
      when: another gate (see `pugd_optax.timing`) in place of `timing.every(every)`.
      mask: the parameters to perturb, a tree of bools or a function of the parameters; the norm is over these alone.
        Default: all.

    Returns:
      An `optax.GradientTransformationExtraArgs`; `update` needs `params` and `grad_fn` (or `value_fn`), see
      `pugd_optax.reevaluate`.

    Raises:
      ValueError, TypeError: if an argument is out of its range.

    Example:
      >>> import jax, jax.numpy as jnp, optax, pugd_optax
      >>> loss = lambda w: jnp.sum(w**2)
      >>> tx = optax.chain(pugd_optax.looksam(every=5), optax.sgd(0.1))
      >>> w = jnp.array([1.0, 2.0])
      >>> state = tx.init(w)
      >>> for _ in range(10):
      ...     updates, state = tx.update(jax.grad(loss)(w), state, w, grad_fn=jax.grad(loss))
      ...     w = optax.apply_updates(w, updates)
      >>> print(f"{loss(w):.3f}")
      0.053

    References:
      Liu et al., Towards Efficient and Scalable Sharpness-Aware Minimization, CVPR 2022,
      https://arxiv.org/abs/2203.02714
    """
    check_number("alpha", alpha, low=0, schedule=True)
    check_count("every", every, low=1)
    inner = sam(radius, when=every_k(every) if when is None else when, mask=mask)

    def init(params: optax.Params) -> LookSAMState:
        return LookSAMState(jax.tree.map(jnp.zeros_like, params), inner.init(params))

    def update(updates, state: Any, params=None, **extra_args):
        g = updates
        sam_state: Any
        u, sam_state = inner.update(g, state.sam, params, **extra_args)

        def reuse():
            at = alpha(state.sam.step) if callable(alpha) else alpha
            weight = at * safe_ratio(norm(g), norm(state.direction))
            return weighted_sum(1.0, g, weight, state.direction), state.direction

        remember = lambda: (u, _orthogonal(u, g, state.direction))
        u, direction = cond(sam_state.active, remember, reuse)
        return u, LookSAMState(direction, sam_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _orthogonal(g_star: optax.Updates, g: optax.Updates, last: optax.Updates) -> optax.Updates:
    """The part of `g_star` orthogonal to `g`: 0 where it is only rounding errors, `last` where one is not finite."""
    star_norm, g_norm = norm(g_star), norm(g)
    g_v = weighted_sum(1.0, g_star, -projection(g_star, g, star_norm, g_norm), g)
    is_real = norm(g_v) > _resolution(g_star) * star_norm
    kept = jax.tree.map(lambda x: jnp.where(is_real, x, 0), g_v)
    return select(jnp.isfinite(star_norm) & jnp.isfinite(g_norm), kept, last)


def _resolution(tree: optax.Updates) -> float:
    """Length of rounding errors in units of a gradient: half an eps for the entries of each of the two, three for sums.

    Sums are taken in float32 or better, so 1 eps in half precision and 4 in float32.
    """
    eps = lambda x: float(jnp.finfo(x.dtype).eps)
    return max((eps(x) + 3 * eps(widen(x)) for x in jax.tree.leaves(tree)), default=0.0)
