"""Parts of a batch and how their results are combined: groups on one device, devices along a mesh axis."""

import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from pugd_optax._checks import check_count, check_number, check_transformation
from pugd_optax._norms import AxisName, axes_of, axis_names, widen

Perturb = Literal["local", "global"]


def check_options(tx: Any, perturb: str, groups: int, second_batch: float, aux_reduce: Any) -> None:
    """Refuse arguments that no variant of `value_and_grad` supports."""
    check_transformation("tx", tx)
    if perturb not in get_args(Perturb):
        raise ValueError(f"perturb={perturb!r}: expected 'local' or 'global'.")
    check_count("groups", groups, low=1, static=True)
    check_number("second_batch", second_batch, low=0, high=1)
    if second_batch == 0:
        raise ValueError("second_batch=0: the second gradient needs examples. Fix: a share in (0, 1].")
    if any(way not in ("mean", "sum", "first") for way in jax.tree.leaves(aux_reduce)):
        raise ValueError(f"aux_reduce={aux_reduce!r}: expected 'mean', 'sum', 'first', or a tree of these.")


def split(args: tuple[Any, ...], groups: int) -> list[tuple[Any, ...]]:
    """The arguments split into `groups` equal runs of examples; scalars and keys go to every group."""
    if groups == 1:
        return [args]
    _check_examples(args, f"groups={groups}")
    for x in jax.tree.leaves(args):
        if _has_examples(x) and len(x) % groups:
            raise ValueError(
                f"groups={groups} does not divide the {len(x)} examples of an argument of shape {x.shape}. Fix: a "
                "number that divides the batch; pass arguments that are not batches by keyword."
            )
    run = lambda x, k: x[k * len(x) // groups : (k + 1) * len(x) // groups] if _has_examples(x) else x
    return [jax.tree.map(functools.partial(run, k=k), args) for k in range(groups)]


def share_of(args: tuple[Any, ...], share: float) -> tuple[Any, ...]:
    """A share of the examples, at least one, at equal distances so that a sharded batch stays where it is."""
    if share == 1:
        return args
    _check_examples(args, f"second_batch={share}")

    def pick(x: Any) -> Any:
        if not _has_examples(x):
            return x
        count = max(1, round(share * len(x)))
        stride = len(x) // count
        return x[: count * stride : stride]

    return jax.tree.map(pick, args)


def holds(tree: Any, kinds: Any) -> bool:
    """Whether a tree contains an object of one of these types."""
    is_one = lambda x: isinstance(x, kinds)
    return any(map(is_one, jax.tree.leaves(tree, is_leaf=is_one)))


def over_groups(results: list[Any], ways: Any) -> Any:
    """Combines the results of equal groups into one, with sums in float32 or better."""
    wide = lambda x: widen(jnp.asarray(x)) if _is_float(x) else x
    added = lambda columns: [functools.reduce(jnp.add, map(wide, column)) for column in columns]
    return _merged(results, ways, added, len(results))


def over_axis(result: Any, ways: Any, axis_name: str) -> Any:
    """Combines the results along a mesh axis into one, in one all-reduce."""
    count = jax.lax.axis_size(axis_name) if hasattr(jax.lax, "axis_size") else jax.lax.psum(1, axis_name)
    return _merged([result], ways, lambda columns: jax.lax.psum([x for (x,) in columns], axis_name), count)


def ways(value: Any, grads: Any, state: Any, has_aux: bool, aux_reduce: Any) -> Any:
    """How each leaf of a result is combined: `"mean"`, `"sum"`, or `"first"` if it is the same everywhere."""
    averaged = lambda tree: jax.tree.map(lambda x: "mean" if _is_float(x) else "first", tree)
    if not has_aux:
        return averaged((value, grads, state))
    loss, aux = value
    by_type = lambda x: "mean" if _is_float(x) else "first" if _is_key(x) else "sum"
    whole = lambda way, part: jax.tree.map(by_type if way is None else lambda _: way, part)
    aux_ways = jax.tree.map(whole, aux_reduce, aux, is_leaf=lambda way: way is None)
    return ((averaged(loss), aux_ways), averaged(grads), averaged(state))


def varying(tree: Any, axis_name: AxisName) -> Any:
    """Mark float leaves as varying over the axis, so that the gradient of such parameters is not summed over it."""
    return jax.tree.map(lambda x: _as_varying(x, axis_name) if _is_float(x) and axis_name else x, tree)


def varying_like(x: jax.Array, other: Any) -> jax.Array:
    """`x`, marked as varying over the mesh axes over which another value, or a value of the given type, varies."""
    axes = axes_of(other) - axes_of(x)
    return _as_varying(x, tuple(axes)) if axes else x


def averaged(tree: Any, axis_name: str | None) -> Any:
    """The tree itself, with a backward pass that averages gradients over the axis, once for any function of it."""
    leaves, structure = jax.tree.flatten(tree)
    floats = [i for i, x in enumerate(leaves) if _is_float(x)]
    for i, x in zip(floats, _averaged(axis_name, [leaves[i] for i in floats]), strict=True):
        leaves[i] = x
    return structure.unflatten(leaves)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _averaged(axis_name: str | None, leaves: list[jax.Array]) -> list[jax.Array]:
    return varying(leaves, axis_name)


_averaged.defvjp(
    lambda axis_name, leaves: (varying(leaves, axis_name), None),
    lambda axis_name, _, cotangents: (jax.lax.pmean(cotangents, axis_name),),
)


def refusal(name: str, option: str) -> Callable[[Any], Any]:
    """In place of a function of the whole batch: an error if a method calls it although it needs only a part."""

    def refuse(params: Any) -> Any:
        del params
        raise ValueError(
            f"{name} in extra_args is bound to the batch of this device, which {option} cannot change. Fix: leave "
            f"{option} out, or call tx.update with functions of your own."
        )

    return refuse


def _merged(
    results: list[Any], ways: Any, total: Callable[[list[list[jax.Array]]], list[jax.Array]], count: int
) -> Any:
    tags, structure = jax.tree.flatten(ways)
    columns = list(zip(*(structure.flatten_up_to(result) for result in results), strict=True))
    merged = [column[0] for column in columns]
    chosen = [i for i, tag in enumerate(tags) if tag != "first"]
    number = lambda x: jnp.asarray(x, jnp.int32) if jnp.issubdtype(jnp.result_type(x), jnp.bool_) else x
    for i, x in zip(chosen, total([[number(x) for x in columns[i]] for i in chosen]), strict=True):
        combined = x / count if tags[i] == "mean" else x
        merged[i] = jnp.asarray(combined, jnp.result_type(merged[i])) if _is_float(merged[i]) else combined
    return structure.unflatten(merged)


def _as_varying(x: Any, axis_name: AxisName) -> Any:
    others = tuple(name for name in axis_names(axis_name) if name not in axes_of(x))
    if not others:
        return x
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(x, others, to="varying")
    return getattr(jax.lax, "pvary", lambda x, axis_name: x)(x, others)  # JAX before 0.9


def _check_examples(args: tuple[Any, ...], option: str) -> None:
    if not any(_has_examples(x) for x in jax.tree.leaves(args)):
        raise ValueError(
            f"{option}: no argument holds examples that could be divided. Fix: pass the batch by position, "
            "vg(params, state, x, y), as arrays."
        )


def _has_examples(x: Any) -> bool:
    return hasattr(x, "shape") and len(x.shape) > 0


def _is_float(x: jax.typing.ArrayLike) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key)
