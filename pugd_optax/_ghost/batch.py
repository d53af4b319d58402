"""Where the batch axis is in every intermediate value of a function that returns one loss per example.

The losses are followed back to the parameters. For every value its uses are recorded: a `Place` if the loss of an
example reads only its own part of the value; `Shared` if it may read all of it; `Lost` if a primitive hides which part
it reads. If a value depends on parameters and data and is used in both ways, the examples are coupled. BatchNorm is an
example: its mean over the batch is shared, but the values it normalises are not.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import optax
from jax.extend.core import Jaxpr, JaxprEqn, Var

from pugd_optax._ghost.axes import Lost, Place, Shared, Use, back
from pugd_optax._ghost.jaxprs import Scan, body, flatten, scan_of

Uses = dict[Use, None]
"""Used as an ordered set."""


def check_uncoupled(losses_fn: Callable[[optax.Params], jax.Array], params: optax.Params, batch: int) -> None:
    """Refuse losses if the loss of one example depends on the activations of another."""
    if batch == 1:
        return
    jaxpr, _ = flatten(losses_fn, params)
    refuse_coupling(jaxpr, follow(jaxpr, [{Place(0): None}], batch), len(jax.tree.leaves(params)))


def refuse_coupling(jaxpr: Jaxpr, uses: dict[Var, Uses], num_params: int) -> None:
    """Raise on the first value that depends on parameters and data and is used in two ways."""
    both = depending(jaxpr, jaxpr.invars[:num_params]) & depending_on_data(jaxpr, num_params)
    for eqn in _equations(jaxpr):
        for var in both.intersection(eqn.outvars):
            mixers = [use.primitive for use in uses.get(var, ()) if isinstance(use, Shared)]
            places = [use for use in uses.get(var, ()) if isinstance(use, Place)]
            if places and (mixers or len(places) > 1):
                how = mixers[0] if mixers else "use along two of its axes"
                raise ValueError(
                    f"losses_fn couples the examples: the result of {eqn.primitive.name}, {var.aval.str_short()}, is "
                    f"mixed along its batch axis {places[0].axis} by {how}, as BatchNorm in training mode or a "
                    "contrastive loss does, so that no gradient belongs to one example. Fix: use LayerNorm, GroupNorm "
                    "or BatchNorm with fixed statistics, or group_size= the whole batch for gradient regularisation."
                )


def follow(jaxpr: Jaxpr, uses_of_outputs: list[Uses], batch: int) -> dict[Var, Uses]:
    """The uses of every variable, also in the bodies of scans, computed from the uses of the outputs."""
    uses: dict[Var, Uses] = {}

    def note(atom: Any, given: Uses) -> None:
        if isinstance(atom, Var) and given:
            uses.setdefault(atom, {}).update(given)

    for atom, given in zip(jaxpr.outvars, uses_of_outputs, strict=True):
        note(atom, given)
    for eqn in reversed(jaxpr.eqns):
        of_outputs = [uses.get(v, {}) for v in eqn.outvars]
        if scan := scan_of(eqn):
            within, of_inputs = _follow_scan(scan, of_outputs, batch)
            uses.update(within)
        elif inner := body(eqn):
            within = follow(inner.jaxpr, of_outputs, batch)
            of_inputs = [within.get(var, {}) for var in inner.jaxpr.invars]
        else:
            found = [back(eqn, use, batch) for use in {use: None for given in of_outputs for use in given}]
            of_inputs = [{use: None for use in each if use is not None} for each in zip(*found, strict=True)]
            of_inputs = of_inputs or [{}] * len(eqn.invars)
        for atom, given in zip(eqn.invars, of_inputs, strict=True):
            note(atom, given)
    return uses


def _follow_scan(scan: Scan, of_outputs: list[Uses], batch: int) -> tuple[dict[Var, Uses], list[Uses]]:
    """The uses of the variables of the body and of the inputs; the carry is followed until nothing changes."""
    carry = of_outputs[: scan.carried]
    stacked = [_shifted(given, -1) for given in of_outputs[scan.carried :]]
    while True:
        within = follow(scan.body, [*carry, *stacked], batch)
        again = [{**given, **within.get(v, {})} for given, v in zip(carry, scan.carry_in, strict=True)]
        if again == carry:
            break
        carry = again
    consts, init, scanned = scan.split([within.get(v, {}) for v in scan.body.invars])
    return within, [*consts, *init, *(_shifted(given, 1) for given in scanned)]


def _shifted(uses: Uses, by: int) -> Uses:
    """The uses with the axis of the scanned steps added in front, or removed."""
    shift = lambda use: use._replace(axis=use.axis + by) if use.axis + by >= 0 else Lost("scan")
    return {shift(use) if isinstance(use, Place) else use: None for use in uses}


def depending_on_data(jaxpr: Jaxpr, num_params: int) -> set[Var]:
    """All variables that depend on data."""
    return depending(jaxpr, [*jaxpr.constvars, *jaxpr.invars[num_params:]])


def depending(jaxpr: Jaxpr, known: Iterator[Var] | list[Var] | set[Var]) -> set[Var]:
    """All variables that depend on the given ones, including those in the bodies of scans."""
    known = set(known)
    for eqn in jaxpr.eqns:
        if scan := scan_of(eqn):
            known |= _depending_in_scan(eqn, scan, known)
        elif any(isinstance(v, Var) and v in known for v in eqn.invars):
            known.update(eqn.outvars)
    return known


def _depending_in_scan(eqn: JaxprEqn, scan: Scan, known: set[Var]) -> set[Var]:
    inside = {inner for outer, inner in zip(eqn.invars, scan.body.invars, strict=True) if _is_in(outer, known)}
    while True:
        found = depending(scan.body, inside)
        carried = {v for v, out in zip(scan.carry_in, scan.carry_out, strict=True) if _is_in(out, found)}
        if carried <= found:
            break
        inside |= carried
    return found | {outer for outer, v in zip(eqn.outvars, scan.body.outvars, strict=True) if _is_in(v, found)}


def _is_in(atom: Any, some: set[Var]) -> bool:
    return isinstance(atom, Var) and atom in some


def _equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    for eqn in jaxpr.eqns:
        scan = scan_of(eqn)
        yield from _equations(scan.body) if scan else ()
        yield eqn
