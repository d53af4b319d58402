"""Jaxprs as data: a function of the parameters as one list of equations, and its evaluation with arrays added."""

import math
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from pugd_optax._ghost.convolutions import convolve

ELEMENTWISE = frozenset(
    """
    abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp clz conj convert_element_type copy
    copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt imag integer_pow is_finite le
    lgamma log log1p logistic lt max min mul name ne neg nextafter not or pow real reduce_precision rem round rsqrt
    select_n sharding_constraint shift_left shift_right_arithmetic shift_right_logical sign sin sinh sqrt square
    stop_gradient sub tan tanh xor
    """.split()  # noqa: SIM905
)
"""Elementwise primitives; scalars are broadcast, and so are axes of size 1 if the ranks are equal."""

_INLINED = {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}
_CUSTOM = {"custom_jvp_call", "custom_vjp_call"}
_PRODUCTS = {"dot_general", "conv_general_dilated"}
_LAYOUT = {"add", "broadcast_in_dim", "concatenate", "convert_element_type", "pad", "reshape", "rev", "slice", "split"}
_LAYOUT |= {"squeeze", "transpose"}


def flatten(fun: Callable[[optax.Params], Any], params: optax.Params) -> tuple[Jaxpr, list[Any]]:
    """The jaxpr of `fun` with its nested calls inlined, and the data that `fun` closes over.

    Its inputs are the leaves of `params`, then the data, and last the constants of the jaxpr. Two things stay nested:
    the bodies of `lax.scan`, which are flat themselves, and functions with a custom derivative rule, unless they are a
    product of a parameter and other values, as a convolution may be. Broadcasts of operands are separate equations.
    """
    return inline(jax.make_jaxpr(fun)(params), params)


def inline(closed: ClosedJaxpr, params: optax.Params) -> tuple[Jaxpr, list[Any]]:
    """`flatten` for a function that has already been traced."""

    def flat(leaves: list[Any], data: list[Any]) -> list[Any]:
        weights = [_Traced(x, weight=True) for x in leaves]
        return [x.value for x in _inline(closed.jaxpr, [_Traced(x, weight=False) for x in data], weights)]

    again = jax.make_jaxpr(flat)(jax.tree.leaves(params), closed.consts)
    return again.jaxpr, [*closed.consts, *again.consts]


class Scan(NamedTuple):
    """The parts of a `lax.scan` equation: the inputs and outputs of one step of its body."""

    body: Jaxpr
    consts: int
    carried: int

    @property
    def carry_in(self) -> list[Var]:
        """The inputs of the body that the previous step computed."""
        return self.body.invars[self.consts : self.consts + self.carried]

    @property
    def carry_out(self) -> list[Any]:
        """What the body passes on to the next step."""
        return self.body.outvars[: self.carried]

    def split(self, given: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        """The inputs of the equation or the body: constants, carry, and what is scanned."""
        end = self.consts + self.carried
        return list(given[: self.consts]), list(given[self.consts : end]), list(given[end:])


def scan_of(eqn: JaxprEqn) -> Scan | None:
    """The parts of a scan, or None for any other equation."""
    if eqn.primitive.name != "scan":
        return None
    if "num_consts" in eqn.params:
        consts, carried = eqn.params["num_consts"], eqn.params["num_carry"]
    else:  # from JAX 0.12 on, the groups of the inputs as a tree
        consts, carried = (len(list(group)) for group in eqn.params["ft_in"].update(eqn.invars).unpack()[:2])
    return Scan(eqn.params["jaxpr"].jaxpr, consts, carried)


def evaluate(
    jaxpr: Jaxpr, inputs: Sequence[Any], added: Mapping[Any, Any], wanted: Sequence[Any]
) -> tuple[list[Any], list[Any]]:
    """The outputs of a flat jaxpr with `added[v]` added to each variable `v`, and the values of the wanted variables.

    Arrays added to, and values wanted from, a variable inside a scan have a leading axis for its steps.

    Products read wanted values through a copy, and the copy is what is returned. So all contributions of one site to
    the derivative are summed before they join those of other sites. Otherwise the sum of a residual stream is in an
    order that XLA fuses into every consumer, and its length grows with the depth.
    """
    env: dict[Any, Any] = dict(zip((*jaxpr.invars, *jaxpr.constvars), inputs, strict=True))
    copies: dict[Any, Any] = {}
    sought = {v for v in wanted if isinstance(v, Var)}
    for eqn in jaxpr.eqns:
        if is_product := eqn.primitive.name in _PRODUCTS:
            fresh = (v for v in eqn.invars if isinstance(v, Var) and v in sought and v not in copies)
            copies |= {v: jnp.copy(env[v]) for v in fresh}
        given = [_read(ChainMap(copies, env) if is_product else env, v) for v in eqn.invars]
        if eqn.primitive.name == "conv_general_dilated":
            outputs = [_convolved(eqn, *given)]
        elif scan := scan_of(eqn):
            outputs, inside = _evaluate_scan(eqn, scan, given, added, wanted)
            env.update(inside)
        else:
            outputs = apply(eqn, given)
        for var, value in zip(eqn.outvars, outputs, strict=True):
            env[var] = value + added[var] if var in added else value
    outputs = [_read(env, v) for v in jaxpr.outvars]
    env |= copies
    return outputs, [_read(env, v) if _known(env, v) else None for v in wanted]


def _convolved(eqn: JaxprEqn, image: jax.Array, kernel: jax.Array) -> jax.Array:
    return convolve(lambda x, w: apply(eqn, [x, w])[0], image, kernel)


def _evaluate_scan(
    eqn: JaxprEqn, scan: Scan, given: list[Any], added: Mapping[Any, Any], wanted: Sequence[Any]
) -> tuple[list[Any], dict[Any, Any]]:
    local = variables(scan.body)
    tapped, sought = ([v for v in some if isinstance(v, Var) and v in local] for some in (added, wanted))
    consts, init, scanned = scan.split(given)

    def step(carry: list[Any], now: tuple[list[Any], list[Any]]):
        inner = dict(zip(tapped, now[1], strict=True))
        outputs, found = evaluate(scan.body, [*consts, *carry, *now[0]], inner, sought)
        return outputs[: scan.carried], (outputs[scan.carried :], found)

    carry, (stacked, found) = rescan(eqn, step, init, (scanned, [added[v] for v in tapped]))
    return [*carry, *stacked], dict(zip(sought, found, strict=True))


def rescan(eqn: JaxprEqn, step: Any, init: Any, scanned: Any) -> Any:
    """The scan of the equation with another step function."""
    how = {key: eqn.params[key] for key in ("length", "reverse", "unroll")}
    return jax.lax.scan(step, init, scanned, **how)


def variables(jaxpr: Jaxpr) -> set[Var]:
    """All variables of a flat jaxpr, including those in the bodies of its scans."""
    inner = [variables(scan.body) for scan in map(scan_of, jaxpr.eqns) if scan]
    return {*jaxpr.invars, *(v for eqn in jaxpr.eqns for v in eqn.outvars)}.union(*inner)


def shape_of(atom: Any) -> tuple[int, ...]:
    """The shape of a variable or a literal."""
    return atom.aval.shape


def apply(eqn: JaxprEqn, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of one equation."""
    bound = eqn.primitive.get_bind_params(eqn.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)  # a pair before JAX 0.10
    outputs = eqn.primitive.bind(*functions, *inputs, **params)
    return list(outputs) if eqn.primitive.multiple_results else [outputs]


def body(eqn: JaxprEqn) -> ClosedJaxpr | None:
    """The function called by a call equation, or None for any other primitive."""
    if eqn.primitive.name not in _INLINED | _CUSTOM:
        return None
    inner = eqn.params["jaxpr"] if "jaxpr" in eqn.params else eqn.params["call_jaxpr"]
    return inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())


class _Traced(NamedTuple):
    value: Any
    weight: bool | None  # computed only from parameters and literals; None for a literal


def _inline(jaxpr: Jaxpr, consts: Sequence[_Traced], inputs: Sequence[_Traced]) -> list[_Traced]:
    env: dict[Any, _Traced] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *inputs), strict=True))

    def read(atom: Any) -> _Traced:
        return _Traced(atom.val, weight=None) if isinstance(atom, Literal) else env[atom]

    for eqn in jaxpr.eqns:
        given = [read(v) for v in eqn.invars]
        of_weights = any(x.weight for x in given) and all(x.weight is not False for x in given)
        beside = not of_weights and any(x.weight for x in given)
        inner = body(eqn)
        if inner is not None and (eqn.primitive.name in _INLINED or (beside and _is_product(inner.jaxpr))):
            outputs = _inline(inner.jaxpr, [_Traced(x, weight=False) for x in inner.consts], given)
        elif scan := scan_of(eqn):
            outputs = _inline_scan(eqn, scan, given)
        else:
            of_weights = of_weights and eqn.primitive.name != "stop_gradient"
            outputs = [_Traced(x, of_weights) for x in _rewritten(eqn, [x.value for x in given])]
        env.update(zip(eqn.outvars, outputs, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _is_product(jaxpr: Jaxpr) -> bool:
    """Whether this is a product of its inputs up to their layout, so that a derivative rule of its own is JAX's."""
    names = {eqn.primitive.name for eqn in _leaf_equations(jaxpr)}
    return bool(names & _PRODUCTS) and names <= _PRODUCTS | _LAYOUT


def _leaf_equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    for eqn in jaxpr.eqns:
        inner = body(eqn)
        yield from [eqn] if inner is None else _leaf_equations(inner.jaxpr)


def _inline_scan(eqn: JaxprEqn, scan: Scan, given: list[_Traced]) -> list[_Traced]:
    consts, init, scanned = scan.split(given)
    captured = [_Traced(x, weight=False) for x in eqn.params["jaxpr"].consts]

    def step(carry: list[Any], now: list[Any]):
        carried = [_Traced(x, weight=False) for x in carry]
        entries = [_Traced(x, old.weight) for x, old in zip(now, scanned, strict=True)]
        outputs = [x.value for x in _inline(scan.body, captured, [*consts, *carried, *entries])]
        return outputs[: scan.carried], outputs[scan.carried :]

    carry, stacked = rescan(eqn, step, [x.value for x in init], [x.value for x in scanned])
    return [_Traced(x, weight=False) for x in (*carry, *stacked)]


def _rewritten(eqn: JaxprEqn, given: list[Any]) -> list[Any]:
    """The outputs of an equation, written with primitives that state along which axes a value is repeated.

    In elementwise equations variables get the full shape; a tile becomes a broadcast and a reshape. The order of a
    reshape becomes a transpose, a stack a concatenation and its inverse a split.
    """
    shape = shape_of(eqn.outvars[0]) if eqn.outvars else ()
    if eqn.primitive.name == "reshape" and eqn.params["dimensions"]:
        ordered = jax.lax.transpose(given[0], eqn.params["dimensions"])
        return [eqn.primitive.bind(ordered, **(eqn.params | {"dimensions": None}))]
    if eqn.primitive.name == "stack":
        axis = eqn.params["axis"]
        return [jax.lax.concatenate([jax.lax.expand_dims(x, [axis]) for x in given], axis)]
    if eqn.primitive.name == "unstack":
        axis = eqn.params["axis"]
        return [jax.lax.squeeze(x, [axis]) for x in jax.lax.split(given[0], [1] * len(eqn.outvars), axis)]
    if eqn.primitive.name == "tile":
        apart = [n for size, full in zip(given[0].shape, shape, strict=True) for n in (full // size, size)]
        x = given[0].reshape([n for size in given[0].shape for n in (1, size)])
        return [_in_full(x, apart).reshape(shape)] if math.prod(shape) else apply(eqn, given)
    if eqn.primitive.name in ELEMENTWISE:
        given = [
            jnp.broadcast_to(x, shape) if isinstance(v, Var) else x for v, x in zip(eqn.invars, given, strict=True)
        ]
    return apply(eqn, given)


def _in_full(x: Any, shape: Sequence[int]) -> Any:
    return x if jnp.shape(x) == tuple(shape) else jax.lax.broadcast_in_dim(x, tuple(shape), range(jnp.ndim(x)))


def _known(env: dict[Any, Any], atom: Any) -> bool:
    return isinstance(atom, Literal) or atom in env


def _read(env: Mapping[Any, Any], atom: Any) -> Any:
    return atom.val if isinstance(atom, Literal) else env[atom]
