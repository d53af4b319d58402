"""A parameter on its way to the data: the meaning of each axis after reshapes, scalings, slices, concatenations."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from jax.extend.core import JaxprEqn, Literal

from pugd_optax._ghost.jaxprs import shape_of


class Cut(NamedTuple):
    """The entries from `start` to `stop` along the axis `label` of a form that holds the parameter `leaf`."""

    leaf: int
    label: Any
    start: int
    stop: int


class Operand(NamedTuple):
    """A value computed from the parameters `leaves` and shared by all examples.

    It is *plain* if it contains entries of these parameters, each at most once, in any order, all multiplied by
    `scale`. Then the norm of a gradient with respect to it equals that with respect to the parameters, `labels[i]`
    gives the meaning of axis i (None for an axis of size 1), and `cuts` lists what was sliced. Otherwise `labels` is
    None. `loops` has one entry for each enclosing scan: the label of the axis of its steps, or None if every step reads
    the same entries.
    """

    leaves: frozenset[int]
    labels: tuple[Any, ...] | None
    scale: float = 1.0
    cuts: frozenset[Cut] = frozenset()
    loops: tuple[Any, ...] = ()

    @property
    def general(self) -> "Operand":
        """The same value, treated as a general function of its parameters that may differ in each step of a scan."""
        return Operand(self.leaves, None, loops=(True,) * len(self.loops))

    @property
    def repeated(self) -> "Operand":
        """The value inside a scan of which it is a constant."""
        return self._replace(loops=(*self.loops, True if self.labels is None else None))

    @property
    def scanned(self) -> "Operand":
        """The part that one step of a scan over the value receives."""
        if self.labels is None:
            return self._replace(loops=(*self.loops, True))
        return self._replace(labels=self.labels[1:], loops=(*self.loops, self.labels[0]))

    def overlaps(self, other: "Operand") -> bool:
        """Whether the two may contain the same entry of a parameter."""
        return any(not _disjoint(leaf, self.cuts, other.cuts) for leaf in self.leaves & other.leaves)


def _disjoint(leaf: int, some: frozenset[Cut], others: frozenset[Cut]) -> bool:
    pairs = [(a, b) for a in some for b in others if a[:2] == b[:2] == (leaf, a.label)]
    return any(a.stop <= b.start or b.stop <= a.start for a, b in pairs)


def parameter(leaf: int, var: Any) -> Operand:
    """A parameter itself, unchanged."""
    return Operand(frozenset([leaf]), tuple(i if size > 1 else None for i, size in enumerate(shape_of(var))))


def follow_operands(eqn: JaxprEqn, given: Sequence[Operand | None]) -> list[Operand]:
    """The outputs of an equation whose inputs are shared by all examples; None stands for an input that is data."""
    some = [x for x in given if x is not None]
    plain = [x for x in some if x.labels is not None]
    after = None
    if len(plain) == len(some) == 1:
        after = _followed(eqn, given.index(plain[0]), plain[0])
    elif len(plain) == len(given) and eqn.primitive.name == "concatenate":
        after = _concatenated(eqn, plain)
    leaves = frozenset[int]().union(*(x.leaves for x in some))
    return after or [Operand(leaves, None, loops=(True,) * len(some[0].loops))] * len(eqn.outvars)


def _followed(eqn: JaxprEqn, index: int, operand: Operand) -> list[Operand] | None:
    """The plain operands that result from a plain one; None if the result is a general function of the parameter."""
    name, labels, scale = eqn.primitive.name, operand.labels or (), operand.scale
    before, after = shape_of(eqn.invars[index]), shape_of(eqn.outvars[0])
    if name in ("convert_element_type", "copy", "copy_p", "name", "sharding_constraint"):
        return [operand]
    if name == "transpose":
        return [operand._replace(labels=tuple(labels[i] for i in eqn.params["permutation"]))]
    if name in ("reshape", "squeeze", "broadcast_in_dim") and math.prod(before) == math.prod(after):
        return [operand._replace(labels=_relabelled(labels, before, after))]
    if name == "slice":
        corners = eqn.params["start_indices"], eqn.params["limit_indices"], eqn.params["strides"] or (1,) * len(before)
        return [_cut(operand, before, [range(*part) for part in zip(*corners, strict=True)])]
    if name == "split":
        axis, whole = eqn.params["axis"], [range(size) for size in before]
        ends = itertools.pairwise(itertools.accumulate(map(int, eqn.params["sizes"]), initial=0))
        return [_cut(operand, before, [*whole[:axis], range(*part), *whole[axis + 1 :]]) for part in ends]
    if name in ("add", "sub", "neg") and before == after:
        return [operand._replace(scale=-scale if name == "neg" or (name, index) == ("sub", 1) else scale)]
    factor = eqn.invars[1 - index] if name == "mul" or (name, index) == ("div", 0) else None
    if isinstance(factor, Literal):
        return [operand._replace(scale=scale * float(factor.val) if name == "mul" else scale / float(factor.val))]
    return None


def _relabelled(labels: tuple[Any, ...], before: tuple[int, ...], after: tuple[int, ...]) -> tuple[Any, ...]:
    """Axes of size 1 may be added or removed; if other axes are merged or split, all labels name the reshape."""
    known = [(label, size) for label, size in zip(labels, before, strict=True) if size > 1]
    sizes = [size for size in after if size > 1]
    kept = sizes == [size for _, size in known]
    fresh = iter([label for label, _ in known] if kept else [(*known, *sizes, i) for i in range(len(sizes))])
    return tuple(next(fresh) if size > 1 else None for size in after)


def _cut(operand: Operand, before: tuple[int, ...], parts: Sequence[range]) -> Operand:
    """The entries at `parts[i]` along axis i."""
    labels: list[Any] = list(operand.labels or ())
    cuts = set(operand.cuts)
    for i, (part, size) in enumerate(zip(parts, before, strict=True)):
        if part != range(size):
            cuts.update(Cut(leaf, labels[i], part.start, part.stop) for leaf in operand.leaves)
            labels[i] = (labels[i], part) if len(part) > 1 else None
    return operand._replace(labels=tuple(labels), cuts=frozenset(cuts))


def _concatenated(eqn: JaxprEqn, parts: Sequence[Operand]) -> list[Operand] | None:
    """A concatenation of different parameters; None if their scales differ or one occurs twice."""
    leaves = [leaf for x in parts for leaf in x.leaves]
    if len(set(leaves)) < len(leaves) or len({(x.scale, x.loops) for x in parts}) > 1:
        return None
    origin, shape = tuple((tuple(sorted(x.leaves)), x.labels) for x in parts), shape_of(eqn.outvars[0])
    labels = tuple((origin, eqn.params["dimension"], i) if size > 1 else None for i, size in enumerate(shape))
    return [
        parts[0]._replace(leaves=frozenset(leaves), labels=labels, cuts=frozenset().union(*(x.cuts for x in parts)))
    ]


def refusal(name: str, why: str) -> ValueError:
    """The error for anything that ghost norms do not support."""
    return ValueError(
        f"ghost norms cannot follow the parameter {name}: {why}. Fix: penalty=pugd_optax.per_example.signs(key), which "
        "estimates the same penalty for any architecture."
    )
