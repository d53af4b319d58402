r"""Where parameters are combined with data: the equations at which a per-example gradient can be read off.

Example: two layers with one bias, for a batch of 2 examples:

    >>> import jax, jax.numpy as jnp
    >>> from pugd_optax._ghost.batch import Place, follow
    >>> from pugd_optax._ghost.jaxprs import flatten
    >>> x = jnp.array([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]])
    >>> losses_fn = lambda p: jnp.sum((jnp.tanh(x @ p["w"].T + p["b"][None]) @ p["v"]) ** 2, axis=1)
    >>> params = {"b": jnp.ones(4), "v": jnp.ones((4, 5)), "w": jnp.ones((4, 3))}
    >>> jaxpr, data = flatten(losses_fn, params)
    >>> for eqn in jaxpr.eqns:
    ...     print(eqn.primitive.name, eqn.outvars[0].aval.str_short())
    transpose float32[3,4]
    dot_general float32[2,4]
    broadcast_in_dim float32[1,4]
    broadcast_in_dim float32[2,4]
    add float32[2,4]
    tanh float32[2,4]
    dot_general float32[2,5]
    integer_pow float32[2,5]
    reduce_sum float32[2]

`w` is an *operand*, shared by all examples, until it is multiplied by `x` in the first `dot_general`: that is its
*site*. Row i of the gradient of the summed losses with respect to the output of the site, [2, 4], is the $d_i$ of
example i, because no loss reads the row of another example. With row $a_i$ of `x`, the gradient of `w.T` for this
example is $a_i d_i^\top$. `b` is an operand until it is repeated for each example. Its gradient is $d_i$, that of a
matrix with the single row $a_i = 1$. So every site has a `Product`: `rows_of` turns the data into the $a$, `columns_of`
turns the *tap*, the gradient with respect to the output, into the $d$, and `matrix_of` turns the parameter into the
matrix whose gradient is $a d^\top$.

    >>> names = list(params)
    >>> for site in find_sites(jaxpr, names, follow(jaxpr, [{Place(0): None}], batch=2), batch=2):
    ...     matrix = site.product.matrix_of(jnp.ones(site.var.aval.shape))
    ...     print(*[names[leaf] for leaf in site.operand.leaves], site.tapped.aval.str_short(), matrix.shape)
    w float32[2,4] (1, 3, 4)
    b float32[2,4] (1, 1, 4)
    v float32[2,5] (1, 4, 5)

A convolution is one product for each of its windows; a lookup in a table is a product with a one-hot row. In the body
of a `lax.scan` the same holds for every step, with a leading axis for the steps.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Var

from pugd_optax._ghost.axes import Lost, Place, back
from pugd_optax._ghost.batch import Uses, depending_on_data
from pugd_optax._ghost.jaxprs import Scan, scan_of
from pugd_optax._ghost.operands import Operand, follow_operands, parameter, refusal
from pugd_optax._ghost.products import PRODUCTS, Product


class Site(NamedTuple):
    """An equation that combines the operand `var` with `data` (None for a broadcast); its gradient is read at `tapped`.

    `steps` are the lengths of the scans around it.
    """

    operand: Operand
    var: Any
    tapped: Any
    data: Any
    product: Product
    steps: tuple[int, ...]

    @property
    def layout(self) -> tuple[Any, ...]:
        """Plain operands with the same layout have matrices with the same entries of the same parameters."""
        labels, product = self.operand.labels or (), self.product
        rows, columns, groups = (tuple(labels[i] for i in axes) for axes in product[:3])
        groups = (*(label for label in self.operand.loops if label is not None), *groups)
        return rows, columns, groups, product.split, product.windows, self.operand.cuts


def find_sites(jaxpr: Jaxpr, names: Sequence[str], uses: dict[Var, Uses], batch: int) -> list[Site]:
    """The sites of all parameters, which are the first inputs of the flat `jaxpr`, in the order of its equations."""
    walk = _Walk(names, uses, depending_on_data(jaxpr, len(names)), batch, {})
    for leaf, var in enumerate(jaxpr.invars[: len(names)]):
        if walk.batched(var):
            raise refusal(names[leaf], "it has an entry for every example of the batch")
        walk.arrive(var, parameter(leaf, var))
    return walk.along(jaxpr, ())


class _Walk(NamedTuple):
    """A pass over the equations; `operands` are the values so far that depend on parameters but not on the data."""

    names: Sequence[str]
    uses: dict[Var, Uses]
    of_data: set[Var]
    batch: int
    operands: dict[Any, Operand]

    def operand(self, atom: Any) -> Operand | None:
        return self.operands.get(atom) if isinstance(atom, Var) else None

    def batched(self, var: Any) -> bool:
        return any(isinstance(use, Place) for use in self.uses.get(var, ()))

    def matters(self, var: Any) -> bool:
        return var in self.uses and jnp.issubdtype(var.aval.dtype, jnp.inexact)

    def arrive(self, var: Any, operand: Operand) -> None:
        self.check(var, operand)
        self.operands[var] = operand

    def check(self, var: Any, operand: Operand) -> None:
        """Refuse a value whose batch axis is lost later."""
        hidden = [use.primitive for use in self.uses.get(var, ()) if isinstance(use, Lost)]
        if hidden and (hidden[0] != "gather" or var in self.of_data):
            what = f"the batch axis of {var.aval.str_short()}"
            raise refusal(self.name(operand), f"{what} is lost behind the primitive {hidden[0]}")

    def name(self, operand: Operand) -> str:
        return " and ".join(self.names[leaf] for leaf in sorted(operand.leaves)[:3])

    def along(self, jaxpr: Jaxpr, steps: tuple[int, ...]) -> list[Site]:
        sites: list[Site] = []
        sums = _sums(jaxpr)
        for eqn in jaxpr.eqns:
            given = [self.operand(v) for v in eqn.invars]
            if not any(given) or not any(map(self.matters, eqn.outvars)) or eqn.primitive.name == "stop_gradient":
                continue
            if scan := scan_of(eqn):
                sites += self.inside(scan, given, eqn, steps)
            elif any(map(self.batched, eqn.outvars)):
                sites.append(self.site(eqn, given, sums, steps))
            else:
                for var, operand in zip(eqn.outvars, follow_operands(eqn, given), strict=True):
                    self.arrive(var, operand)
        return sites

    def inside(self, scan: Scan, given: list[Operand | None], eqn: JaxprEqn, steps: tuple[int, ...]) -> list[Site]:
        """The sites in the body of a scan; the carry may depend on every parameter that enters the scan."""
        leaves = frozenset[int]().union(*(x.leaves for x in given if x))
        outside, carried = (Operand(leaves, None, loops=(True,) * n) for n in (len(steps), len(steps) + 1))
        consts, init, scanned = scan.split(given)
        within = [x and x.repeated for x in consts] + [x and carried for x in init] + [x and x.scanned for x in scanned]
        self.operands.update({v: x for v, x in zip(scan.body.invars, within, strict=True) if x})
        while True:
            sites = self.along(scan.body, (*steps, eqn.params["length"]))
            pairs = zip(scan.carry_in, scan.carry_out, strict=True)
            late = [v for v, out in pairs if self.operand(out) and not self.operand(v)]
            if not late:
                break
            self.operands.update(dict.fromkeys(late, carried))
        for var, out in zip(eqn.outvars, scan.body.outvars, strict=True):
            if self.operand(out):
                self.arrive(var, outside)
        return sites

    def site(self, eqn: JaxprEqn, given: list[Operand | None], sums: dict[Var, Var], steps: tuple[int, ...]) -> Site:
        (index, operand), *others = ((i, x) for i, x in enumerate(given) if x)
        name, kind, out = self.name(operand), eqn.primitive.name, eqn.outvars[0]
        if others or kind not in PRODUCTS:
            raise refusal(name, f"it goes through the primitive {kind}")
        self.check(out, operand)
        place, *more = self.uses[out]
        if more or not isinstance(place, Place):
            raise refusal(name, f"it meets values, {out.aval.str_short()}, that all examples share")
        data = eqn.invars[1 - index] if len(eqn.invars) == 2 else None
        other = place if data is None else back(eqn, place, self.batch)[1 - index]
        assert isinstance(other, Place)  # the operand has no batch axis, so that the data have it
        product = PRODUCTS[kind](eqn, index, name, place, other, self.batch)
        while out in sums:
            out = sums[out]
        return Site(operand, eqn.invars[index], out, data, product, steps)


def _sums(jaxpr: Jaxpr) -> dict[Var, Var]:
    """The sum that is the only use of a value: both have the same gradient, so one tap is enough."""
    readers: dict[Any, list[JaxprEqn | None]] = {v: [None] for v in jaxpr.outvars if isinstance(v, Var)}
    for eqn in jaxpr.eqns:
        for v in eqn.invars:
            if isinstance(v, Var):
                readers.setdefault(v, []).append(eqn)
    only = {v: some[0] for v, some in readers.items() if len(some) == 1}
    return {v: eqn.outvars[0] for v, eqn in only.items() if eqn and eqn.primitive.name in ("add", "add_any")}
