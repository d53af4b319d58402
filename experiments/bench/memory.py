"""What the C library does with memory that a step has freed."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of glibc's malloc.h


def keep_freed() -> None:
    """Ask glibc to keep freed memory; elsewhere nothing changes.

    A step on CPU takes its temporary arrays from `malloc` and frees them again. What is larger than 32 MB goes back to
    the operating system every time, and every page of it is faulted in and cleared again: a step with 50 MB of them
    pays 14 000 faults, one with 15 MB none. That is a price of the allocator, not of a method.
    """
    if sys.platform.startswith("linux"):
        change = getattr(ctypes.CDLL(None), "mallopt", None)
        if change is not None:
            change(_MMAP_THRESHOLD, 2**30)
            change(_TRIM_THRESHOLD, 2**31 - 1)
            change(_ARENA_MAX, 1)  # what does not fit into the arena of a thread, 64 MB, would be given back each time
