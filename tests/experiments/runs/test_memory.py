"""Freed memory: on request, large blocks are kept and small pieces are returned to the system."""

import ctypes
import os
import resource
import sys

import numpy as np
import pytest

from experiments.runs.memory import give_back, keep_freed

PIECE, PIECES = 8192, 5000


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the memory of other systems is their own affair")
def test_pieces_between_others_are_given_back():
    give_back()
    pieces = [ctypes.create_string_buffer(PIECE) for _ in range(PIECES)]
    kept = pieces[::20]
    pieces.clear()
    before = resident()
    give_back()
    assert resident() < before - PIECE * PIECES // 4
    assert len(kept) == PIECES // 20


def test_freed_memory_is_kept():
    keep_freed()
    np.ones(8_000_000)  # allocates and frees 64 MB, 16 000 pages
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(8_000_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 1000
