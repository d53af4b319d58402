"""A small MLP on scikit-learn's handwritten digits, for claims about trained networks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import data
from experiments.config.specs import spec

HIDDEN, CLASSES = 32, 10


class Digits(NamedTuple):
    """1000 for training, 797 for the test; inputs [n, 64] in [0, 1]."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def load() -> Digits:
    """The digits, split in the same way for every seed."""
    dataset = data.load(spec("digits"), None)
    part = lambda examples: (examples.images.reshape(-1, 64).astype(np.float32) / 240, examples.labels)
    return Digits(part(dataset.train), part(dataset.test))


def start(key: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """Weights and biases of 64-32-10."""
    shapes = [(64, HIDDEN), (HIDDEN, CLASSES)]
    keys = jax.random.split(key, len(shapes))
    normal = lambda key, shape: jax.random.normal(key, shape) * np.sqrt(2 / shape[0]).astype(np.float32)
    return [(normal(key, shape), jnp.zeros(shape[1])) for key, shape in zip(keys, shapes, strict=True)]


def logits(params: Any, x: jax.typing.ArrayLike) -> jax.Array:
    """The network, with a smooth activation so that small perturbations act linearly."""
    (a, b), (c, d) = params
    return jax.nn.gelu(x @ a + b[None, :]) @ c + d[None, :]


def losses(params: Any, x: jax.typing.ArrayLike, y: jax.typing.ArrayLike) -> jax.Array:
    """Cross-entropy of each example."""
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, x), jnp.asarray(y))


def error(params: Any, x: jax.typing.ArrayLike, y: jax.typing.ArrayLike) -> jax.Array:
    """Share of wrong answers."""
    return jnp.mean(jnp.argmax(logits(params, x), axis=-1) != y)
