"""Networks and batches to time a step on: random data of the real shapes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments.config.specs import spec
from experiments.models.functional import network as named_network
from experiments.models.zoo import MODELS


class Problem(NamedTuple):
    """A network, one batch of it, and `logits_fn(params) -> logits` on that batch; `labels` are integers."""

    name: str
    params: Any
    logits_fn: Callable[[Any, jax.Array], jax.Array]
    inputs: jax.Array
    labels: jax.Array

    def losses(self, params: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        """Cross-entropy of each example."""
        return optax.softmax_cross_entropy_with_integer_labels(self.logits_fn(params, inputs), labels)

    def loss(self, params: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        """Their mean."""
        return self.losses(params, inputs, labels).mean()

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(x.size for x in jax.tree.leaves(self.params))


def mlp(width: int, batch: int, dtype: str = "float32") -> Problem:
    """784-width-width-width-10 with GELU: few operations a parameter, so passes over the parameters show."""
    sizes = [784, width, width, width, 10]
    keys = jax.random.split(jax.random.key(0), len(sizes))
    params = [
        {"kernel": jax.random.normal(key, (a, b)) / jnp.sqrt(a), "bias": jnp.zeros(b)}
        for key, a, b in zip(keys, sizes[:-1], sizes[1:], strict=False)
    ]

    def logits_fn(params: Any, x: jax.Array) -> jax.Array:
        params, x = jax.tree.map(lambda a: a.astype(dtype), (params, x))
        for layer in params[:-1]:
            x = jax.nn.gelu(x @ layer["kernel"] + layer["bias"][None])
        return (x @ params[-1]["kernel"] + params[-1]["bias"][None]).astype(jnp.float32)

    inputs = jax.random.normal(keys[-1], (batch, 784))
    return Problem(_title(f"mlp-{width}", batch, dtype), params, logits_fn, inputs, _labels(batch))


def image_model(name: str, batch: int, dtype: str = "float32") -> Problem:
    """A network of `experiments.models.zoo` with GroupNorm on 32 x 32 colour images."""
    network = named_network(name, (32, 32, 3), 10, "group", dtype)
    params, model_state = network.init(0)

    def logits_fn(params: Any, x: jax.Array) -> jax.Array:
        return nnx.merge(network.graphdef, params, model_state)(x)

    inputs = jax.random.normal(jax.random.key(1), (batch, 32, 32, 3))
    return Problem(_title(name, batch, dtype), params, logits_fn, inputs, _labels(batch))


def problem(text: str) -> Problem:
    """The problem that `network:batch` or `network:batch:dtype` spells, the network `mlp512` or one of `MODELS`.

    Example:
      >>> problem("mlp8:4").name
      'mlp-8, batch 4'
    """
    made = spec(text, "--problems")
    known = {name: _of_model(name) for name in MODELS}
    width = made.name.removeprefix("mlp")
    if width.isdecimal():
        known[made.name] = lambda batch, dtype="float32": mlp(int(width), _size(batch), _type(dtype))
    return made.build("network", known)


def _of_model(name: str) -> Callable[..., Problem]:
    return lambda batch, dtype="float32": image_model(name, _size(batch), _type(dtype))


def _size(batch: Any) -> int:
    if not isinstance(batch, int) or batch < 1:
        raise ValueError(f"batch={batch}: expected a whole number >= 1")
    return batch


def _type(dtype: Any) -> str:
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f"dtype={dtype}: expected float32 or bfloat16")
    return dtype


def _title(name: str, batch: int, dtype: str) -> str:
    return f"{name}, batch {batch}" + (f", {dtype}" if dtype != "float32" else "")


def _labels(batch: int) -> jax.Array:
    return jax.random.randint(jax.random.key(2), (batch,), 0, 10)
