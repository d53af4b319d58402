"""Files that readers never see half of, and the folder of what is kept between runs."""

import os
import tempfile
from pathlib import Path

import numpy as np

from experiments.config.errors import UsageError


def write_whole(path: Path, text: str) -> None:
    """Whole or not at all: readers never see half a file."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def cache_folder() -> Path:
    """`$PUGD_CACHE_DIR`, or `~/.cache/pugd_optax`."""
    return Path(os.environ.get("PUGD_CACHE_DIR") or Path.home() / ".cache" / "pugd_optax")


def write(path: Path, array: np.ndarray) -> None:
    """Write an array whole or not at all, whoever else writes the same file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            try:
                np.save(file, array)
                file.close()
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise UsageError(f"PUGD_CACHE_DIR: {error}; name a folder with {array.nbytes >> 20} MB to spare") from error
