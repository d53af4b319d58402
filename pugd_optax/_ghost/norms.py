"""Losses and squared gradient norms of all examples, from one forward and one backward pass."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.extend.core import ClosedJaxpr

from pugd_optax._ghost.axes import Place
from pugd_optax._ghost.batch import follow, refuse_coupling
from pugd_optax._ghost.general import general_norms
from pugd_optax._ghost.jaxprs import evaluate, inline, shape_of
from pugd_optax._ghost.met import Met
from pugd_optax._ghost.sites import Site, find_sites
from pugd_optax._ghost.squares import lookup_norms, product_norms
from pugd_optax._parts import varying_like


def tapped_norms(losses_fn: ClosedJaxpr, params: optax.Params) -> tuple[jax.Array, jax.Array]:
    """Losses and squared gradient norms of the examples, both [batch]."""
    jaxpr, data = inline(losses_fn, params)
    leaves = jax.tree.leaves(params)
    names = [f"params{jax.tree_util.keystr(path)}" for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    batch = shape_of(jaxpr.outvars[0])[0]
    uses = follow(jaxpr, [{Place(0): None}], batch)
    refuse_coupling(jaxpr, uses, len(names))
    sites = find_sites(jaxpr, names, uses, batch)
    losses, met = _meet(lambda *args: evaluate(jaxpr, [*leaves, *data], *args), sites)
    values_of = lambda leaves, wanted: evaluate(jaxpr, [*leaves, *data], {}, wanted)[1]
    norms, alone = [], []
    for group in _connected(met):
        if len(group) == 1 and group[0].reading is not None:
            alone.append(group[0])
        else:
            joint = _joint_norms(group)
            norms.append(general_norms(group, leaves, values_of) if joint is None else joint)
    norms += _of_vectors([m for m in alone if m.is_vector]) + _side_by_side([m for m in alone if not m.is_vector])
    return losses, _sum(norms) if norms else jnp.zeros(batch, jnp.float32)


def _meet(run: Callable[..., Any], sites: list[Site]) -> tuple[jax.Array, list[Met]]:
    """The losses, and each site with its data and the gradient of the summed losses with respect to its output."""
    tapped = list({site.tapped: site for site in sites}.values())

    def tap(zeros: list[jax.Array]) -> tuple[jax.Array, list[Any]]:
        added = {site.tapped: zero for site, zero in zip(tapped, zeros, strict=True)}
        (losses,), found = run(added, [site.data for site in sites if site.data is not None])
        return losses, found

    losses, pull, found = jax.vjp(tap, [_zero(site) for site in tapped], has_aux=True)
    gradients = dict(zip((site.tapped for site in tapped), pull(jnp.ones_like(losses))[0], strict=True))
    data = iter(found)
    return losses, [Met(x, gradients[x.tapped] if x.data is None else next(data), gradients[x.tapped]) for x in sites]


def _zero(site: Site) -> jax.Array:
    """The zeros added there; they vary over devices if the value does, otherwise gradients would be summed."""
    zero = jnp.zeros((*site.steps, *shape_of(site.tapped)), site.tapped.aval.dtype)
    return varying_like(zero, site.tapped.aval)


def _connected(met: list[Met]) -> list[list[Met]]:
    """The sites in groups, such that sites of different groups have no parameter entry in common."""
    groups: list[list[Met]] = []
    for m in met:
        near = [group for group in groups if any(m.site.operand.overlaps(x.site.operand) for x in group)]
        groups = [group for group in groups if group not in near] + [[*(x for group in near for x in group), m]]
    return groups


def _of_vectors(alone: list[Met]) -> list[jax.Array]:
    r"""Squared norms $\|a_i\|^2 \|d_i\|^2$ of sites with one row and one column.

    Sites with the same tap, such as a kernel and its bias (whose a is the number one), share its d. Other sites, such
    as the biases of a sequence model, are kept separate. Joined, they would be slices of one array that start at
    different entries for each layer, and XLA would compile the operations that read them once per layer.
    """
    of_one_tap: dict[Any, list[Met]] = {}
    for m in alone:
        of_one_tap.setdefault(m.site.tapped if m.is_whole else m, []).append(m)
    return [_vector_norms(some) for some in of_one_tap.values()]


def _vector_norms(met: list[Met]) -> jax.Array:
    square, rows = _square(met[0].columns), [_row_norms(m) for m in met]
    return square if len(met) == 1 and rows[0] is None else square * _sum([1.0 if x is None else x for x in rows])


def _row_norms(m: Met) -> jax.Array | None:
    return None if m.site.data is None else _sum([_square(x) for x in m.unfold(m.rows)])


def _square(x: jax.Array) -> jax.Array:
    return jnp.sum(x**2, axis=tuple(range(1, x.ndim)))


def _sum(parts: Sequence[Any]) -> Any:
    return functools.reduce(operator.add, parts)


def _side_by_side(alone: list[Met]) -> list[jax.Array]:
    """Squared norms of sites that have nothing in common; those that multiply the same rows form one matrix.

    Examples are the three projections of attention and the gates of a recurrent cell.
    """
    same: dict[Any, list[Met]] = {}
    for m in alone:
        same.setdefault(m.reading, []).append(m)
    columns = [_joined([m.columns for m in some], axis=3) for some in same.values()]
    return [product_norms(some[0].unfold, some[0].rows, d) for some, d in zip(same.values(), columns, strict=True)]


def _joint_norms(met: list[Met]) -> jax.Array | None:
    """Squared norms of the per-example gradients of one matrix, including cross terms between its sites.

    The positions of all sites are concatenated; rows and columns may be exchanged. None where this is not possible.
    """
    if any(m.site.operand.labels is None for m in met):
        return None
    if len(met) == 1 and (ids := met[0].ids) is not None:
        return lookup_norms(ids, met[0].columns[:, 0])
    layout, parts = met[0].site.layout, []
    for m in met:
        blocks, columns = m.unfold(m.rows), m.columns
        if m.site.layout == layout:
            parts.append((blocks, columns))
        elif m.site.layout == (layout[1], layout[0], *layout[2:]) and len(blocks) == 1:
            parts.append(([columns], blocks[0]))
        else:
            return None
    blocks = [_joined(block, axis=2) for block in zip(*(blocks for blocks, _ in parts), strict=True)]
    return product_norms(lambda a: a, blocks, _joined([columns for _, columns in parts], axis=2))


def _joined(parts: Sequence[jax.Array], axis: int) -> jax.Array:
    return jnp.concatenate(parts, axis) if len(parts) > 1 else parts[0]
