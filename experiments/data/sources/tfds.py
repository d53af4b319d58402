"""Data sets prepared by TensorFlow Datasets as ArrayRecord files, read without TensorFlow.

`tfds:NAME` reads the newest version of `NAME`, or of `NAME/CONFIG`, in the data folder; without a data folder, in that
of TFDS itself, `$TFDS_DATA_DIR` or `~/tensorflow_datasets`. Nothing is downloaded.
"""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.config.errors import UsageError, first_line
from experiments.data.examples import Dataset, Examples, as_labels
from experiments.data.images import encoded
from experiments.data.sources.files import Folder
from experiments.files import cache_array, cache_folder, cached_array


class _Habits(NamedTuple):
    """How a data set is commonly used."""

    augment: str
    test: str = "test"


SIDE = 224
"""Images of different sizes are cropped and scaled to this size."""


HABITS = {
    "cifar10": _Habits("crop_flip"),
    "cifar100": _Habits("crop_flip"),
    "svhn_cropped": _Habits("crop"),
    "imagenet_resized": _Habits("crop_flip", "validation"),
    "imagenet2012": _Habits("flip", "validation"),  # a test set without labels
}


def tfds_set(folder: Folder, name: str) -> Dataset:
    """The data set with this name, such as `cifar100` or `imagenet_resized/64x64`; images stay encoded."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UsageError(f"tfds:{name} needs the extra tfds: pip install '.[tfds]' ({error})") from error
    path, habits = _newest(_root(folder), name), HABITS.get(name.split("/")[0], _Habits("none"))
    with _reading(path):
        builder = tfds.builder_from_directory(path)
        features: Any = builder.info.features
    if not {"image", "label"} <= set(features):
        raise UsageError(f"tfds:{name}: expected the features image and label, found {', '.join(features)}")
    classes = getattr(features["label"], "num_classes", None)
    if not classes:
        raise UsageError(f"tfds:{name}: expected a ClassLabel as label, found {type(features['label']).__name__}")
    image = features["image"]
    if image.np_dtype != np.uint8:
        raise UsageError(f"tfds:{name}: expected uint8 images, found {np.dtype(image.np_dtype)}")
    family = name if name in ("cifar10", "cifar100", "mnist") else ""

    def part(split: str) -> Examples:
        if split not in builder.info.splits:
            raise UsageError(f"tfds:{name} has no split {split!r}, only {', '.join(builder.info.splits)}")
        try:
            with _reading(path, NotImplementedError):
                source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})  # pyright: ignore[reportCallIssue]
        except NotImplementedError as error:
            raise UsageError(f"{path}: not ArrayRecord files; {_command(name, path.parent)}") from error
        return _examples(source, path, split, image.shape, classes)

    return Dataset(part("train"), part(habits.test), classes, habits.augment, family, path.name)


@contextlib.contextmanager
def _reading(path: Path, *told_elsewhere: type[Exception]) -> Iterator[None]:
    try:
        yield
    except told_elsewhere:
        raise
    except Exception as error:  # json, TFDS and ArrayRecord raise a dozen kinds of errors for a damaged file
        raise UsageError(f"{path}: cannot be read ({first_line(error)}); prepare it again") from error


def _root(folder: Folder) -> Path:
    own = os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets"
    return folder.path or Path(own)


def _newest(root: Path, name: str) -> Path:
    versions = [p.parent for p in (root / name).glob("*/features.json")]
    numbered = [p for p in versions if all(x.isdecimal() for x in p.name.split("."))]
    if not numbered:
        raise UsageError(f"tfds:{name}: not prepared in {root}; {_command(name, root)}")
    return max(numbered, key=lambda p: [int(x) for x in p.name.split(".")])


def _command(name: str, root: Path) -> str:
    make = f"tfds.builder('{name}', data_dir='{root}', file_format='array_record').download_and_prepare()"
    return f'prepare it on a machine with TensorFlow: python -c "import tensorflow_datasets as tfds; {make}"'


class _Records:
    """The encoded images of a data source."""

    def __init__(self, source: Any):
        self.source = source

    def __getitem__(self, number: int) -> bytes:
        return self.source[number]["image"]


def _examples(source: Any, path: Path, split: str, shape: tuple[int | None, ...], num_classes: int) -> Examples:
    """The examples of a split; `shape` is that of every image, with None for heights and widths that differ."""
    images = encoded(_Records(source), len(source), str(path))
    differ, channels = None in shape[:2], 1 if shape[2] == 1 else 3
    size = (SIDE, SIDE) if differ else images.size[:2]
    images = dataclasses.replace(images, size=(*size, channels), resize=differ)
    labels, rows = _labels(source, path, split)
    labels = as_labels(f"{path}: label", labels, num_classes)
    return Examples(images, labels, rows if (rows >= 0).all() else None)


def _labels(source: Any, path: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels and original rows (-1 if unknown), cached, because reading them means reading all files."""
    made = hashlib.sha256(f"{path}\n{(path / 'dataset_info.json').read_text()}".encode()).hexdigest()[:16]
    cached = cache_folder() / "labels" / f"{made}-{split}.npy"
    if not cached.exists():
        with _reading(path):
            records = (source[i] for i in range(len(source)))
            found = np.array([(r["label"], _row(r.get("id"))) for r in records], np.int64).reshape(-1, 2)
        cache_array(cached, found)
    array = cached_array(cached)
    if array.shape != (len(source), 2):
        raise UsageError(f"{cached}: shape {array.shape} in the cache, expected {(len(source), 2)}; delete it")
    labels, rows = array.T
    return labels, rows


def _row(name: Any) -> int:
    """The row in `train_00042`, as TFDS names the images of CIFAR."""
    _, mark, digits = (name.decode() if isinstance(name, bytes) else str(name)).rpartition("_")
    return int(digits) if mark and digits.isdecimal() else -1
