"""The folder of the data files: finding each file, and checking whether it is the published one."""

import hashlib
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.config.errors import UsageError, first_line
from experiments.data.sources.checksums import PUBLISHED


class Folder(NamedTuple):
    """The folder from which files are read.

    Attributes:
      path: contains a folder for each data set, or the files of one; None if no folder was given, in which case only
        absolute paths work.
      checksum: whether a file that differs from the published one is refused.
    """

    path: Path | None
    checksum: bool = True

    def find(self, folder: str, file: str, *, instead: str = "") -> Path:
        """The file, gzipped or not; if there is none, a `UsageError` that says what to do `instead`."""
        if self.path is None and not Path(file).is_absolute():
            raise UsageError(f"{file}: no data folder given; pass --data-dir or set PUGD_DATA_DIR")
        root = self.path or Path()
        ends = ("",) if file.endswith((".gz", ".npz")) else ("", ".gz")
        for path in (place / (file + end) for place in (root / folder, root) for end in ends):
            if path.is_file():
                return path
        packed = f"{file}.gz or " if len(ends) > 1 else ""
        nor = f", nor {packed}in {root} itself" if folder else ""
        raise UsageError(f"{root / folder / file}: no such file{nor}{instead}")

    def verify(self, key: str, path: Path, content: Any = None) -> None:
        """Refuse content (by default that of the file) that differs from what was published under this key."""
        if not self.checksum:
            return
        kind, _, expected = PUBLISHED[key].partition(":")
        content = path.read_bytes() if content is None else content
        if hashlib.new(kind, content, usedforsecurity=False).hexdigest() != expected:
            raise UsageError(f"{path}: not the published file ({kind} differs); fetch it again, or pass --no-checksum")


def largest(path: Path) -> int:
    """The maximum unpacked size of a file in bytes: 1 GiB, or a hundred times its size, far more than images need."""
    return max(2**30, 100 * path.stat().st_size)


def read_npz(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Arrays by name; nothing in the file is executed."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(archive.getinfo(f"{name}.npy").file_size for name in names)
        if size > largest(path):
            raise ValueError(f"it would unpack to {size >> 20} MB")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except Exception as error:  # numpy and zipfile raise a dozen kinds of errors for a damaged file
        raise UsageError(f"{path}: cannot be read as npz with {', '.join(names)} ({first_line(error)})") from error
