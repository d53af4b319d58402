"""A gate that depends on measurements of the active steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import check_count, check_number
from pugd_optax._norms import Norms
from pugd_optax.timing.gate import Gate


class TurningState(NamedTuple):
    """Memory of `turning`: the running mean of the cosine, -1 before the first active step."""

    cosine: jax.Array


def turning(below: float = 0.99, *, probe: int = 20, decay: float = 0.5) -> Gate:
    r"""Active as long as the perturbation changes the direction of the gradient.

    $$m < c \quad\text{or}\quad t \bmod k = 0, \qquad m \leftarrow \delta m + (1 - \delta) \cos(g, g^*)$$

    where the mean $m$ is over active steps. If the two gradients agree, the second one is not worth its cost; every
    k-th step checks whether they still agree.

    Args:
      below: $c$ in [-1, 1]. At a small radius the cosine stays near 1: `pugd_optax.diagnostics.radius_curve` shows it.
      probe: $k \ge 1$, steps between two checks.
      decay: $\delta$ in [0, 1); the mean starts at the first cosine.

    Returns:
      A gate. A gradient that is 0 or not finite does not change the mean.

    Raises:
      ValueError, TypeError: if an argument is out of its range.

    Example:
      >>> import jax, jax.numpy as jnp, optax, pugd_optax
      >>> grad_fn = jax.grad(lambda w: 0.5 * (w[0] ** 2 + 9 * w[1] ** 2))
      >>> def active(radius):
      ...     tx, w = pugd_optax.sam(radius, when=turning(0.99, probe=3)), jnp.array([1.0, 0.2])
      ...     state, found = tx.init(w), []
      ...     for _ in range(6):
      ...         _, state = tx.update(grad_fn(w), state, w, grad_fn=grad_fn)
      ...         found.append(bool(optax.tree.get(state, "active")))
      ...     return found
      >>> active(0.001)
      [True, False, False, True, False, False]
      >>> active(1.0)
      [True, True, True, True, True, True]
    """
    check_number("below", below, low=-1, high=1)
    check_count("probe", probe, low=1)
    check_number("decay", decay, low=0, below=1)

    def update(state: TurningState, grads: optax.Updates, *, step: jax.Array, **extra_args):
        del grads, extra_args
        return (state.cosine < below) | (step % probe == 0), state

    def observe(state: TurningState, norms: Norms) -> TurningState:
        size, cosine = norms.g * norms.g_star, norms.cosine.astype(jnp.float32)
        mean = jnp.where(state.cosine == -1, cosine, decay * state.cosine + (1 - decay) * cosine)
        return TurningState(jnp.where(jnp.isfinite(size) & (size > 0), mean.astype(jnp.float32), state.cosine))

    return Gate(lambda params: TurningState(jnp.full((), -1, jnp.float32)), update, observe)
