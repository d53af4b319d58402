"""Data sets in `.npz` files."""

import hashlib

import numpy as np

from experiments.config.errors import UsageError
from experiments.data.examples import Dataset, Examples
from experiments.data.images import encoded
from experiments.data.sources.files import Folder, read_npz

OWN = ("x_train", "y_train", "x_test", "y_test")


def own_set(folder: Folder, file: str) -> Dataset:
    """A file of one's own: arrays `x_train`, `y_train`, `x_test`, `y_test`, images uint8 [n, h, w] or [n, h, w, c]."""
    arrays = read_npz(folder.find("", file), OWN)
    images = [arrays[k][..., None] if arrays[k].ndim == 3 else arrays[k] for k in OWN[::2]]
    for name in OWN[1::2]:
        if arrays[name].dtype.kind not in "iu":
            raise UsageError(f"{file}: {name} is {arrays[name].dtype}, expected whole numbers from 0 on")
    labels = [arrays[k].reshape(-1).astype(np.int32) for k in OWN[1::2]]
    train, test = (Examples(x, y) for x, y in zip(images, labels, strict=True))
    return Dataset(train, test, int(max(y.max(initial=1) for y in labels)) + 1, "none")


def first_4000(folder: Folder) -> Dataset:
    """The first 4000 training images of CIFAR-10, exact; the last 1000 of them serve as test set."""
    path = folder.find("cifar10-lossless-4000", "cifar10_train_first4000.npz")
    folder.verify("cifar10_train_first4000.npz", path)
    arrays = read_npz(path, ("image", "label"))
    examples = Examples(arrays["image"], arrays["label"].astype(np.int32), np.arange(len(arrays["label"])))
    return Dataset(examples.take(slice(-1000)), examples.take(slice(-1000, None)), 10, "crop_flip", "cifar10")


def jpeg_set(folder: Folder, name: str, file: str, train_rows: int, num_classes: int, family: str) -> Dataset:
    """JPEG files end to end, the training images first: arrays `jpeg` uint8 [bytes], `offset` [n + 1], `label` [n]."""
    path = folder.find(name, file)
    raw = path.read_bytes()
    folder.verify(file, path, raw)
    arrays = read_npz(path, ("jpeg", "offset", "label"))
    offset, labels = arrays["offset"], arrays["label"].astype(np.int32)
    if len(labels) <= train_rows or len(offset) != len(labels) + 1:
        raise UsageError(f"{path}: {len(labels)} labels, {len(offset)} offsets, expected more than {train_rows} images")
    if offset[0] != 0 or offset[-1] != len(arrays["jpeg"]) or (np.diff(offset) < 0).any():
        raise UsageError(f"{path}: the offsets go from {offset[0]} to {offset[-1]}, the data to {len(arrays['jpeg'])}")
    images = encoded(Joined(arrays["jpeg"], offset), len(labels), key=hashlib.sha256(raw).hexdigest()[:16])
    examples = Examples(images, labels, np.arange(len(labels)))
    train, test = examples.take(slice(train_rows)), examples.take(slice(train_rows, None))
    return Dataset(train, test, num_classes, "crop_flip", family)


class Joined:
    """Files end to end in one array."""

    def __init__(self, content: np.ndarray, offset: np.ndarray):
        self.content, self.offset = content, offset

    def __getitem__(self, number: int) -> bytes:
        return self.content[self.offset[number] : self.offset[number + 1]].tobytes()
