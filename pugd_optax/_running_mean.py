"""A running mean of gradients that skips gradients that are not finite."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from pugd_optax._norms import AxisName, cast_like, norm
from pugd_optax.combines import weighted_sum


class RunningMean(NamedTuple):
    """A mean that starts at the first finite gradient.

    Attributes:
      mean: the running mean, in the dtypes of the parameters. A gradient that is not finite leaves it as it is.
      started: above 0 once a finite gradient has entered it. A float, so that devices average it along with the mean.
    """

    mean: optax.Updates
    started: jax.Array


def started_from(params: optax.Params) -> RunningMean:
    """The mean before the first gradient."""
    return RunningMean(jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.float32))


def moved(state: RunningMean, g: optax.Updates, decay: jax.typing.ArrayLike, axis_name: AxisName) -> RunningMean:
    r"""$m \leftarrow \lambda m + (1 - \lambda)\, g$.

    Example:
      >>> print(moved(started_from(jnp.zeros(2)), jnp.ones(2), 0.9, None).mean)
      [1. 1.]
    """
    finite = jnp.isfinite(norm(g, axis_name))
    keep = jnp.where(finite, jnp.where(state.started > 0, decay, 0.0), 1.0)
    mean = weighted_sum(keep, state.mean, 1 - keep, g)
    return RunningMean(cast_like(mean, state.mean), jnp.maximum(state.started, finite.astype(jnp.float32)))
