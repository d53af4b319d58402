"""What is slow to read, kept on disk from one run to the next: decoded images above all."""

import numpy as np
from PIL import Image

from experiments.config.errors import UsageError
from experiments.data.examples import Dataset, Examples
from experiments.data.images import Encoded
from experiments.files import cache_array, cache_folder, cached_array

LARGEST = 4 * 2**30


def streamed(dataset: Dataset, stream: str) -> bool:
    """Whether batches are read from the host: where `stream` is `on`, or `auto` and the images fill too many bytes."""
    size = sum(int(np.prod(part.images.shape, dtype=np.int64)) for part in (dataset.train, dataset.test))
    return stream == "on" or (stream == "auto" and size > LARGEST)


def resident(examples: Examples) -> Examples:
    """The examples with their images decoded: mapped from the cache, which is filled first."""
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
