"""The data combined with the parameters at their sites, as the factors of the per-example gradients."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from pugd_optax._ghost.sites import Site
from pugd_optax._norms import widen


@dataclasses.dataclass(frozen=True, eq=False)
class Met:
    """A site with its data (none for a broadcast) and the gradient of the summed losses with respect to its output."""

    site: Site
    data: Any
    tap: jax.Array

    @property
    def reading(self) -> Any:
        """Sites of plain operands with the same value have the same rows; None if the rows are not known."""
        site = self.site
        if site.operand.labels is None or site.product.reading is None:
            return None
        repeated = tuple(label is None for label in site.operand.loops)
        return site.data, site.product.reading, site.steps, repeated, self.shape[:3]

    @property
    def is_vector(self) -> bool:
        """Whether the gradient of an example is a single outer product, $a d^\\top$."""
        return self.shape[1:3] == (1, 1)

    @property
    def is_whole(self) -> bool:
        """Whether d is the whole tap."""
        return math.prod(self.shape) == self.tap.size and self.site.operand.scale == 1

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape of the columns, even if the site does not use them."""
        return jax.eval_shape(self._columns).shape

    @functools.cached_property
    def rows(self) -> jax.Array:
        """[batch, *steps, ...]."""
        rows = in_each_step(self.site.product.rows_of, self.site.steps)(self.data)
        return widen(jnp.moveaxis(rows, len(self.site.steps), 0))

    @property
    def ids(self) -> jax.Array | None:
        """[batch, position] of a lookup in one table."""
        if self.site.product.ids_of is None or any(x is not None for x in self.site.operand.loops):
            return None
        ids = in_each_step(self.site.product.ids_of, self.site.steps)(self.data)
        return _merged(ids[..., None, :, None], self.site.operand.loops)[:, 0, :, 0]

    @functools.cached_property
    def columns(self) -> jax.Array:
        """[batch, group, position, column]."""
        return self._columns()

    def _columns(self) -> jax.Array:
        operand = self.site.operand
        columns = in_each_step(self.site.product.columns_of, self.site.steps)(widen(self.tap))
        return _merged(columns if operand.scale == 1 else operand.scale * columns, operand.loops)

    def unfold(self, rows: jax.Array) -> list[jax.Array]:
        """Blocks [batch, group, position, row] of the rows."""
        blocks = in_each_step(self.site.product.unfold, self.site.steps, axis=1)(rows)
        return [_merged(x, self.site.operand.loops) for x in blocks]


def in_each_step(function: Callable[..., Any], steps: Sequence[int], axis: int = 0) -> Callable[..., Any]:
    """The function mapped over the steps of the scans, the axes from `axis` on; these come first in its result."""
    for _ in steps:
        function = jax.vmap(function, in_axes=axis)
    return function


def _merged(x: jax.Array, loops: Sequence[Any]) -> jax.Array:
    """[*steps, batch, group, position, ...] -> [batch, group, position, ...].

    Steps that read different entries of a parameter become groups, before those of the product; steps that read the
    same ones become positions.
    """
    if not loops:
        return x
    n = len(loops)
    grouped, repeated = ([i for i in range(n) if (loops[i] is None) == same] for same in (False, True))
    order = (n, *grouped, n + 1, *repeated, n + 2, n + 3)
    sizes = [math.prod(x.shape[i] for i in axes) for axes in ((*grouped, n + 1), (*repeated, n + 2))]
    return x.transpose(order).reshape(x.shape[n], *sizes, x.shape[-1])
