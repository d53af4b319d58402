"""Randomly damaged data files: each is read, or refused with a one-line error, and nothing is written."""

import functools
import gzip
import os
import random
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from experiments.config.errors import UsageError
from tests.experiments.data.test_broken_files import LABELS, TEST, TRAIN, jpegs, load, people
from tests.experiments.data.test_sources import own_file, write_archive, write_idx_set

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
"""The number of damaged files for each reader; `FUZZ_EXAMPLES=2000 pytest FILE` runs longer."""
FIRST = int(os.environ.get("FUZZ_SEED", "0")) << 32
"""The first seed; each value of `FUZZ_SEED` gives different damage."""


def write_whole(name: str, folder: Path) -> None:
    """Write a small, undamaged data set."""
    if name in ("mnist", "fashion_mnist"):
        pack, end = (gzip.compress, ".gz") if name == "mnist" else (bytes, "")
        write_idx_set(folder, LABELS[:10], pack, end)
    elif name == "cifar100":
        rows = np.random.default_rng(0).integers(0, 10, (2, 3074), np.uint8)
        write_archive(folder / "cifar-100-binary.tar.gz", dict.fromkeys([TRAIN, TEST], rows))
    elif name in ("jpegs", "people"):
        {"jpegs": jpegs, "people": people}[name](folder)
    else:
        own_file(folder / "own.npz")


def damaged(raw: bytes, how: random.Random) -> bytes:
    """Return the bytes after one random edit, often near the start or the end, where headers are."""
    raw = raw or b"\0"
    at = how.choice([how.randrange(64), how.randrange(len(raw)), len(raw) - how.randrange(1, 64)]) % len(raw)
    length = how.choice([1, 2, 4, 8, how.randrange(1, 200)])
    odd = how.choice([bytes(length), b"\xff" * length, b"\x80" + bytes(length - 1), how.randbytes(length)])
    return {
        "cut": lambda: raw[:at],
        "flip": lambda: raw[:at] + bytes([raw[at] ^ 1 << how.randrange(8)]) + raw[at + 1 :],
        "fill": lambda: raw[:at] + odd + raw[at + length :],
        "insert": lambda: raw[:at] + odd + raw[at:],
        "drop": lambda: raw[:at] + raw[at + length :],
        "repeat": lambda: raw[:at] + raw[at : at + length] * how.randrange(2, 5) + raw[at + length :],
    }[how.choice(["cut", "flip", "fill", "insert", "drop", "repeat"])]()


@functools.cache
def whole(name: str, folder: Path) -> dict[Path, bytes]:
    write_whole(name, folder)
    load(name, folder)
    return {path: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar100", "npz:own.npz", "jpegs", "people"])
def test_a_damaged_file_is_read_or_refused_in_one_line(name, tmp_path):
    @hypothesis.settings(max_examples=EXAMPLES, derandomize=True, database=None)
    @hypothesis.given(seed=st.integers(0, 2**32 - 1), inside=st.booleans())
    def meets(seed, inside):
        files, how = whole(name, tmp_path), random.Random(FIRST + seed)
        path = how.choice(sorted(files))
        raw = files[path]
        packed = inside and path.suffix == ".gz"  # damage the content before packing, so that its checksum is right
        for _ in range(how.choice([1, 1, 2, 5])):
            raw = gzip.compress(damaged(gzip.decompress(raw), how), 1) if packed else damaged(raw, how)
        said = ""
        try:
            path.write_bytes(raw)
            dataset = load(name, tmp_path)
            assert dataset.train.images.dtype == np.uint8
            assert len(dataset.train.images) == len(dataset.train.labels)
        except UsageError as refused:
            said = str(refused)
        finally:
            path.write_bytes(files[path])
        assert "\n" not in said
        assert len(said) < 1000
        assert sorted(tmp_path.iterdir()) == sorted(files)

    meets()
