"""IDX, the format of MNIST and Fashion-MNIST."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from experiments.config.errors import UsageError
from experiments.data.examples import Dataset, Examples
from experiments.data.sources.files import Folder


def idx_set(folder: Folder, name: str, family: str) -> Dataset:
    """Four files, `train-` and `t10k-`, images and labels, in the folder `name`."""

    def read(file: str) -> np.ndarray:
        path = folder.find(name, file)
        array = read_idx(path)
        folder.verify(f"{name}/{file}", path, np.ascontiguousarray(array))
        return array

    def part(prefix: str) -> Examples:
        images, labels = read(f"{prefix}-images-idx3-ubyte"), read(f"{prefix}-labels-idx1-ubyte")
        return Examples(images[..., None], labels.astype(np.int32))

    return Dataset(part("train"), part("t10k"), 10, "none", family)


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file of unsigned bytes, gzipped or not."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, OSError, zlib.error) as error:
        raise UsageError(f"{path}: cannot be unpacked ({error}); fetch the file again") from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or len(raw) < 4 + 4 * raw[3]:
        raise UsageError(f"{path}: not an IDX file of unsigned bytes")
    start = 4 + 4 * raw[3]
    shape = np.frombuffer(raw[4:start], ">i4").tolist()
    if len(raw) - start != math.prod(shape):
        raise UsageError(f"{path}: {len(raw) - start} bytes of data, the header says {shape}; fetch the file again")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)
