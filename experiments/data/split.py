"""The data of one seed: split, subsampled to a long tail, and relabelled with noise, in this order."""

import numpy as np

from experiments import data
from experiments.config.errors import UsageError
from experiments.config.schema import Config
from experiments.data import cifar_n
from experiments.data.corruption import IMBALANCES, NOISES, HumanNoise, long_tail, noisy_labels


def split(config: Config, dataset: data.Dataset, seed: int) -> data.Split:
    """Training examples, subsampled and with label noise; validation and test examples stay clean."""
    split, noise = _subsampled(config, dataset, seed), config.parts.noise.build("label noise", NOISES)
    train = split.train
    _refuse_empty(config, dataset, train.labels)
    if isinstance(noise, HumanNoise):
        labels = cifar_n.human_labels(train, noise.which, dataset.family, config.data_dir, config.checksum)
    else:
        labels = noisy_labels(train.labels, noise, dataset.num_classes, seed, dataset.family)
    return split._replace(train=train._replace(labels=labels))


def class_counts(config: Config, dataset: data.Dataset) -> np.ndarray:
    """Training examples of each class before label noise, the same for every seed.

    If the split ignores classes, these are the expected counts, so that all seeds share compiled steps.
    """
    train = _subsampled(config, dataset, config.first_seed).train
    if config.imbalance != "none":
        return np.bincount(train.labels, minlength=dataset.num_classes)
    of_all = np.bincount(dataset.train.labels, minlength=dataset.num_classes)
    return of_all * len(train.labels) / len(dataset.train.labels)


def _subsampled(config: Config, dataset: data.Dataset, seed: int) -> data.Split:
    tail, dataset = config.parts.imbalance.build("imbalance", IMBALANCES), _half(dataset, config.half)
    split = (data.divide if tail is None else data.divide_by_class)(dataset, config.train_size, config.val_size, seed)
    try:
        indices = long_tail(split.train.labels, tail, dataset.num_classes, seed)
    except ValueError as error:
        raise UsageError(f"--imbalance {config.imbalance}: {error}; use a smaller ratio") from error
    return split._replace(train=split.train.take(indices))


def _half(dataset: data.Dataset, which: str) -> data.Dataset:
    """The data set with the first or the second half of its training examples, or with both."""
    if which == "both":
        return dataset
    order = np.random.default_rng(0).permutation(len(dataset.train.labels))
    middle = len(order) // 2
    return dataset._replace(train=dataset.train.take(order[:middle] if which == "first" else order[middle:]))


def _refuse_empty(config: Config, dataset: data.Dataset, labels: np.ndarray) -> None:
    """Every class needs a training example, in the data set and in the run."""
    for found, fix in (
        (dataset.train.labels, "number the classes from 0 without a gap"),
        (labels, "use a larger --train-size"),
    ):
        empty = np.flatnonzero(np.bincount(found, minlength=dataset.num_classes) == 0)
        if len(empty):
            more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
            what = f"no example of class {empty[0]}{more} among the {len(found)} for training"
            raise UsageError(f"--dataset {config.dataset}: {what}; {fix}")
