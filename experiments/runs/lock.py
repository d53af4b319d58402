"""One training per run folder: a lock that the operating system releases when its process ends, even by `kill -9`."""

import contextlib
import errno
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from experiments.config.errors import UsageError
from experiments.runs.distributed import any_process, is_first

if sys.platform != "win32":
    import fcntl

NAME = ".lock"
WITHOUT_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""Errors of file systems without locks, such as those of some clusters."""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of the folder until the block ends; the first process holds it for all processes of the run.

    If the operating system or the file system has no locks, nothing is locked. The file is not removed, because it
    could by then belong to the next training.

    Raises:
      UsageError: in every process of this training, if another training holds the folder.
    """
    with contextlib.ExitStack() as stack:
        taken = False
        if is_first():
            folder.mkdir(parents=True, exist_ok=True)
            taken = not _lock(stack.enter_context((folder / NAME).open("w")))
        if any_process(taken):
            raise UsageError(f"{folder}: another process is training there; wait for it, or name another folder")
        yield


def wait_for(file: IO[Any]) -> None:
    """Lock an open file until it is closed, once no other process holds it."""
    _lock(file, wait=True)


def _lock(file: IO[Any], wait: bool = False) -> bool:
    """Whether the lock could be taken."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
    return True
