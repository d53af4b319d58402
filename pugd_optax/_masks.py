"""Masks: which parameters a transformation applies to."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import difference
from pugd_optax._typing import Mask


def resolve_mask(mask: Mask | None, params: optax.Params, name: str = "mask"):
    """The tree of bools for a mask: all True for None, or what the mask function returns."""
    if mask is None:
        return jax.tree.map(lambda _: True, params)
    selected = mask(params) if callable(mask) else mask
    if jax.tree.structure(selected) != jax.tree.structure(params):
        injected = jax.tree_util.treedef_is_leaf(jax.tree.structure(selected))
        static = f"; static_args=({name!r},) in inject_hyperparams" if injected else ""
        raise ValueError(
            f"{name} {difference(selected, 'params', params)}. "
            f"Fix: {name}=lambda params: jax.tree.map(lambda w: w.ndim > 1, params){static}."
        )
    return selected


def zero_unless(selected: Any, tree: optax.Updates) -> optax.Updates:
    """The tree with 0 in every leaf that is not selected."""
    return jax.tree.map(lambda on, x: x if on else jnp.zeros_like(x), selected, tree)
