"""The four ways in which a parameter is combined with data, each as a product of the data with a matrix."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn

from pugd_optax._ghost.axes import Place
from pugd_optax._ghost.jaxprs import shape_of
from pugd_optax._ghost.operands import refusal
from pugd_optax._ghost.windows import Window, sides, unfold


class Product(NamedTuple):
    """Which axes of the operand are the rows, columns and groups of the matrix, and the form of the data.

    `columns_of` maps the tap, the gradient with respect to the output, to [batch, group, position, column]. `rows_of`
    maps the data to [batch, ...], and `unfold` maps that to blocks [batch, group, position, row] that partition the
    rows; it is linear. For a broadcast the data is the tap itself. A lookup has ids: `ids_of` maps them to [batch,
    position]. The columns of a convolution are `split` into groups.
    """

    rows: Sequence[int]
    columns: Sequence[int]
    groups: Sequence[int]
    columns_of: Callable[[jax.Array], jax.Array]
    rows_of: Callable[[jax.Array], jax.Array]
    unfold: Callable[[jax.Array], list[jax.Array]] = lambda rows: [rows]
    ids_of: Callable[[jax.Array], jax.Array] | None = None
    reading: Any = None
    split: int = 1
    windows: tuple[Window, ...] = ()

    def matrix_of(self, operand: jax.Array) -> jax.Array:
        """The operand as [group, row, column]."""
        axes = (self.groups, self.rows, self.columns)
        groups, rows, columns = (math.prod(operand.shape[i] for i in some) for some in axes)
        matrix = operand.transpose(*itertools.chain(*axes)).reshape(groups, rows, self.split, columns // self.split)
        return jnp.moveaxis(matrix, 2, 1).reshape(groups * self.split, rows, -1)


def _broadcast(eqn: JaxprEqn, index: int, name: str, place: Place, other: Place, batch: int) -> Product:
    """A bias, a scale or a token: one row, multiplied by the number one."""
    sizes, axes = shape_of(eqn.invars[index]), eqn.params["broadcast_dimensions"]
    kept = [i for i, size in enumerate(sizes) if size > 1]
    repeated = [i for i in range(len(shape_of(eqn.outvars[0]))) if i not in [axes[i] for i in kept]]

    def columns_of(tap: jax.Array) -> jax.Array:
        d = jnp.sum(arrange(tap, place, batch, repeated, *([axes[i]] for i in kept)), axis=1)
        return d.reshape(batch, 1, 1, -1)

    rows_of = lambda tap: jnp.ones((batch, 1, 1, 1), tap.dtype)
    return Product([], kept, [i for i in range(len(sizes)) if i not in kept], columns_of, rows_of, reading=())


def _dot_general(eqn: JaxprEqn, index: int, name: str, place: Place, other: Place, batch: int) -> Product:
    (contracted, batched), beside = eqn.params["dimension_numbers"], 1 - index
    bound = [(*contracted[side], *batched[side]) for side in (0, 1)]
    free = [[i for i in range(len(shape_of(eqn.invars[side]))) if i not in bound[side]] for side in (0, 1)]
    ends = list(itertools.accumulate([len(batched[0]), len(free[0]), len(free[1])], initial=0))
    groups, *out = [list(range(*pair)) for pair in itertools.pairwise(ends)]
    reading = (other, batched[beside], tuple(free[beside]), contracted[beside])
    return Product(
        contracted[index],
        free[index],
        batched[index],
        columns_of=lambda tap: arrange(tap, place, batch, groups, out[beside], out[index]),
        rows_of=lambda a: arrange(a, other, batch, *reading[1:]),
        reading=reading,
    )


def _gather(eqn: JaxprEqn, index: int, name: str, place: Place, other: Place, batch: int) -> Product:
    dims, (table, indices) = eqn.params["dimension_numbers"], (shape_of(v) for v in eqn.invars)
    row = next(iter(dims.start_index_map), 0)
    columns = [i for i in range(len(table)) if i != row]
    full = all(eqn.params["slice_sizes"][i] == table[i] for i in columns)
    if index or (row,) != dims.start_index_map or (row,) != dims.collapsed_slice_dims or not full:
        raise refusal(name, "it goes through a gather that is not a lookup of rows")
    looked_up = [i for i in range(len(shape_of(eqn.outvars[0]))) if i not in dims.offset_dims]

    def ids_of(ids: jax.Array) -> jax.Array:
        ids = arrange(ids, other, batch, range(len(indices)))
        # Neither 256 nor -1 fits into the uint8 of byte-level tokens.
        ids = jnp.minimum(ids, min(table[row], jnp.iinfo(ids.dtype).max)).astype(jnp.int32)
        clipped = eqn.params["mode"] == jax.lax.GatherScatterMode.CLIP
        return jnp.clip(ids, 0, table[row] - 1) if clipped else jnp.where(ids < table[row], ids, -1)

    return Product(
        [row],
        columns,
        [],
        columns_of=lambda tap: arrange(tap, place, batch, [], looked_up, dims.offset_dims),
        rows_of=lambda ids: jax.nn.one_hot(ids_of(ids), table[row])[:, None],
        ids_of=ids_of,
    )


def _conv(eqn: JaxprEqn, index: int, name: str, place: Place, other: Place, batch: int) -> Product:
    dims, groups = eqn.params["dimension_numbers"], eqn.params["feature_group_count"]
    (n, c, *spatial), (o, i, *kernel), (out_n, out_c, *out_spatial) = dims
    sizes, how = [shape_of(v) for v in (*eqn.invars, *eqn.outvars)], [eqn.params[key] for key in _CONV_PARAMS]
    ends = zip(kernel, out_spatial, *how, strict=True)
    windows = tuple(Window(sizes[1][k], sizes[2][out_k], *rest) for k, out_k, *rest in ends)
    channels = (sizes[1][i], sizes[1][o])
    along_image, along_tap = sides(windows, [sizes[0][k] for k in spatial], channels, groups)
    moved = sum(w.kernel > 1 for w in along_tap)

    def columns_of(tap: jax.Array) -> jax.Array:
        d = arrange(tap, place, batch, [out_n], *([k] for k in out_spatial), [out_c])
        return jnp.concatenate(unfold(d, along_tap, groups), axis=-1)

    return Product(
        [*kernel[moved:], i],
        [*kernel[:moved], o],
        [],
        columns_of,
        rows_of=lambda image: arrange(image, other, batch, [n], *([k] for k in spatial), [c]),
        unfold=lambda image: unfold(image, along_image, groups),
        reading=(other, tuple(dims[0]), along_image, groups),
        split=groups,
        windows=windows,
    )


_CONV_PARAMS = ("window_strides", "padding", "lhs_dilation", "rhs_dilation")
PRODUCTS = {
    "broadcast_in_dim": _broadcast,
    "dot_general": _dot_general,
    "gather": _gather,
    "conv_general_dilated": _conv,
}
"""By primitive: `(eqn, index of the operand, its name, place of the batch in the output, in the data, batch)`."""


def arrange(x: jax.Array, place: Place, batch: int, *merged: Sequence[int]) -> jax.Array:
    """`x` as [batch, merged axes...]; entries that share an axis with the batch stay in it."""
    outer = x.shape[place.axis] // (batch * place.inner)
    apart = x.reshape(*x.shape[: place.axis], outer, batch, place.inner, *x.shape[place.axis + 1 :])
    index = lambda i: [i, i + 2] if i == place.axis else [i + 2 * (i > place.axis)]
    if x.shape[place.axis] == batch:
        apart, index = x, lambda i: [i] if i != place.axis else []
    groups = [[j for i in axes for j in index(i)] for axes in merged]
    sizes = [math.prod(apart.shape[j] for j in group) for group in groups]
    first = place.axis + (apart is not x)
    return apart.transpose(first, *itertools.chain(*groups)).reshape(batch, *sizes)
