"""A parameter on its way to the data: what each axis of its reshaped, scaled or sliced form is."""

import math
from typing import Any, NamedTuple

from jax.extend.core import JaxprEqn, Literal
from jax.lax import GatherScatterMode

from pugd_optax._ghost.jaxprs import shape_of


class Factor(NamedTuple):
    """A value by which a parameter was multiplied (`power` 1) or divided (-1), with the labels it had there."""

    atom: Any
    labels: tuple[Any, ...]
    power: int


class Operand(NamedTuple):
    """A parameter on its way to a site: `labels[i]` says what its axis i is, None for one it is constant along."""

    leaf: int
    name: str
    labels: tuple[Any, ...]
    scale: float = 1.0
    factors: tuple[Factor, ...] = ()


def follow_operand(eqn: JaxprEqn, index: int, operand: Operand) -> Operand | None:
    """What the equation makes of the parameter, None where that is more than another form of it."""
    name, labels, scale = eqn.primitive.name, operand.labels, operand.scale
    before, after = shape_of(eqn.invars[index]), shape_of(eqn.outvars[0])
    if name in ("convert_element_type", "copy", "copy_p"):
        return operand
    if name == "transpose":
        return operand._replace(labels=tuple(labels[i] for i in eqn.params["permutation"]))
    if name == "broadcast_in_dim":
        source = dict(zip(eqn.params["broadcast_dimensions"], labels, strict=True))
        return operand._replace(labels=tuple(source.get(i) for i in range(len(after))))
    if name == "tile" and all(label is None or m == n for label, m, n in zip(labels, after, before, strict=True)):
        return operand
    if name in ("reshape", "squeeze"):
        return _relabel(operand, before, after)
    if name == "slice":
        cut = (eqn.params["start_indices"], eqn.params["limit_indices"], eqn.params["strides"])
        return operand._replace(labels=tuple(None if label is None else (label, cut) for label in labels))
    if name == "gather" and index == 0:
        return _window(eqn, operand)
    if name in ("add", "sub", "neg") and before == after:
        return operand._replace(scale=-scale if name == "neg" or (name, index) == ("sub", 1) else scale)
    factor = eqn.invars[1 - index] if name in ("mul", "div") else None
    if isinstance(factor, Literal) and (name, index) != ("div", 1):
        factor = float(factor.val)
        return operand._replace(scale=scale * factor if name == "mul" else scale / factor)
    if factor is not None and (name, index) != ("div", 1) and shape_of(factor) == before == after:
        factors = (*operand.factors, Factor(factor, labels, 1 if name == "mul" else -1))
        return operand._replace(factors=factors)
    return None


def _window(eqn: JaxprEqn, operand: Operand) -> Operand | None:
    """One block of a table, as older versions of JAX write some slices; None for a lookup of rows."""
    dims, indices = eqn.params["dimension_numbers"], eqn.invars[1]
    inside = (GatherScatterMode.PROMISE_IN_BOUNDS, GatherScatterMode.CLIP)
    if dims.collapsed_slice_dims or math.prod(shape_of(indices)[:-1]) != 1 or eqn.params["mode"] not in inside:
        return None
    block, labels = (indices, eqn.params["slice_sizes"]), iter(operand.labels)
    placed = [next(labels) if i in dims.offset_dims else None for i in range(len(shape_of(eqn.outvars[0])))]
    return operand._replace(labels=tuple(None if label is None else (label, block) for label in placed))


def _relabel(operand: Operand, before: tuple[int, ...], after: tuple[int, ...]) -> Operand:
    """Axes of size 1 come and go; where others are merged or split, all get labels that name the reshape."""
    known = [(label, size) for label, size in zip(operand.labels, before, strict=True) if size > 1]
    sizes = [size for size in after if size > 1]
    if sizes == [size for _, size in known]:
        labels = iter([label for label, _ in known])
    elif any(label is None for label, _ in known):
        raise refusal(operand.name, "it is broadcast and then reshaped")
    else:
        labels = iter([(tuple(known), tuple(sizes), i) for i in range(len(sizes))])
    return operand._replace(labels=tuple(next(labels) if size > 1 else None for size in after))


def refusal(name: str, why: str) -> ValueError:
    """The one error for what ghost norms do not cover."""
    return ValueError(
        f"ghost norms cannot follow the parameter {name}: {why}. Fix: penalty=pugd_optax.per_example.signs(key), which "
        "estimates the same penalty for any architecture."
    )
