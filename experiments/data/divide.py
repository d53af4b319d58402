"""Training and validation examples, drawn from the training data of a set."""

import numpy as np

from experiments.config.errors import UsageError
from experiments.data.examples import Dataset, Split


def divide(dataset: Dataset, train_size: int | None, val_size: int | None, seed: int) -> Split:
    """Draw validation and training examples from the training data; the test set does not change."""
    order = np.random.default_rng([seed, 1]).permutation(len(dataset.train.labels))
    return _cut(dataset, order, train_size, val_size)


def divide_by_class(dataset: Dataset, train_size: int | None, val_size: int | None, seed: int) -> Split:
    """As `divide`, but with the same share of every class, so that class counts are the same for every seed."""
    order = np.random.default_rng([seed, 1]).permutation(len(dataset.train.labels))
    labels = dataset.train.labels[order]
    place = np.empty(len(labels))
    for c in range(dataset.num_classes):
        members = np.flatnonzero(labels == c)
        place[members] = (np.arange(len(members)) + 0.5) / max(1, len(members))
    return _cut(dataset, order[np.lexsort((labels, place))], train_size, val_size)


def _cut(dataset: Dataset, order: np.ndarray, train_size: int | None, val_size: int | None) -> Split:
    available = len(order)
    val = max(1, available // 10) if val_size is None else val_size
    train = available - val if train_size is None else train_size
    if train < 1 or train + val > available:
        what = f"{train} training and {val} validation examples requested of {available}"
        raise UsageError(f"{what}; use a smaller --train-size or --val-size")
    return Split(dataset.train.take(order[val : val + train]), dataset.train.take(order[:val]), dataset.test)
