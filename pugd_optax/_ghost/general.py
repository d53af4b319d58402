"""Squared gradient norms for arbitrary functions of the parameters: exact, a few examples at a time.

The value combined with the data may be a function of the parameters: a normalised kernel, the exponential of a scale,
one table read in several ways. The gradient of one example with respect to that value is known, $a d^\\top$, and is
pulled back to the parameters by differentiating the function.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.interpreters.partial_eval import dce_jaxpr

from pugd_optax._ghost.met import Met, in_each_step
from pugd_optax._ghost.squares import outer
from pugd_optax._norms import vdot, widen


def general_norms(given: Sequence[Met], leaves: list[jax.Array], values_of: Callable[..., Any]) -> jax.Array:
    """Squared norms [batch] for sites that have parameters in common; `values_of(leaves, variables)`.

    As many gradients are computed at once as fit into the memory that the taps need.
    """
    met = [dataclasses.replace(m, site=m.site._replace(operand=m.site.operand.general)) for m in given]
    read = sorted(frozenset[int]().union(*(m.site.operand.leaves for m in met)))
    matrices, pull = jax.vjp(_matrices(met, read, leaves, values_of), *(leaves[k] for k in read))
    parts = [(m.rows, m.columns) for m in met]

    def norm_of(example: list[tuple[jax.Array, jax.Array]]) -> jax.Array:
        blocks = [m.unfold(a[None]) for m, (a, _) in zip(met, example, strict=True)]
        products = [[outer(x[0], d) for x in some] for some, (_, d) in zip(blocks, example, strict=True)]
        gradient = pull([jnp.concatenate(some, axis=1) for some in products])
        return vdot(gradient, gradient)

    batch, size = len(parts[0][1]), max(sum(jnp.size(leaves[k]) for k in read), sum(x.size for x in matrices), 1)
    fits = max(sum(m.tap.size for m in met) // size, 1)
    at_once = max(n for n in range(1, batch + 1) if batch % n == 0 and n <= fits)
    if at_once == batch:
        return jax.vmap(norm_of)(parts)
    return jax.lax.map(jax.checkpoint(norm_of), parts, batch_size=at_once)


def _matrices(met: Sequence[Met], read: list[int], leaves: list[jax.Array], values_of: Callable[..., Any]):
    """A function from the parameters to the matrix at each site, [group, row, column]."""

    def matrices(*some: jax.Array) -> list[jax.Array]:
        full = [dict(zip(read, some, strict=True)).get(k, leaf) for k, leaf in enumerate(leaves)]
        values = values_of(full, [m.site.var for m in met])
        arranged = [in_each_step(m.site.product.matrix_of, m.site.steps)(x) for m, x in zip(met, values, strict=True)]
        return [widen(x.reshape(-1, *x.shape[-2:])) for x in arranged]

    closed = jax.make_jaxpr(matrices)(*(leaves[k] for k in read))
    jaxpr = dce_jaxpr(closed.jaxpr, [True] * len(met), instantiate=True)[0]
    return jaxpr_as_fun(ClosedJaxpr(jaxpr, closed.consts))
