"""Momentum-SAM: perturb along the momentum, at the cost of one gradient."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import check_number
from pugd_optax._norms import widen
from pugd_optax._typing import Mask
from pugd_optax.ascents import ObservingAscent, normalize, restrict
from pugd_optax.combines import replace
from pugd_optax.reevaluate import reevaluate
from pugd_optax.schedules import Radius
from pugd_optax.timing import When


class MomentumSAMState(NamedTuple):
    """State of the ascent of `momentum_sam`: `momentum`, the decaying sum of the finite entries of its outputs."""

    momentum: optax.Updates


def momentum_sam(
    radius: Radius = 0.3,
    decay: float = 0.9,
    *,
    when: When = None,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Momentum-SAM: the gradient at a point chosen by the momentum instead of a first gradient.

    $$\epsilon = -\rho\,\frac{v}{\|v\|}, \qquad u = \nabla L(w + \epsilon), \qquad v \leftarrow \mu v + u$$

    **One** gradient evaluation per step: the gradient at $w$ is not used, so under jit it is never computed. Along the
    last steps the gradient has changed sign, so $-v$ is an ascent direction for the loss of the next batches. The
    buffer belongs to this transformation and takes one copy of the parameters, whatever momentum the base optimizer
    has.

    Args:
      radius: $\rho \ge 0$; a number or a schedule. 0.3 was chosen on small networks; see the notes.
      decay: $\mu$ in [0, 1); use the momentum of the base optimizer.
      when: the gate (see `pugd_optax.timing`). Default: every step. On other steps $g$ is passed on unchanged.
      mask: the parameters to perturb, a tree of bools or a function of the parameters; the norm is over these only.
        Default: all.

    Returns:
      An `optax.GradientTransformationExtraArgs`; `update` needs `params` and `grad_fn` (or `value_fn`), see
      `pugd_optax.reevaluate`. `grads` gives the tree alone.

    Raises:
      ValueError, TypeError: if an argument is out of its range.

    Example:
      >>> import optax, pugd_optax
      >>> tx = optax.chain(pugd_optax.momentum_sam(radius=0.05), optax.sgd(0.1))

    References:
      Becker, Altrock and Risse, Momentum-SAM: Sharpness Aware Minimization without Computational Overhead,
      https://arxiv.org/abs/2401.12033

    Notes:
      Every command in the authors' repository, https://github.com/MarlonBecker/MSAM, uses $\rho = 3$, for SGD and for
      AdamW; the defaults of their classes are 0.3 and 1. Their direction is the buffer of the base optimizer, which
      includes weight decay, and for AdamW its first moment; the buffer here is of the gradients only. The page "Methods
      in a few lines" of the documentation perturbs along the buffer of the base optimizer instead.
    """
    check_number("decay", decay, low=0, below=1)

    def direction(updates, state: MomentumSAMState, params=None, **extra_args):
        del updates, params, extra_args
        return jax.tree.map(jnp.negative, state.momentum), state

    def observe(state: MomentumSAMState, g_star: optax.Updates) -> MomentumSAMState:
        return MomentumSAMState(jax.tree.map(functools.partial(_decayed_sum, decay), state.momentum, g_star))

    along = ObservingAscent(lambda params: MomentumSAMState(jax.tree.map(jnp.zeros_like, params)), direction, observe)
    return reevaluate(normalize(restrict(along, mask)), replace, radius=radius, when=when)


def _decayed_sum(decay: jax.typing.ArrayLike, v: jax.Array, u: jax.Array) -> jax.Array:
    wide = widen(v)
    moved = (jnp.asarray(decay, wide.real.dtype) * wide + u.astype(wide.dtype)).astype(v.dtype)
    return jnp.where(jnp.isfinite(moved), moved, v)
