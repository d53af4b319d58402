"""Files written atomically (a reader sees the old or the new content, never a part), and the cache folder."""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from experiments.config.errors import UsageError

WIDTH = 120
"""Maximum width of an object on one line of a JSON file."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder; it replaces `path` when the block ends, and is removed if it raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield part
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def sync(file: IO[Any]) -> None:
    """Wait until the written data is on the disk, so that it survives a power failure."""
    file.flush()
    os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write text atomically."""
    with replacing(path) as part, part.open("w") as file:
        file.write(text)
        sync(file)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, in the layout of `compact_json`."""
    write_text(path, compact_json(content) + "\n")


def compact_json(content: Any, depth: int = 0) -> str:
    """JSON in which lists of numbers, and anything else that is short, stay on one line.

    Example:
      >>> print(compact_json({"seeds": [1, 2], "note": 90 * "-", "row": {"mean": 2.0}}))
      {
       "seeds": [1, 2],
       "note": "------------------------------------------------------------------------------------------",
       "row": {"mean": 2.0}
      }
    """
    line = json.dumps(content)
    nested = isinstance(content, dict) or (
        isinstance(content, list | tuple) and any(isinstance(x, dict | list | tuple) for x in content)
    )
    if not nested or len(line) + depth < WIDTH:
        return line
    indent = "\n" + " " * (depth + 1)
    if isinstance(content, dict):
        parts = [f"{json.dumps(str(k))}: {compact_json(v, depth + 1)}" for k, v in content.items()]
    else:
        parts = [compact_json(x, depth + 1) for x in content]
    opening, closing = "{}" if isinstance(content, dict) else "[]"
    return opening + indent + ("," + indent).join(parts) + "\n" + " " * depth + closing


def cache_folder() -> Path:
    """`$PUGD_CACHE_DIR`, or `~/.cache/pugd_optax`."""
    return Path(os.environ.get("PUGD_CACHE_DIR") or Path.home() / ".cache" / "pugd_optax")


def cached_array(path: Path, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """An array written by `cache_array`.

    Raises:
      UsageError: if it is damaged.
    """
    try:
        return np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UsageError(f"{path}: broken file in the cache ({error}); delete it") from error


def cache_array(path: Path, array: np.ndarray) -> None:
    """Write an array below the cache folder atomically.

    Raises:
      UsageError: if it cannot be written, for example on a full disk.
    """
    try:
        with replacing(path) as part, part.open("wb") as file:
            np.save(file, array)
            sync(file)
    except OSError as error:
        raise UsageError(f"PUGD_CACHE_DIR: {error}; name a folder with {array.nbytes >> 20} MB to spare") from error
