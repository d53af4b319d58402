"""Small real images and short trainings of small networks, compiled for all seeds at once.

These are for claims that need hundreds of trainings in a few minutes on one core: Fashion-MNIST or MNIST at 14 x 14
(means of 2 x 2 pixels), with at most a thousand training images. Hyperparameters are chosen on images from the first
half of the training set. Verdicts use networks trained on images from the second half, and the test set.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import data
from experiments.config.specs import spec

VALIDATION = 2000
MOMENTUM = 0.9


class Parts(NamedTuple):
    """Training inputs [seeds, n, pixels] in [0, 1] and labels [seeds, n]; test examples, the same for all seeds."""

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


@functools.cache
def _pooled(dataset: str, data_dir: Path | None) -> tuple[data.Examples, data.Examples]:
    """Training and test examples; images of 28 x 28 are reduced to half their size and flattened."""
    found = data.load(spec(dataset), data_dir)

    def part(examples: data.Examples) -> data.Examples:
        images = np.asarray(examples.images[:], np.float32)[..., 0]
        images = images / (240 if dataset == "digits" else 255)  # the digits' brightest pixel is 16 x 15
        if images.shape[1] == 28:
            images = images.reshape(len(images), 14, 2, 14, 2).mean(axis=(2, 4))
        return data.Examples(images.reshape(len(images), -1), examples.labels)

    return part(found.train), part(found.test)


def to_choose(dataset: str, data_dir: Path | None, seeds: Sequence[int], n: int) -> Parts:
    """Images for choosing hyperparameters, from the first half of the training set; the last are for validation."""
    train, _ = _pooled(dataset, data_dir)
    half = len(train.labels) // 2
    validation = min(VALIDATION, half // 3)
    pool, held_out = train.take(slice(half - validation)), train.take(slice(half - validation, half))
    return _drawn(pool, held_out, seeds, n)


def to_judge(dataset: str, data_dir: Path | None, seeds: Sequence[int], n: int) -> Parts:
    """Images for the verdict, from the second half of the training set, and the test set."""
    train, test = _pooled(dataset, data_dir)
    return _drawn(train.take(slice(len(train.labels) // 2, None)), test, seeds, n)


def _drawn(pool: data.Examples, test: data.Examples, seeds: Sequence[int], n: int) -> Parts:
    rows = np.stack([np.random.default_rng([seed, 1]).permutation(len(pool.labels))[:n] for seed in seeds])
    return Parts(np.asarray(pool.images[rows]), pool.labels[rows], np.asarray(test.images), test.labels)


def flipped(parts: Parts, share: float, seeds: Sequence[int]) -> Parts:
    """The data with a share of the training labels replaced by another of the ten classes, drawn uniformly."""
    y = parts.y.copy()
    for row, seed in zip(y, seeds, strict=True):
        rng = np.random.default_rng([seed, 2])
        wrong = rng.permutation(len(row))[: round(share * len(row))]
        row[wrong] = (row[wrong] + rng.integers(1, 10, len(wrong))) % 10
    return parts._replace(y=y)


def mlp(key: jax.Array, sizes: Sequence[int]) -> list[tuple[jax.Array, jax.Array]]:
    """Initial weights and biases."""
    keys = jax.random.split(key, len(sizes) - 1)
    pairs = zip(keys, sizes[:-1], sizes[1:], strict=True)
    return [(jax.random.normal(key, (a, b)) * np.float32(np.sqrt(2 / a)), jnp.zeros(b)) for key, a, b in pairs]


def logits(params: Any, x: jax.Array) -> jax.Array:
    """The logits of an MLP with ReLU."""
    for kernel, bias in params[:-1]:
        x = jax.nn.relu(x @ kernel + bias[None])
    return x @ params[-1][0] + params[-1][1][None]


class Training(NamedTuple):
    """A training with everything fixed except the method.

    Attributes:
      start: `key -> params`.
      logits_fn: `(params, x) -> logits`.
      epochs: passes over the examples.
      batch: examples per step.
    """

    start: Callable[[jax.Array], Any]
    epochs: int
    batch: int
    logits_fn: Callable[[Any, jax.Array], jax.Array] = logits

    def steps(self, examples: int) -> int:
        """Number of steps."""
        return self.epochs * (examples // self.batch)


def classifier(dataset: str, hidden: Sequence[int], epochs: int) -> Training:
    """An MLP with ReLU on the images of a data set, 100 examples per step."""
    sizes = (64 if dataset == "digits" else 196, *hidden, 10)
    return Training(lambda key: mlp(key, sizes), epochs, 100)


Watch = Callable[[Any], Any]


class Runs(NamedTuple):
    """The inputs of the trainings, with the seeds as the first axis: weights, examples of each step, and a key."""

    start: Any
    order: Any
    key: jax.Array
    x: Any
    y: Any


def runs(training: Training, parts: Parts, seeds: Sequence[int]) -> Runs:
    """Drawn outside of the compiled trainings, which makes these programs smaller."""
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    examples = parts.y.shape[1]
    steps = examples // training.batch
    rows = np.tile(np.arange(examples), (training.epochs, 1))
    shuffled = [np.random.default_rng([seed, 4]).permuted(rows, axis=1) for seed in seeds]
    order = np.stack(shuffled)[..., : steps * training.batch].reshape(len(seeds), -1, steps, training.batch)
    start, key = jax.jit(jax.vmap(lambda key: (training.start(key), jax.random.fold_in(key, 1))))(keys)
    return Runs(start, order.astype(np.int32), key, parts.x, parts.y)


def fit(
    training: Training,
    method: optax.GradientTransformation,
    rate: jax.typing.ArrayLike,
    run: Runs,
    *,
    decay: float | jax.Array = 0.0,
    watch: Watch | None = None,
) -> tuple[Any, Any]:
    """Train one seed with a method followed by momentum SGD with a cosine learning rate.

    Returns the last parameters, and the values of `watch` after each epoch.
    """
    schedule = lambda step: rate * (1 + jnp.cos(jnp.pi * step / training.steps(len(run.y)))) / 2
    base = optax.chain(optax.add_decayed_weights(decay), optax.sgd(schedule, momentum=MOMENTUM))
    tx = optax.with_extra_args_support(optax.chain(method, base))

    def step(carry, rows):
        params, state = carry
        x, y = run.x[rows], run.y[rows]
        losses_fn = lambda p: optax.softmax_cross_entropy_with_integer_labels(training.logits_fn(p, x), y)
        grad_fn = jax.grad(lambda p: jnp.mean(losses_fn(p)))
        more = {"losses_fn": losses_fn, "logits_fn": lambda p: training.logits_fn(p, x), "labels": y}
        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn, **more)
        return (optax.apply_updates(params, updates), state), None

    def epoch(carry, order):
        carry, _ = jax.lax.scan(step, carry, order)
        return carry, () if watch is None else watch(carry[0])

    (params, _), seen = jax.lax.scan(epoch, (run.start, tx.init(run.start)), run.order)
    return params, seen


def accuracy(training: Training, params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """Percentage of correct answers; NaN if the network diverged."""
    found = training.logits_fn(params, x)
    return jnp.where(jnp.all(jnp.isfinite(found)), 100 * jnp.mean(jnp.argmax(found, axis=-1) == y), jnp.nan)


def compiled(
    training: Training, make: Callable[..., optax.GradientTransformation], parts: Parts, seeds: Sequence[int]
) -> Callable[..., np.ndarray]:
    """`(rate, decay, **knobs) -> accuracy` in percent on the test examples, [seeds], compiled once.

    `make(key, **knobs)` creates the method; `key` is for its random numbers.
    """

    @jax.jit
    def measure(rate, decay, knobs: Mapping[str, Any], each: Runs, test_x: jax.Array, test_y: jax.Array):
        def one(run: Runs) -> jax.Array:
            params, _ = fit(training, make(run.key, **knobs), rate, run, decay=decay)
            return accuracy(training, params, test_x, test_y)

        return jax.lax.map(one, each)

    given = jax.tree.map(jnp.asarray, (runs(training, parts, seeds), parts.test_x, parts.test_y))
    return lambda rate, decay=0.0, **knobs: np.asarray(measure(rate, decay, knobs, *given))
