"""A cache on disk for data that is slow to read, mainly decoded images."""

import numpy as np
from PIL import Image

from experiments.config.errors import UsageError
from experiments.data.examples import Dataset, Examples
from experiments.data.images import Encoded
from experiments.files import cache_array, cache_folder, cached_array

LARGEST = 4 * 2**30


def streamed(dataset: Dataset, stream: str) -> bool:
    """Whether batches are read from the host: if `stream` is `on`, or `auto` and the images are too large.

    Images of different sizes are always read from the host, because they are cropped at random as they are read.

    Raises:
      UsageError: if `stream` is `off` for these.
    """
    images = dataset.train.images
    if isinstance(images, Encoded) and images.resize:
        if stream == "off":
            raise UsageError("--stream off: these images are cropped at random as they are read; leave it out")
        return True
    size = sum(int(np.prod(part.images.shape, dtype=np.int64)) for part in (dataset.train, dataset.test))
    return stream == "on" or (stream == "auto" and size > LARGEST)


def resident(examples: Examples) -> Examples:
    """The examples with decoded images, memory-mapped from the cache, which is filled first."""
    images = examples.images
    if isinstance(images, np.ndarray):
        return examples
    return examples._replace(images=_kept(images) if images.key else images.decode_all())


def _kept(images: Encoded) -> np.ndarray:
    # another JPEG library may decode a pixel by one grey level differently
    name = f"{images.key}-{images.numbers[0]}-{images.numbers[-1]}-pillow{Image.__version__}.npy"
    path = cache_folder() / "decoded" / name
    if not path.exists():
        cache_array(path, images.decode_all())
    array = cached_array(path, mmap_mode="r")
    if array.shape != images.shape:
        raise UsageError(f"{path}: shape {array.shape} in the cache, expected {images.shape}; delete it")
    return array
