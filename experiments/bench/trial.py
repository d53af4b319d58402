"""A short training run with its steps compiled once: seed, learning rate and strength are arguments."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments import data
from experiments.bench.arms import Arm
from experiments.config.specs import spec
from experiments.data import corruption
from experiments.models.functional import Network, network

BATCH, TRAIN, VAL = 50, 500, 400


class Examples(NamedTuple):
    """Normalised images and integer labels on the device."""

    images: jax.Array
    labels: jax.Array


class Trial(NamedTuple):
    """An arm ready to run.

    Attributes:
      plan: bool [steps], the active steps.
      start: `seed -> (params, state)`.
      steps: the compiled step of each kind, by `active`.
      flops: operations of a whole run.
    """

    plan: np.ndarray
    start: Callable[[int], tuple[Any, Any]]
    steps: dict[bool, Callable[..., Any]]
    flops: float


def prepare(arm: Arm, epochs: int) -> Trial:
    """Compile the steps of an arm for runs of that many epochs."""
    total = epochs * arm.epochs * (TRAIN // BATCH)
    plan = arm.plan(total)

    def chain(rate: Any, strength: Any) -> optax.GradientTransformationExtraArgs:
        schedule = optax.cosine_decay_schedule(rate, total)
        return optax.chain(arm.method(strength, total), optax.add_decayed_weights(5e-4), optax.sgd(schedule, 0.9))

    def start(seed: int) -> tuple[Any, Any]:
        params = initial(seed)
        return params, chain(0.1, arm.strengths[0]).init(params)

    @functools.partial(jax.jit, static_argnames="active", donate_argnums=(0, 1))
    def step(params, state, train: Examples, chosen, rate, strength, *, active: bool):
        images, labels = train.images[chosen], train.labels[chosen]
        grads = jax.grad(lambda p: _losses(p, images, labels).mean())(params)
        second = arm.second(_losses, params, images, labels)
        updates, state = chain(rate, strength).update(grads, state, params, grad_fn=second, active=active)
        return optax.apply_updates(params, updates), state

    sample = (*start(0), load(0)[0], np.zeros(BATCH, np.int32), 0.1, arm.strengths[0])
    steps = {active: step.lower(*sample, active=active).compile() for active in map(bool, np.unique(plan))}
    flops = sum((steps[bool(active)].cost_analysis() or {}).get("flops", np.nan) for active in plan)
    return Trial(plan, start, steps, flops)


def run(trial: Trial, seed: int, rate: float, strength: float) -> tuple[Any, float]:
    """Train one seed; returns the last parameters and the seconds of its steps."""
    (params, state), train = trial.start(seed), load(seed)[0]
    order = np.random.default_rng([seed, 4])
    epochs = [order.permutation(TRAIN).astype(np.int32) for _ in range(len(trial.plan) * BATCH // TRAIN)]
    jax.block_until_ready((params, state))
    begun = time.perf_counter()
    for chosen, active in zip(np.concatenate(epochs).reshape(-1, BATCH), trial.plan, strict=True):
        params, state = trial.steps[bool(active)](params, state, train, chosen, rate, strength)
    jax.block_until_ready(params)
    return params, time.perf_counter() - begun


@functools.cache
def load(seed: int) -> tuple[Examples, Examples, Examples]:
    """Training examples with a fifth of the labels wrong, validation examples, test examples."""
    dataset = data.load(spec("digits"), None)
    train, val, test = data.divide(dataset, TRAIN, VAL, seed)
    train = train._replace(labels=corruption.noisy_labels(train.labels, corruption.symmetric(0.2), 10, seed))
    mean, std = (f(np.asarray(train.images), (0, 1, 2)) for f in (np.mean, np.std))
    normal = lambda part: jnp.asarray((np.asarray(part.images) - mean) / (std + 1e-6), jnp.float32)
    return tuple(Examples(normal(part), jnp.asarray(part.labels)) for part in (train, val, test))  # pyright: ignore


@jax.jit
def accuracy(params: Any, examples: Examples) -> jax.Array:
    """Share of the examples that are classified as labelled."""
    return jnp.mean(logits(params, examples.images).argmax(-1) == examples.labels)


def initial(seed: int) -> Any:
    """Parameters to start from."""
    return _network().init(seed)[0]


def logits(params: Any, images: jax.Array) -> jax.Array:
    """Logits of images."""
    net = _network()
    return nnx.merge(net.graphdef, params, jax.eval_shape(net.init, 0)[1])(images)


def _network() -> Network:
    return network("resnet8", (8, 8, 1), 10, "group", "float32")


def _losses(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, images), labels)
