"""Gradients that notify the host when they are actually computed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pugd_optax._typing import GradFn


class Tally:
    """Counts on the host."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, evaluations: int) -> Callable[[Any], np.ndarray]:
        """A callback that counts this many evaluations and returns 0."""

        def callback(_: Any) -> np.ndarray:
            self.count += evaluations
            return np.zeros((), np.float32)

        return callback


def counted(gradient: GradFn, tally: Tally) -> GradFn:
    """`gradient` with one callback tied to its value and another to its tangent, either of which may be dead code.

    The callbacks read one number of the parameters, so that calls at different points are not merged.
    """
    count_value, count_tangent = tally.add(1), tally.add(2)
    witness = lambda params: next(x for x in jax.tree.leaves(params) if x.size).ravel()[0].real

    @jax.custom_jvp
    def grad_fn(params: optax.Params) -> optax.Updates:
        return tied(gradient(params), count_value, witness(params))

    @grad_fn.defjvp
    def _(primals, tangents):
        g, h = jax.jvp(gradient, primals, tangents)
        return tied(g, count_value, witness(primals)), tied(h, count_tangent, witness(primals))

    return grad_fn


def tied(tree: optax.Updates, callback: Callable[[Any], np.ndarray], seen: jax.Array) -> optax.Updates:
    """`tree`, made to depend on `seen`, the 0 returned by a callback, so that the callback must run."""
    zero = jax.pure_callback(callback, jax.ShapeDtypeStruct((), jnp.float32), seen, vmap_method="sequential")
    return jax.tree.map(lambda x: x + zero.astype(x.dtype), tree)
