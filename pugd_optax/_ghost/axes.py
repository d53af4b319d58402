"""How one equation changes the batch axis, for every primitive that models are made of."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jax.extend.core import JaxprEqn

from pugd_optax._ghost.jaxprs import ELEMENTWISE, shape_of


class Place(NamedTuple):
    """The batch is the middle digit of axis `axis`, whose size is outer * batch * `inner`."""

    axis: int
    inner: int = 1


class Shared(NamedTuple):
    """The loss of every example may depend on all of the value, through `primitive`."""

    primitive: str


class Lost(NamedTuple):
    """It is unknown which part of the value is read after `primitive`."""

    primitive: str


Use = Place | Shared | Lost


def back(eqn: JaxprEqn, use: Use, batch: int) -> Sequence[Use | None]:
    """Translates a use of an equation's output into a use of each of its operands."""
    name = eqn.primitive.name
    if not isinstance(use, Place):
        return [use] * len(eqn.invars)
    if name in ELEMENTWISE:
        shape = shape_of(eqn.outvars[0])
        fits = [len(shape_of(v)) == len(shape) and shape_of(v)[use.axis] == shape[use.axis] for v in eqn.invars]
        return [use if fit else Shared(name) for fit in fits]
    if name == "reshape":
        return [_reshaped(eqn, use, batch)] + [None] * (len(eqn.invars) - 1)
    if name not in _RULES:
        return [Lost(name)] * len(eqn.invars)
    return [
        found._replace(inner=use.inner) if isinstance(found, Place) else found
        for found in _RULES[name](eqn, use.axis, name)
    ]


def _reshaped(eqn: JaxprEqn, use: Place, batch: int) -> Use:
    """A reshape keeps the stride of the batch in row-major order; the batch must lie within one axis again."""
    shape, after = shape_of(eqn.invars[0]), shape_of(eqn.outvars[0])
    order = eqn.params["dimensions"] or range(len(shape))
    before = [shape[i] for i in order]
    stride = use.inner * math.prod(after[use.axis + 1 :])
    for axis in range(len(before)):
        tail = math.prod(before[axis + 1 :])
        if stride % tail == 0 and (tail * before[axis]) % (stride * batch) == 0:
            return Place(order[axis], stride // tail)
    return Lost("reshape")


def _transpose(eqn: JaxprEqn, axis: int, name: str) -> list[Use]:
    return [Place(eqn.params["permutation"][axis])]


def _broadcast(eqn: JaxprEqn, axis: int, name: str) -> Sequence[Use | None]:
    before, axes = shape_of(eqn.invars[0]), list(eqn.params["broadcast_dimensions"])
    kept = axis in axes and before[axes.index(axis)] == shape_of(eqn.outvars[0])[axis]
    return [Place(axes.index(axis)) if kept else Shared(name)] + [None] * (len(eqn.invars) - 1)


def _drop(key: str) -> Callable[[JaxprEqn, int, str], list[Use]]:
    """The axes in the parameter `key` are removed."""

    def rule(eqn: JaxprEqn, axis: int, name: str) -> list[Use]:
        kept = [i for i in range(len(shape_of(eqn.invars[0]))) if i not in eqn.params[key]]
        return [Place(kept[axis])] * len(eqn.invars)

    return rule


def _along(key: str) -> Callable[[JaxprEqn, int, str], list[Use]]:
    """Entries are mixed or moved only along the axes in the parameter `key`."""

    def rule(eqn: JaxprEqn, axis: int, name: str) -> list[Use]:
        given = eqn.params[key]
        return [Shared(name) if axis in (given if isinstance(given, tuple) else (given,)) else Place(axis)] * len(
            eqn.invars
        )

    return rule


def _window(eqn: JaxprEqn, axis: int, name: str) -> list[Use]:
    """Windows of one entry keep the batch, unless they skip or pad it."""
    one = eqn.params["window_dimensions"][axis] == 1 and eqn.params["padding"][axis] == (0, 0)
    same = shape_of(eqn.invars[0])[axis] == shape_of(eqn.outvars[0])[axis]
    return [Place(axis) if one and same else Shared(name)] * len(eqn.invars)


def _pad(eqn: JaxprEqn, axis: int, name: str) -> list[Use]:
    """Padding moves the examples along the batch axis even where it removes as many entries as it adds."""
    return [Lost(name) if any(eqn.params["padding_config"][axis]) else Place(axis), Shared(name)]


def _whole(eqn: JaxprEqn, axis: int, name: str) -> list[Use]:
    """Operands that have the full axis keep it; the others, start indices and fill values, are shared."""
    size = shape_of(eqn.outvars[0])[axis]
    sizes = [shape_of(v)[axis] if len(shape_of(v)) > axis else None for v in eqn.invars]
    return [Place(axis) if s == size else Lost(name) if i == 0 else Shared(name) for i, s in enumerate(sizes)]


def _dot_general(eqn: JaxprEqn, axis: int, name: str) -> list[Use]:
    (contracted, batched), shapes = eqn.params["dimension_numbers"], [shape_of(v) for v in eqn.invars]
    if axis < len(batched[0]):
        return [Place(batched[0][axis]), Place(batched[1][axis])]
    free = [
        (side, i)
        for side in (0, 1)
        for i in range(len(shapes[side]))
        if i not in contracted[side] and i not in batched[side]
    ]
    side, place = free[axis - len(batched[0])]
    return [Place(place) if i == side else Shared(name) for i in (0, 1)]


def _conv(eqn: JaxprEqn, axis: int, name: str) -> list[Use]:
    dims = eqn.params["dimension_numbers"]
    if axis != dims.out_spec[0] or eqn.params["batch_group_count"] != 1:
        return [Lost(name)] * 2
    return [Place(dims.lhs_spec[0]), Shared(name)]


def _gather(eqn: JaxprEqn, axis: int, name: str) -> list[Use]:
    dims, table = eqn.params["dimension_numbers"], shape_of(eqn.invars[0])
    if axis in dims.offset_dims:
        gone = (*dims.collapsed_slice_dims, *dims.operand_batching_dims)
        kept = [i for i in range(len(table)) if i not in gone][dims.offset_dims.index(axis)]
        whole = eqn.params["slice_sizes"][kept] == table[kept]
        return [Place(kept), Shared(name)] if whole else [Lost(name)] * 2
    looked_up = [i for i in range(len(shape_of(eqn.outvars[0]))) if i not in dims.offset_dims].index(axis)
    if looked_up in dims.start_indices_batching_dims:
        which = dims.start_indices_batching_dims.index(looked_up)
        return [Place(dims.operand_batching_dims[which]), Place(looked_up)]
    return [Lost(name), Place(looked_up)]


_RULES: dict[str, Callable[[JaxprEqn, int, str], Any]] = {
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "squeeze": _drop("dimensions"),
    "dot_general": _dot_general,
    "conv_general_dilated": _conv,
    "gather": _gather,
    "pad": _pad,
    "concatenate": _along("dimension"),
    "sort": _along("dimension"),
    "rev": _along("dimensions"),
    "split": _along("axis"),
} | {
    **{f"reduce_{op}": _drop("axes") for op in ("sum", "max", "min", "prod", "and", "or", "xor")},
    **dict.fromkeys(("argmax", "argmin"), _drop("axes")),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"), _along("axis")),
    **{f"reduce_window{op}": _window for op in ("", "_sum", "_max", "_min")},
    **dict.fromkeys(("slice", "dynamic_slice", "dynamic_update_slice"), _whole),
}
