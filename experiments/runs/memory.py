"""How the C library treats memory that a step or the compiler has freed."""

import ctypes
import sys
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of glibc's malloc.h


def keep_freed() -> None:
    """Ask glibc to keep freed memory; no effect with other libraries.

    On a CPU, a step allocates its temporary arrays with `malloc` and frees them again. Blocks larger than 32 MB are
    returned to the operating system every time, and all their pages are faulted in and cleared again: a step with 50 MB
    of such arrays causes 14 000 page faults, one with 15 MB none. This is a cost of the allocator, not of a method.

    Do not use it for small steps: all threads then share one heap with the memory left by the compiler, and two
    trainings side by side, with steps of 8 ms, take 17 ms per step.
    """
    change = _glibc("mallopt")
    if change is not None:
        change(_MMAP_THRESHOLD, 2**30)
        change(_TRIM_THRESHOLD, 2**31 - 1)
        change(_ARENA_MAX, 1)  # memory beyond the arena of a thread, 64 MB, would be returned each time


def give_back() -> None:
    """Return free memory to the system once; no effect with other libraries.

    The compiler leaves its memory in small pieces, among which the arrays of the following steps would be scattered;
    without this call, a small step can take up to half as long again.
    """
    give = _glibc("malloc_trim")
    if give is not None:
        give(0)


def _glibc(name: str) -> Any:
    """A function of glibc, or None without glibc."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
