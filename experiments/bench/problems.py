"""Networks and batches to time a step on: random data of the real shapes.

There are three kinds, with different target ratios: networks whose gradient takes most of the time; networks with few
operations per parameter, where every pass over the parameters is visible; and tiny ones, where the time goes into
starting operations.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from experiments.config.specs import spec
from experiments.models.functional import network as named_network
from experiments.models.gpt import GPT
from experiments.models.zoo import MODELS

Kind = Literal["network", "few operations", "tiny"]


def momentum() -> optax.GradientTransformationExtraArgs:
    """The base optimizer of image classifiers."""
    return optax.sgd(0.1, momentum=0.9)


class Problem(NamedTuple):
    """A network, one batch, and `logits_fn(params, inputs) -> logits`; `labels` are integers, [n] or [n, length].

    `base` makes the base optimizer; `kind` says where the time goes.
    """

    name: str
    params: Any
    logits_fn: Callable[[Any, jax.Array], jax.Array]
    inputs: jax.Array
    labels: jax.Array
    kind: Kind = "network"
    base: Callable[[], optax.GradientTransformationExtraArgs] = momentum

    def losses(self, params: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        """Cross-entropy of each example; for a sequence the mean over its tokens."""
        losses = optax.softmax_cross_entropy_with_integer_labels(self.logits_fn(params, inputs), labels)
        return losses.reshape(len(losses), -1).mean(1)

    @property
    def classes(self) -> int:
        """Number of logits."""
        return jax.eval_shape(self.logits_fn, self.params, self.inputs).shape[-1]

    def loss(self, params: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        """The mean of the losses."""
        return self.losses(params, inputs, labels).mean()

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(x.size for x in jax.tree.leaves(self.params))


def mlp(width: int, batch: int, dtype: str = "float32") -> Problem:
    """784-width-width-width-10 with GELU: few operations per parameter, so passes over the parameters are visible."""
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
    kind: Kind = "network" if batch >= 512 else "few operations"
    return Problem(_title(f"mlp-{width}", batch, dtype), params, logits_fn, inputs, _labels(batch), kind)


def transformer(batch: int, dtype: str = "float32") -> Problem:
    """Four blocks of width 128 on 64 bytes of text, trained with AdamW."""
    make = lambda: GPT(256, 64, 128, 4, 4, dtype=dtype, rngs=nnx.Rngs(0))
    graphdef = nnx.split(nnx.eval_shape(make))[0]
    params, rest = jax.jit(lambda: tuple(map(nnx.to_pure_dict, nnx.split(make(), nnx.Param, ...)[1:])))()
    logits_fn = lambda params, ids: nnx.merge(graphdef, params, rest)(ids)
    text = jax.random.randint(jax.random.key(1), (batch, 65), 0, 256)
    title = _title("transformer", batch, dtype)
    return Problem(title, params, logits_fn, text[:, :-1], text[:, 1:], base=lambda: optax.adamw(1e-3))


def table(batch: int, dtype: str = "float32") -> Problem:
    """The mean of 8 rows of an embedding table of 200 000 x 64, and a linear layer, as in recommender systems."""
    params = {"table": jax.random.normal(jax.random.key(0), (200_000, 64)), "head": jnp.ones((64, 10))}
    logits_fn = lambda p, ids: (p["table"][ids].astype(dtype).mean(1) @ p["head"].astype(dtype)).astype(jnp.float32)
    ids = jax.random.randint(jax.random.key(1), (batch, 8), 0, 200_000)
    return Problem(_title("table 200k x 64", batch, dtype), params, logits_fn, ids, _labels(batch), "few operations")


def logistic(batch: int, dtype: str = "float32") -> Problem:
    """Logistic regression, 784 to 10: two tensors."""
    params = {"kernel": jnp.zeros((784, 10)), "bias": jnp.zeros(10)}
    logits_fn = lambda p, x: (x.astype(dtype) @ p["kernel"].astype(dtype) + p["bias"][None]).astype(jnp.float32)
    inputs = jax.random.normal(jax.random.key(1), (batch, 784))
    return Problem(_title("logistic", batch, dtype), params, logits_fn, inputs, _labels(batch), "tiny")


def image_model(name: str, batch: int, dtype: str = "float32") -> Problem:
    """A network of `experiments.models.zoo` with GroupNorm on 32 x 32 colour images."""
    network = named_network(name, (32, 32, 3), 10, "group", dtype)
    params, model_state = network.init(0)

    def logits_fn(params: Any, x: jax.Array) -> jax.Array:
        return nnx.merge(network.graphdef, params, model_state)(x)

    inputs = jax.random.normal(jax.random.key(1), (batch, 32, 32, 3))
    return Problem(_title(name, batch, dtype), params, logits_fn, inputs, _labels(batch))


def layers(leaves: int) -> Problem:
    """A residual network of small dense layers with this many tensors (kernels and biases), for compile times."""
    keys = jax.random.split(jax.random.key(0), leaves // 2)
    params = [{"kernel": jax.random.normal(key, (16, 16)) / 16, "bias": jnp.zeros(16)} for key in keys]

    def logits_fn(params: Any, x: jax.Array) -> jax.Array:
        for layer in params:
            x = x + jnp.tanh(x @ layer["kernel"] + layer["bias"][None])
        return x[:, :10]

    inputs = jax.random.normal(jax.random.key(1), (512, 16))
    return Problem(f"{leaves} tensors", params, logits_fn, inputs, _labels(512))


def problem(text: str) -> Problem:
    """The problem described by `network:batch` or `network:batch:dtype`.

    Networks are those of `MODELS`, an MLP of any width (`mlp512`), `transformer`, `table` and `logistic`.

    Example:
      >>> problem("mlp8:4").name
      'mlp-8, batch 4'
    """
    made = spec(text, "--problems")
    known = {name: _checked(functools.partial(image_model, name)) for name in MODELS}
    known |= {make.__name__: _checked(make) for make in (transformer, table, logistic)}
    width = made.name.removeprefix("mlp")
    if width.isdecimal():
        known[made.name] = _checked(functools.partial(mlp, int(width)))
    return made.build("network", known)


def _checked(make: Callable[..., Problem]) -> Callable[..., Problem]:
    return lambda batch, dtype="float32": make(_size(batch), _type(dtype))


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
