"""Where a second gradient comes from: the caller's `grad_fn`, or the gradient of the caller's `value_fn`."""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import check_same
from pugd_optax._frameworks import check_function, explained, fix, isolated
from pugd_optax._norms import cast_like
from pugd_optax._typing import GradFn, ValueFn


def gradient_function(
    grad_fn: GradFn | None,
    value_fn: ValueFn | None,
    extra_args: dict[str, Any],
    *,
    like: optax.Updates,
    name: str = "grad_fn",
) -> GradFn:
    """The caller's gradient function; its result is checked against the first gradient and cast to its dtypes."""
    if grad_fn is None:
        if value_fn is None:
            raise ValueError(_NO_SOURCE.format(call=fix(like, _UPDATE)))
        check_function("value_fn", value_fn, like)
        named = {k: extra_args[k] for k in list(inspect.signature(value_fn).parameters)[1:] if k in extra_args}
        slope = jax.grad(functools.partial(value_fn, **named))
        return lambda p: cast_like(jax.tree.map(jnp.conj, explained("value_fn", isolated(slope, p), p)), like)

    check_function(name, grad_fn, like)

    def checked(params: optax.Params) -> optax.Updates:
        g_star = with_structure(explained(name, isolated(grad_fn, params), params), like)
        check_same(f"the result of {name}", g_star, "grads", like, fix(params, _GRADIENTS_ALONE.format(name=name)))
        return cast_like(g_star, like)

    return checked


def with_structure(tree: Any, like: Any) -> Any:
    """The leaves in the containers of `like`, if names and shapes agree; otherwise the tree as it is.

    Containers differ, for example, because `nnx.grad` returns a `Param` around each array and `nnx.Optimizer` does not.
    """
    found, wanted = jax.tree_util.tree_leaves_with_path(tree), jax.tree_util.tree_leaves_with_path(like)
    alike = len(found) == len(wanted) and all(
        _name(path) == _name(other) and jnp.shape(x) == jnp.shape(y)
        for (path, x), (other, y) in zip(found, wanted, strict=True)
    )
    return jax.tree.unflatten(jax.tree.structure(like), [x for _, x in found]) if alike else tree


def _name(path: tuple[Any, ...]) -> list[str]:
    """The keys from the root, for any kind of container, without the `.value` of a wrapper."""
    keys = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path]
    return keys[:-1] if path and path[-1] == jax.tree_util.GetAttrKey("value") else keys


_UPDATE = (
    "tx.update(grads, state, params, grad_fn=lambda p: jax.grad(loss_fn)(p, batch)), with the batch and the random key "
    "that gave grads. In place of Flax's TrainState, which drops it: pugd_optax.linen.TrainState. Put the method "
    "in front of optax.MultiSteps and lookahead, which drop it too"
)
_NO_SOURCE = "A method that evaluates the gradient again needs grad_fn= (or value_fn=) in update. Fix: {call}."
_GRADIENTS_ALONE = (
    "return gradients alone, {name}=lambda p: jax.grad(loss_fn)(p, batch), or with has_aux "
    "{name}=lambda p: jax.grad(loss_fn, has_aux=True)(p, batch)[0]"
)
