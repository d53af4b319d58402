"""Images with labels, and the parts of a data set."""

from typing import NamedTuple

import numpy as np

from experiments.config.errors import UsageError
from experiments.data.images import Encoded


class Examples(NamedTuple):
    """Images uint8 [n, height, width, channels], in memory or still encoded, and their labels.

    Attributes:
      images: an array, or `Encoded` files with the shape of an array.
      labels: int32 [n].
      rows: the row of each example in the original release, if label files refer to it; otherwise None.
    """

    images: np.ndarray | Encoded
    labels: np.ndarray
    rows: np.ndarray | None = None

    def take(self, index: np.ndarray | slice) -> "Examples":
        """The examples at these positions."""
        return Examples(self.images[index], self.labels[index], None if self.rows is None else self.rows[index])


class Dataset(NamedTuple):
    """Training examples and the test set.

    Attributes:
      augment: the augmentation commonly used with the data set.
      family: the data set that defines classes and rows, `cifar10` for any copy of CIFAR-10.
      version: differs between contents of the same name; empty for published files, which are compared with checksums.
    """

    train: Examples
    test: Examples
    num_classes: int
    augment: str
    family: str = ""
    version: str = ""


class Split(NamedTuple):
    """The data of one run. The test examples are read once, after training."""

    train: Examples
    val: Examples
    test: Examples


def as_labels(name: str, found: np.ndarray, num_classes: int) -> np.ndarray:
    """Labels as int32 [n], from integers of any type, [n] or [n, 1], checked before the cast.

    Raises:
      UsageError: if they are not integers from 0 to `num_classes` - 1.
    """
    if found.dtype.kind not in "iu":
        raise UsageError(f"{name} is {found.dtype}, expected whole numbers from 0 on")
    if found.ndim < 1 or found.shape[1:] not in ((), (1,)):
        raise UsageError(f"{name} has the shape {list(found.shape)}, expected one label an example")
    if found.size and not 0 <= found.min() <= found.max() < num_classes:
        raise UsageError(f"{name}: labels from {found.min()} to {found.max()}, expected 0 to {num_classes - 1}")
    return found.reshape(-1).astype(np.int32)


def check(name: str, dataset: Dataset) -> None:
    """Refuse images and labels of the wrong shape, type, number or range."""
    for images, labels, _ in (dataset.train, dataset.test):
        if len(images.shape) != 4 or images.dtype != np.uint8:
            raise UsageError(f"{name}: expected uint8 images [n, h, w, c], found {images.dtype} {list(images.shape)}")
        if 0 in images.shape[1:]:
            raise UsageError(f"{name}: images {list(images.shape[1:])}, expected at least one pixel and channel")
        if labels.ndim != 1:
            raise UsageError(f"{name}: labels of the shape {list(labels.shape)}, expected one an example")
        if len(images) != len(labels):
            raise UsageError(f"{name}: {len(images)} images but {len(labels)} labels")
        if not len(labels):
            raise UsageError(f"{name}: a part holds no example")
        if not 0 <= labels.min() <= labels.max() < dataset.num_classes:
            raise UsageError(
                f"{name}: labels from {labels.min()} to {labels.max()}, expected 0 to {dataset.num_classes - 1}"
            )
    if dataset.train.images.shape[1:] != dataset.test.images.shape[1:]:
        raise UsageError(
            f"{name}: training images {list(dataset.train.images.shape[1:])}, "
            f"test images {list(dataset.test.images.shape[1:])}"
        )
