"""Images and labels: read from files, checked, and divided into training, validation and test examples.

| `--dataset` | read from the data folder |
|---|---|
| `digits` | nothing: they are inside scikit-learn |
| `mnist`, `fashion_mnist` | the four IDX files, in `mnist/` or `fashion-mnist/` |
| `cifar10`, `cifar100` | `cifar-10-binary.tar.gz`, `cifar-100-binary.tar.gz` |
| `cifar10_jpeg` | CIFAR-10 as JPEG files of quality 75, `cifar10-jpeg/cifar10_jpeg.npz`: not the original pixels |
| `cifar10_4000` | the first 4000 images of CIFAR-10, `cifar10-lossless-4000/cifar10_train_first4000.npz` |
| `tiny_imagenet_32` | Tiny ImageNet at 32x32 as JPEG, `tiny-imagenet-32-jpeg/tiny_imagenet_32_jpeg.npz` |
| `npz:FILE` | `x_train`, `y_train`, `x_test`, `y_test` in a file of one's own, in the folder or by its absolute path |
| `tfds:NAME` | what TensorFlow Datasets has prepared as ArrayRecord files |

A plain name never stands for two copies of a set: which one was read is in its name.
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
    """A loader of one set, without options."""
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
    """The data set of that name, checked by shape, type, range and, where one is known, checksum.

    Args:
      source: one of `LOADERS`, with `FILE` or `NAME` where it takes one.
      data_dir: the folder that holds the files of every set, or those of this one; digits need none.
      checksum: whether files that differ from the published ones are refused.
      stream: `on` leaves encoded images so, to be decoded batch by batch; `off` decodes them all; `auto` decodes them
        where they fit.

    Raises:
      UsageError: if the name is unknown, a file is missing or broken, or its content is not what it should be.
    """
    dataset = source.build("data set", LOADERS, fills={"folder": Folder(data_dir, checksum)})
    check(source.text, dataset)
    if streamed(dataset, stream):
        return dataset
    return dataset._replace(train=resident(dataset.train), test=resident(dataset.test))
