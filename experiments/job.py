"""A job: what every seed of an experiment shares, prepared and checked before anything is written."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments import corrupt, data, recipe
from experiments.augment import pipeline
from experiments.config import Config
from experiments.criteria import criterion
from experiments.names import UsageError
from experiments.network import Network, network
from experiments.step import Data, Metrics, State, initial, make_step


@dataclasses.dataclass(frozen=True)
class Job:
    """One experiment, ready to train any number of seeds; nothing compiles again from seed to seed."""

    config: Config
    dataset: data.Dataset
    network: Network
    recipe: recipe.Recipe
    steps_per_epoch: int
    step: Callable[..., tuple[State, Metrics]]

    @property
    def variants(self) -> list[bool | None]:
        """The values of `active` that this run will use, each a compiled step of its own."""
        return [None] if self.recipe.plan is None else sorted(set(self.recipe.plan.tolist()))


load = functools.cache(data.load)


def prepare(config: Config) -> Job:
    """Everything that can be wrong with the settings is found here, before anything is written.

    Raises:
      UsageError: naming what is wrong.
    """
    try:
        return _prepare(config)
    except (ValueError, TypeError) as error:  # the library's own checks: one line that names the argument
        raise UsageError(f"{config.title}: {str(error).splitlines()[0]}") from error


def _prepare(config: Config) -> Job:
    dataset = load(config.dataset, config.data_dir)
    train = split(config, dataset, config.first_seed).train
    if config.batch > len(train.labels):
        raise UsageError(f"--batch {config.batch}: larger than the {len(train.labels)} training examples")
    steps_per_epoch = len(train.labels) // config.batch
    plan = recipe.build(config, steps_per_epoch=steps_per_epoch, num_classes=dataset.num_classes)
    shape, classes, unknown = train.images.shape[1:], dataset.num_classes, plan.plan is None
    net = network(config.model, shape, classes, config.norm, config.dtype, branches=unknown)
    geometry = dataset.augment if config.augment == "auto" else config.augment
    augment = pipeline(geometry, config.cutout, config.mixup, classes)
    counts, steps = class_counts(config, dataset), config.epochs * steps_per_epoch
    loss = criterion(config.loss, config.reweight, config.flooding, counts, steps)
    step = make_step(net.graphdef, plan.tx, augment, loss, drop=config.on_nan == "skip")
    job = Job(config, dataset, net, plan, steps_per_epoch, step)
    _trace(job, on_device(train.take(slice(2)), train))
    return job


def _trace(job: Job, data: Data) -> None:
    """Meet what a method says of this model while it is traced; nothing is computed."""
    state = jax.eval_shape(lambda: initial(job.recipe.tx, *job.network.init(0), seed=0))
    for active in job.variants:
        step = functools.partial(job.step, active=active)
        jax.eval_shape(step, state, data, np.zeros(job.config.batch, np.int32), jax.random.key(0), jnp.float32(0))


def split(config: Config, dataset: data.Dataset, seed: int) -> data.Split:
    """The data of one seed: the training part thinned out first, then its labels made noisy; the rest stays clean."""
    split = _thinned(config, dataset, seed)
    train = split.train
    noisy = corrupt.noisy_labels(train.labels, config.noise, dataset.num_classes, seed, config.dataset)
    return split._replace(train=train._replace(labels=noisy))


def _thinned(config: Config, dataset: data.Dataset, seed: int) -> data.Split:
    divide = data.divide if config.imbalance == "none" else data.divide_by_class
    split = divide(dataset, config.train_size, config.val_size, seed)
    kept = corrupt.long_tail(split.train.labels, config.imbalance, dataset.num_classes, seed)
    return split._replace(train=split.train.take(kept))


def class_counts(config: Config, dataset: data.Dataset) -> np.ndarray:
    """Training examples of each class before labels are made wrong, the same for every seed.

    Where the division is drawn without regard to classes, its expectation, so that no seed compiles a step of its own.
    """
    train = _thinned(config, dataset, config.first_seed).train
    count = functools.partial(np.bincount, minlength=dataset.num_classes)
    if config.imbalance != "none":
        return count(train.labels)
    return count(dataset.train.labels) * len(train.labels) / len(dataset.train.labels)


def on_device(examples: data.Examples, like: data.Examples) -> Data:
    """The examples as device arrays, with mean and deviation of the channels of `like`."""
    mean, std = (f(like.images, (0, 1, 2), keepdims=True) for f in (np.mean, np.std))
    return Data(*map(jnp.asarray, (*examples, mean.astype(np.float32), std.astype(np.float32) + 1e-6)))
