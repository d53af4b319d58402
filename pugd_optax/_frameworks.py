"""Models of Flax NNX and Equinox are not trees of arrays: what to write instead. Imports neither framework."""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.core import Tracer

NNX, EQUINOX = "flax.nnx", "equinox"
_CALLS = {
    NNX: (
        "loss, grads, state = pugd_optax.nnx.value_and_grad(loss_fn, tx)(model, state, *args); or in a chain, with "
        "graphdef, _, rest = nnx.split(nnx.clone(model), nnx.Param, ...) before the first pass, "
        "grad_fn=lambda p: nnx.grad(loss_fn)(nnx.merge(graphdef, p, rest, copy=True), *args)"
    ),
    EQUINOX: (
        "loss, grads, state = pugd_optax.equinox.filter_value_and_grad(loss_fn, tx)(model, state, *args); or in a "
        "chain, with params, static = eqx.partition(model, eqx.is_inexact_array), "
        "grad_fn=lambda p: eqx.filter_grad(loss_fn)(eqx.combine(p, static), *args)"
    ),
}
_MOVES_TWICE = "an nnx variable from outside it (random counters, running statistics), which moves once a step"
_OF_LOSS = {"grad_fn": "jax.grad(loss_fn)", "value_fn": "loss_fn"}
_NO_MODEL = re.compile("not callable|[Nn]o attribute|not iterable")
_NO_TREE = re.compile("string indexing|[Nn]o attribute|unpack")
_IN_FRONT = "optax.chain(pugd_optax.sam(), optax.flatten(optimizer))"


def framework(tree: Any) -> str | None:
    """The module of the framework that the object belongs to, if any."""
    modules = [cls.__module__ for cls in type(tree).__mro__]
    return next((name for name in _CALLS if any(module.startswith(name) for module in modules)), None)


def fix(tree: Any, otherwise: str) -> str:
    """The call to write: that of the framework for its objects, `otherwise` for all other trees."""
    return _CALLS.get(framework(tree) or "", otherwise)


def refuse_model(params: Any, calls: Mapping[str, str] = _CALLS) -> None:
    """Refuse a model where a tree of arrays is expected, and show the call for its framework."""
    name, modules = framework(params), {cls.__module__ for cls in type(params).__mro__}
    if "flax.nnx.module" in modules or (name == EQUINOX and any(callable(x) for x in jax.tree.leaves(params))):
        kind = f"a model, {type(params).__name__} of {name}"
        raise ValueError(f"params is {kind}: expected a tree of arrays. Fix: {calls[name or NNX]}.")


def check_function(name: str, function: Any, params: Any) -> None:
    """Refuse what is not callable, such as gradients in place of the function that computes them."""
    if not callable(function):
        call = fix(params, _from_parameters(name))
        raise TypeError(f"{name} is a {type(function).__name__}: expected a function of the parameters. Fix: {call}.")


def explained(name: str, function: Callable[..., Any], params: Any, /, *args: Any, **kwargs: Any) -> Any:
    """`function(params, ...)`; if the function expects a model or a tree, the error shows the right call."""
    try:
        return function(params, *args, **kwargs)
    except Exception as error:
        first = str(error).partition("\n")[0]
        said = f"{type(error).__name__}: {first.partition(' (http')[0]}"
        if "trace level" in str(error):
            among = "pass its module to loss_fn among *args, " if name == "loss_fn" else ""
            raise ValueError(f"{name} changes {_MOVES_TWICE} ({said}). Fix: {among}{_CALLS[NNX]}.") from error
        if framework(params) and _NO_MODEL.search(str(error)):
            raise ValueError(f"{name} receives parameters, not a model ({said}). Fix: {fix(params, '')}.") from error
        if isinstance(params, jax.Array) and params.ndim == 1 and _NO_TREE.search(str(error)):
            vector = f"one vector of {params.size} numbers, as optax.flatten makes it"
            raise ValueError(f"{name} receives {vector} ({said}). Fix: the method in front, {_IN_FRONT}.") from error
        if isinstance(error, TypeError) and (asked := _asks_for_more(function, params, *args, **kwargs)):
            call = fix(params, _from_parameters(name))
            raise TypeError(f"{name} takes {asked}, but receives only the parameters. Fix: {call}.") from error
        raise


def _from_parameters(name: str) -> str:
    return f"{name}=lambda p: {_OF_LOSS.get(name, name)}(p, batch)"


def _asks_for_more(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> str:
    """The names of all parameters of the function if these arguments do not fill them, otherwise nothing."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # functions written in C may have no signature
        return ""
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return f"({', '.join(signature.parameters)})"
    return ""


def isolated(grad_fn: Callable[..., Any], params: Any) -> Callable[..., Any]:
    """The same function in a separate trace, in which NNX does not let it change the variables of the first pass."""
    if framework(params) == NNX and any(isinstance(x, Tracer) for x in jax.tree.leaves(params)):
        return jax.jit(grad_fn, inline=True)
    return grad_fn
