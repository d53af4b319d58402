"""Images and labels: read from files, checked, and split into training, validation and test examples.

docs/pages/data.md describes which files are read. Each name stands for one copy of a data set, so that the name tells
which copy was read.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.config.specs import Spec
from experiments.data.cache import resident, streamed as streamed
from experiments.data.divide import divide as divide, divide_by_class as divide_by_class
from experiments.data.examples import Dataset as Dataset, Examples as Examples, Split as Split, check
from experiments.data.images import Encoded as Encoded
from experiments.data.sources.cifar import cifar10, cifar100
from experiments.data.sources.digits import digits
from experiments.data.sources.files import Folder
from experiments.data.sources.idx import idx_set
from experiments.data.sources.npz import first_4000, jpeg_set, own_set
from experiments.data.sources.tfds import tfds_set


def _fixed(loader: Callable[..., Dataset], *args: Any) -> Callable[..., Dataset]:
    """A loader of one data set, without options."""
    return lambda folder: loader(folder, *args)


LOADERS: dict[str, Callable[..., Dataset]] = {
    "digits": digits,
    "mnist": _fixed(idx_set, "mnist", "mnist"),
    "fashion_mnist": _fixed(idx_set, "fashion-mnist", "fashion_mnist"),
    "cifar10": cifar10,
    "cifar100": cifar100,
    "cifar10_jpeg": _fixed(jpeg_set, "cifar10-jpeg", "cifar10_jpeg.npz", 50_000, 10, "cifar10"),
    "cifar10_4000": first_4000,
    "tiny_imagenet_32": _fixed(
        jpeg_set, "tiny-imagenet-32-jpeg", "tiny_imagenet_32_jpeg.npz", 100_000, 200, "tiny_imagenet"
    ),
    "npz": own_set,
    "tfds": tfds_set,
}


def load(source: Spec, data_dir: Path | None, checksum: bool = True, stream: str = "auto") -> Dataset:
    """The data set with this name; shapes, types, ranges and, if known, the checksum are checked.

    Args:
      source: one of `LOADERS`, with `FILE` or `NAME` if it takes one.
      data_dir: the folder with the files of all data sets, or of this one; not needed for digits.
      checksum: whether files that differ from the published ones are refused.
      stream: `on` keeps images encoded and decodes them batch by batch; `off` decodes all of them; `auto` decodes all
        of them if they fit.

    Raises:
      UsageError: if the name is unknown, a file is missing or damaged, or its content is invalid.
    """
    dataset = source.build("data set", LOADERS, fills={"folder": Folder(data_dir, checksum)})
    check(source.text, dataset)
    if streamed(dataset, stream):
        return dataset
    return dataset._replace(train=resident(dataset.train), test=resident(dataset.test))
