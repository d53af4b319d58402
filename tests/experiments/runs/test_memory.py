"""Memory that was freed in small pieces goes back to the system when asked."""

import ctypes
import os
import sys

import pytest

from experiments.runs.memory import give_back

PIECE, PIECES = 8192, 5000


def resident() -> int:
    """Bytes of this process that are in memory."""
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
