"""Images and labels: read from files, checked, and divided into training, validation and test examples."""

import gzip
import io
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.names import UsageError, pick


class Examples(NamedTuple):
    """`images` uint8 [n, height, width, channels] and `labels` int32 [n]."""

    images: np.ndarray
    labels: np.ndarray

    def take(self, index: np.ndarray | slice) -> "Examples":
        """The examples at these positions."""
        return Examples(self.images[index], self.labels[index])


class Dataset(NamedTuple):
    """Examples to train on and the test set; `augment` is the augmentation the set is commonly used with."""

    train: Examples
    test: Examples
    num_classes: int
    augment: str


class Split(NamedTuple):
    """What one run works with. The test examples are read once, when it has ended."""

    train: Examples
    val: Examples
    test: Examples


def load(name: str, data_dir: Path | None) -> Dataset:
    """The data set of that name, checked by shape, type and range.

    Args:
      name: one of `LOADERS`.
      data_dir: the folder that holds the files of every set, or those of this one; digits need none.

    Raises:
      UsageError: if the name is unknown, a file is missing or broken, or its content is not what it should be.
    """
    read = pick("data set", name, LOADERS)
    dataset = read(data_dir)
    for examples in (dataset.train, dataset.test):
        _check(name, examples, dataset.num_classes)
    return dataset


def divide(dataset: Dataset, train_size: int | None, val_size: int | None, seed: int) -> Split:
    """Draw validation and training examples from the training data; the test set stays what it is."""
    order = np.random.default_rng([seed, 1]).permutation(len(dataset.train.labels))
    return _cut(dataset, order, train_size, val_size)


def divide_by_class(dataset: Dataset, train_size: int | None, val_size: int | None, seed: int) -> Split:
    """As `divide`, but each class gives the same share, so that every seed leaves as many of it."""
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
        raise UsageError(f"{train} training and {val} validation examples asked of {available}")
    return Split(dataset.train.take(order[val : val + train]), dataset.train.take(order[:val]), dataset.test)


def _check(name: str, examples: Examples, num_classes: int) -> None:
    images, labels = examples
    if images.ndim != 4 or images.dtype != np.uint8:
        raise UsageError(f"{name}: expected uint8 images [n, h, w, c], found {images.dtype} {list(images.shape)}")
    if len(images) != len(labels):
        raise UsageError(f"{name}: {len(images)} images but {len(labels)} labels")
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise UsageError(f"{name}: labels from {labels.min()} to {labels.max()}, expected 0 to {num_classes - 1}")


def _digits(data_dir: Path | None) -> Dataset:
    """1797 digits of 8x8 pixels and 17 grey levels; 1000 to train on, 797 to test, drawn once for all."""
    from sklearn.datasets import load_digits

    del data_dir
    pixels, labels = load_digits(return_X_y=True)
    images = (np.asarray(pixels) * 15).astype(np.uint8).reshape(-1, 8, 8, 1)
    order = np.random.default_rng(0).permutation(len(images))
    examples = Examples(images, np.asarray(labels).astype(np.int32)).take(order)
    return Dataset(examples.take(slice(1000)), examples.take(slice(1000, None)), 10, "none")


def _idx_set(folder: str, augment: str) -> Callable[[Path | None], Dataset]:
    def read(data_dir: Path | None) -> Dataset:
        def part(prefix: str) -> Examples:
            images = read_idx(_find(data_dir, folder, f"{prefix}-images-idx3-ubyte"))
            labels = read_idx(_find(data_dir, folder, f"{prefix}-labels-idx1-ubyte"))
            return Examples(images[..., None], labels.astype(np.int32))

        return Dataset(part("train"), part("t10k"), 10, augment)

    return read


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file of unsigned bytes, gzipped or not."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, OSError) as error:
        raise UsageError(f"{path}: cannot be unpacked ({error}); fetch the file again") from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise UsageError(f"{path}: not an IDX file of unsigned bytes")
    start = 4 + 4 * raw[3]
    shape = np.frombuffer(raw[4:start], ">i4").tolist()
    if len(raw) - start != math.prod(shape):
        raise UsageError(f"{path}: {len(raw) - start} bytes of data, the header says {shape}; fetch the file again")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _jpeg_set(folder: str, file: str, train_rows: int, num_classes: int) -> Callable[[Path | None], Dataset]:
    def read(data_dir: Path | None) -> Dataset:
        examples = read_jpegs(_find(data_dir, folder, file))
        if len(examples.labels) <= train_rows:
            raise UsageError(f"{file}: {len(examples.labels)} images, expected more than {train_rows}")
        return Dataset(
            examples.take(slice(train_rows)), examples.take(slice(train_rows, None)), num_classes, "crop_flip"
        )

    return read


def read_jpegs(path: Path) -> Examples:
    """Images stored as JPEG files end to end: arrays `jpeg` uint8 [bytes], `offset` [n + 1], `label` [n]."""
    from PIL import Image

    arrays = _read_npz(path, ("jpeg", "offset", "label"))
    raw, offset = arrays["jpeg"].tobytes(), arrays["offset"].tolist()
    if offset[0] != 0 or offset[-1] != len(raw):
        raise UsageError(f"{path}: the offsets end at {offset[-1]}, the data at {len(raw)}")
    files = (io.BytesIO(raw[a:b]) for a, b in itertools.pairwise(offset))
    return Examples(np.stack([np.asarray(Image.open(f)) for f in files]), arrays["label"].astype(np.int32))


def _first_4000(data_dir: Path | None) -> Dataset:
    """The first 4000 training images of CIFAR-10, exact; the last 1000 of them serve as test set."""
    arrays = _read_npz(_find(data_dir, "cifar10-lossless-4000", "cifar10_train_first4000.npz"), ("image", "label"))
    examples = Examples(arrays["image"], arrays["label"].astype(np.int32))
    return Dataset(examples.take(slice(-1000)), examples.take(slice(-1000, None)), 10, "crop_flip")


def _read_npz(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return {name: arrays[name] for name in names}
    except Exception as error:  # numpy and zipfile raise a dozen kinds for a broken file
        raise UsageError(f"{path}: cannot be read as npz with {', '.join(names)} ({error})") from error


def _find(data_dir: Path | None, folder: str, file: str) -> Path:
    if data_dir is None:
        raise UsageError(f"{file}: no data folder given; pass --data-dir or set PUGD_DATA_DIR")
    places = [data_dir / folder / file, data_dir / file]
    for path in (p.with_name(p.name + end) for p in places for end in ("", ".gz")):
        if path.is_file():
            return path
    raise UsageError(f"{places[0]}: no such file, nor {places[1].name}.gz or in {data_dir} itself")


LOADERS: dict[str, Callable[[Path | None], Dataset]] = {
    "digits": _digits,
    "mnist": _idx_set("mnist", "none"),
    "fashion_mnist": _idx_set("fashion-mnist", "none"),
    "cifar10": _jpeg_set("cifar10-jpeg", "cifar10_jpeg.npz", 50_000, 10),
    "cifar10_4000": _first_4000,
    "tiny_imagenet_32": _jpeg_set("tiny-imagenet-32-jpeg", "tiny_imagenet_32_jpeg.npz", 100_000, 200),
}
