"""CIFAR-10 and CIFAR-100 from the binary archives of their authors.

The Python archives are pickles, and reading a pickle can run code, so they are not read.
"""

import tarfile
import zlib
from pathlib import Path

import numpy as np

from experiments.config.errors import UsageError, first_line
from experiments.data.examples import Dataset, Examples
from experiments.data.sources.files import Folder, largest

PIXELS = 3 * 32 * 32
URL = "https://www.cs.toronto.edu/~kriz/"


def cifar10(folder: Folder) -> Dataset:
    """`cifar-10-binary.tar.gz`: for each image one byte of label and 3072 bytes of pixels."""
    train, test = [f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"]
    return _archive(folder, "cifar-10-binary.tar.gz", "cifar-10-batches-bin", [train, test], 10, "cifar10")


def cifar100(folder: Folder) -> Dataset:
    """`cifar-100-binary.tar.gz`: for each image one byte of superclass, one of class, and 3072 of pixels."""
    return _archive(
        folder, "cifar-100-binary.tar.gz", "cifar-100-binary", [["train.bin"], ["test.bin"]], 100, "cifar100"
    )


def _archive(folder: Folder, file: str, inside: str, parts: list[list[str]], classes: int, family: str) -> Dataset:
    instead = f"; it comes from {URL}{file} (the -python archive is a pickle and not read); tfds:{family} is a copy"
    path = folder.find(family, file, instead=instead + ", cifar10_jpeg another" * (classes == 10))
    folder.verify(file, path)
    members = _members(path)
    train, test = (
        np.concatenate([_rows(path, members, f"{inside}/{m}", 2 if classes == 100 else 1) for m in part])
        for part in parts
    )
    return Dataset(_examples(train), _examples(test), classes, "crop_flip", family)


def _members(path: Path) -> dict[str, bytes]:
    try:
        members, left = {}, largest(path)
        with tarfile.open(path) as archive:
            for member in archive:
                left -= member.size
                if left < 0:
                    raise ValueError(f"{member.name} makes it unpack to more than {largest(path) >> 20} MB")
                file = archive.extractfile(member) if member.isreg() and member.name.endswith(".bin") else None
                if file:
                    members[member.name] = file.read()
        return members
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        raise UsageError(f"{path}: cannot be unpacked ({first_line(error)}); fetch the file again") from error


def _rows(path: Path, members: dict[str, bytes], name: str, label_bytes: int) -> np.ndarray:
    """[images, class and pixels] of one member."""
    raw, width = members.get(name, b""), label_bytes + PIXELS
    if not raw or len(raw) % width:
        raise UsageError(f"{path}: {name} holds {len(raw)} bytes, expected images of {width} bytes")
    return np.frombuffer(raw, np.uint8).reshape(-1, width)[:, label_bytes - 1 :]


def _examples(rows: np.ndarray) -> Examples:
    images = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Examples(np.ascontiguousarray(images), rows[:, 0].astype(np.int32), np.arange(len(rows)))
