"""Data sets in `.npz` files."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np

from experiments.config.errors import UsageError
from experiments.data.examples import Dataset, Examples, as_labels
from experiments.data.images import encoded
from experiments.data.sources.files import Folder, read_npz

OWN = ("x_train", "y_train", "x_test", "y_test")


def own_set(folder: Folder, file: str) -> Dataset:
    """A user's file: arrays `x_train`, `y_train`, `x_test`, `y_test`, images uint8 [n, h, w] or [n, h, w, c].

    The number of classes follows from the highest label, and is at most the number of training examples.
    """
    path = folder.find("", file)
    arrays = read_npz(path, OWN)
    images = [_channels_last(f"{file}: {k}", arrays[k]) for k in OWN[::2]]
    highest = max(
        (int(arrays[k].max()) for k in OWN[1::2] if arrays[k].dtype.kind in "iu" and arrays[k].size), default=1
    )
    classes = max(2, min(highest + 1, arrays["y_train"].size))  # each class needs a training example
    train, test = (
        Examples(x, as_labels(f"{file}: {k}", arrays[k], classes)) for x, k in zip(images, OWN[1::2], strict=True)
    )
    return Dataset(train, test, classes, "none", version=_version(path))


def _version(path: Path) -> str:
    """The checksums of the arrays, which the archive holds: those of a copy, or of a file packed again, are equal."""
    with zipfile.ZipFile(path) as archive:
        return " ".join(f"{archive.getinfo(name + '.npy').CRC:08x}" for name in OWN)


def _channels_last(name: str, images: np.ndarray) -> np.ndarray:
    """Images with an axis of channels; square images whose channels come first are refused, not taken for rows."""
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[2] == images.shape[3] > 4:
        raise UsageError(f"{name} {list(images.shape)} has its channels first; save it as x.transpose(0, 2, 3, 1)")
    return images[..., None] if images.ndim == 3 else images


def first_4000(folder: Folder) -> Dataset:
    """The first 4000 training images of CIFAR-10, uncompressed; the last 1000 of them are the test set."""
    path = folder.find("cifar10-lossless-4000", "cifar10_train_first4000.npz")
    folder.verify("cifar10_train_first4000.npz", path)
    arrays = read_npz(path, ("image", "label"))
    labels = as_labels(f"{path}: label", arrays["label"], 10)
    if len(arrays["image"].shape) != 4 or len(arrays["image"]) != len(labels):
        raise UsageError(f"{path}: images {list(arrays['image'].shape)}, labels {list(labels.shape)}; fetch it again")
    examples = Examples(arrays["image"], labels, np.arange(len(labels)))
    return Dataset(examples.take(slice(-1000)), examples.take(slice(-1000, None)), 10, "crop_flip", "cifar10")


def jpeg_set(folder: Folder, name: str, file: str, train_rows: int, num_classes: int, family: str) -> Dataset:
    """Concatenated JPEG files, training images first: arrays `jpeg` uint8 [bytes], `offset` [n + 1], `label` [n]."""
    path = folder.find(name, file)
    raw = path.read_bytes()
    folder.verify(file, path, raw)
    arrays = read_npz(path, ("jpeg", "offset", "label"))
    content, offset, labels = (
        arrays["jpeg"],
        arrays["offset"],
        as_labels(f"{path}: label", arrays["label"], num_classes),
    )
    for key, array, kinds in (("jpeg", content, "u"), ("offset", offset, "iu")):
        if array.ndim != 1 or array.dtype.kind not in kinds or (key == "jpeg" and array.itemsize > 1):
            raise UsageError(f"{path}: {key} is {array.dtype} {list(array.shape)}, expected numbers of one axis")
    if len(labels) <= train_rows or len(offset) != len(labels) + 1:
        raise UsageError(f"{path}: {len(labels)} labels, {len(offset)} offsets, expected more than {train_rows} images")
    if offset[0] != 0 or offset[-1] != len(content) or (offset[1:] < offset[:-1]).any():
        raise UsageError(f"{path}: the offsets go from {offset[0]} to {offset[-1]}, the data to {len(content)}")
    files, key = Joined(content, offset.astype(np.int64)), hashlib.sha256(raw).hexdigest()[:16]
    images = encoded(files, len(labels), str(path), key)
    examples = Examples(images, labels, np.arange(len(labels)))
    train, test = examples.take(slice(train_rows)), examples.take(slice(train_rows, None))
    return Dataset(train, test, num_classes, "crop_flip", family)


class Joined:
    """Files concatenated in one array."""

    def __init__(self, content: np.ndarray, offset: np.ndarray):
        self.content, self.offset = content, offset

    def __getitem__(self, number: int) -> bytes:
        return self.content[self.offset[number] : self.offset[number + 1]].tobytes()
