"""IDX, the format of MNIST and Fashion-MNIST."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from experiments.config.errors import UsageError
from experiments.data.examples import Dataset, Examples, as_labels
from experiments.data.sources.files import Folder, largest


def idx_set(folder: Folder, name: str, family: str) -> Dataset:
    """Four files, images and labels of `train-` and `t10k-`, in the folder `name`."""

    def read(file: str) -> np.ndarray:
        path = folder.find(name, file)
        array = read_idx(path)
        folder.verify(f"{name}/{file}", path, np.ascontiguousarray(array))
        return array

    def part(prefix: str) -> Examples:
        images, labels = read(f"{prefix}-images-idx3-ubyte"), read(f"{prefix}-labels-idx1-ubyte")
        return Examples(images[..., None], as_labels(f"{name}: {prefix}-labels", labels, 10))

    return Dataset(part("train"), part("t10k"), 10, "none", family)


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file of unsigned bytes, gzipped or not."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(4)
            axes = head[3] if head[:3] == b"\0\0\x08" and len(head) == 4 else 0
            lengths = file.read(4 * axes)
            if axes not in (1, 3) or len(lengths) < 4 * axes:
                raise UsageError(f"{path}: not an IDX file of labels or images in unsigned bytes")
            shape = np.frombuffer(lengths, ">u4").tolist()
            size = math.prod(shape)
            content = file.read(min(size, largest(path)) + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise UsageError(f"{path}: cannot be unpacked ({error}); fetch the file again") from error
    if len(content) != size:
        found = f"{'more' if len(content) > size else len(content)} bytes of data"
        raise UsageError(f"{path}: {found}, the header says {shape}; fetch the file again")
    return np.frombuffer(content, np.uint8).reshape(shape)
