"""A model as pure functions of its arrays."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx

from experiments.models.zoo import constructor


class Network(NamedTuple):
    """A model without its arrays, and the jitted function `init(seed) -> (params, model_state)` that creates them."""

    graphdef: nnx.GraphDef
    init: Callable[[int], tuple[Any, Any]]


@functools.cache
def network(name: str, image_shape: tuple[int, ...], num_classes: int, norm: str, dtype: str) -> Network:
    """The model as pure functions; equal settings give the same object, so that nothing is compiled twice.

    Args:
      name: one of `MODELS`; this and the next four as in `constructor`.
      image_shape: height, width and channels.
      num_classes: number of logits.
      norm: `group` or `batch`.
      dtype: `float32` or `bfloat16`.
    """
    make = constructor(name, image_shape=image_shape, num_classes=num_classes, norm=norm, dtype=dtype)

    def init(key: jax.Array) -> tuple[Any, Any]:
        _, params, model_state = nnx.split(make(nnx.Rngs(key)), nnx.Param, ...)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(model_state)

    graphdef = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))[0]
    jitted = jax.jit(init)
    # rbg: truncated normals take four times as long to compile with the default generator
    return Network(graphdef, lambda seed: jitted(jax.random.key(seed, impl="rbg")))
