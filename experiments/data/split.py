"""The data of one seed: divided, thinned out, and mislabelled, in this order."""

import numpy as np

from experiments import data
from experiments.config.errors import UsageError
from experiments.config.schema import Config
from experiments.data import cifar_n, corruption


def split(config: Config, dataset: data.Dataset, seed: int) -> data.Split:
    """The training part thinned out first, then its labels made noisy; validation and test stay clean."""
    split = _thinned(config, dataset, seed)
    train, (kind, _, which) = split.train, config.noise.partition(":")
    _refuse_empty(config, dataset, train.labels)
    if kind == "human":
        noisy = cifar_n.human_labels(train, which, dataset.family, config.data_dir, config.checksum)
    else:
        noisy = corruption.noisy_labels(train.labels, config.noise, dataset.num_classes, seed, dataset.family)
    return split._replace(train=train._replace(labels=noisy))


def class_counts(config: Config, dataset: data.Dataset) -> np.ndarray:
    """Training examples of each class before labels are made wrong, the same for every seed.

    Where the division is drawn without regard to classes, its expectation, so that no seed compiles a step of its own.
    """
    train = _thinned(config, dataset, config.first_seed).train
    if config.imbalance != "none":
        return np.bincount(train.labels, minlength=dataset.num_classes)
    of_all = np.bincount(dataset.train.labels, minlength=dataset.num_classes)
    return of_all * len(train.labels) / len(dataset.train.labels)


def _thinned(config: Config, dataset: data.Dataset, seed: int) -> data.Split:
    divide = data.divide if config.imbalance == "none" else data.divide_by_class
    split = divide(dataset, config.train_size, config.val_size, seed)
    kept = corruption.long_tail(split.train.labels, config.imbalance, dataset.num_classes, seed)
    return split._replace(train=split.train.take(kept))


def _refuse_empty(config: Config, dataset: data.Dataset, labels: np.ndarray) -> None:
    """Every class is among the training examples, first of the set, then of the run."""
    for found, mend in (
        (dataset.train.labels, "number the classes from 0 without a gap"),
        (labels, "use a larger --train-size"),
    ):
        empty = np.flatnonzero(np.bincount(found, minlength=dataset.num_classes) == 0)
        if len(empty):
            more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
            what = f"no example of class {empty[0]}{more} among the {len(found)} for training"
            raise UsageError(f"--dataset {config.dataset}: {what}; {mend}")
