"""A perturbed direction kept for the steps that evaluate no second gradient: LookSAM's idea for unit gradients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pugd_optax.combines import projection, unit_sum, weighted_sum


class ReuseState(NamedTuple):
    """`direction` is $v$ of the last active step, 0 before it; `inner` the `ReevaluateState` of the method."""

    direction: optax.Updates
    inner: Any


def reuse(method: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    r"""On idle steps, add the last known direction to flatness to the gradient of the moment.

    $$u = \begin{cases} u', \quad v \leftarrow u' - \frac{\langle u', g\rangle}{\|g\|^2}\, g & \text{active} \\
      \dfrac{g + \|g\| v}{\big\| g + \|g\| v \big\|} & \text{otherwise} \end{cases}$$

    with $u'$ the output of the method: $v$ is what the second gradient turned the first one by.

    Args:
      method: built on `pugd_optax.reevaluate`, with outputs of unit length, as `pugd_optax.pugd()`.

    Returns:
      A transformation with `init` and `update` like those of the method.
    """

    def init(params: optax.Params) -> ReuseState:
        return ReuseState(jax.tree.map(jnp.zeros_like, params), method.init(params))

    def update(updates, state: Any, params=None, **extra_args):
        inner: Any
        u, inner = method.update(updates, state.inner, params, **extra_args)
        norm = optax.tree.norm
        remember = lambda: (u, weighted_sum(1.0, u, -projection(u, updates, norm(u), norm(updates)), updates))
        again = lambda: (unit_sum(norm(updates))(state.direction, updates), state.direction)
        u, direction = jax.lax.cond(inner.active, remember, again)
        return u, ReuseState(direction, inner)

    return optax.GradientTransformationExtraArgs(init, update)
