"""What the C library does with memory that a step or the compiler has freed."""

import ctypes
import sys
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of glibc's malloc.h


def keep_freed() -> None:
    """Ask glibc to keep freed memory; elsewhere nothing changes.

    A step on CPU takes its temporary arrays from `malloc` and frees them again. What is larger than 32 MB goes back to
    the operating system every time, and every page of it is faulted in and cleared again: a step with 50 MB of them
    pays 14 000 faults, one with 15 MB none. That is a price of the allocator, not of a method.

    Not for small steps: all threads then share one heap with what the compiler leaves there, and two trainings side by
    side, of 8 ms a step, take 17.
    """
    change = _glibc("mallopt")
    if change is not None:
        change(_MMAP_THRESHOLD, 2**30)
        change(_TRIM_THRESHOLD, 2**31 - 1)
        change(_ARENA_MAX, 1)  # what does not fit into the arena of a thread, 64 MB, would be given back each time


def give_back() -> None:
    """Give what is free back to the system once; elsewhere nothing changes.

    The compiler leaves its memory in small pieces, among which the arrays of the steps that follow would be scattered:
    where it is kept, a small step takes up to half as long again.
    """
    give = _glibc("malloc_trim")
    if give is not None:
        give(0)


def _glibc(name: str) -> Any:
    """A function of glibc; None where there is none."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
