"""Crafted data files: each is refused with a one-line error, and nothing is unpacked without a limit."""

import gzip
import struct
import tarfile
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from experiments import data
from experiments.config.errors import UsageError
from experiments.config.specs import spec
from experiments.data.cifar_n import human_labels
from experiments.data.sources.npz import jpeg_set
from tests.experiments.data.test_sources import file_of, idx, own_file, write_idx_set

LABELS = np.arange(20) % 10


def few_jpegs(folder):
    return jpeg_set(folder, "", "cifar10_jpeg.npz", 8, 10, "cifar10")


def of_people(folder: Path) -> data.Dataset:
    """Return a data set of blank images whose labels come from a file of human labels."""
    train = data.Examples(np.zeros((12, 4, 4, 3), np.uint8), np.arange(12, dtype=np.int32) % 10, np.arange(12))
    labels = human_labels(train, "worse", "cifar10", folder, checksum=False)
    return data.Dataset(train._replace(labels=labels), train, 10, "none")


def load(name: str, folder: Path) -> data.Dataset:
    """Load the data set of this name, with its images decoded."""
    if name == "people":
        return of_people(folder)
    if name == "jpegs":
        dataset = few_jpegs(data.Folder(folder, checksum=False))
        return dataset._replace(train=data.resident(dataset.train), test=data.resident(dataset.test))
    return data.load(spec(name), folder, checksum=False)


def meet(name: str, folder: Path, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as refused:
        load(name, folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"y_train": np.arange(6, dtype=np.uint64) + 2**32}, "labels from 4294967296 to 4294967301, expected 0 to 5"),
        ({"y_train": np.arange(6) - 2**31}, "y_train: labels from -2147483648"),
        ({"y_test": np.array([0, 1, 2**31 - 1])}, "y_test: labels from 0 to 2147483647, expected 0 to 5"),
        ({"y_train": np.array([0, 1, 2, 3, 4, 500_000_000])}, "expected 0 to 5"),
        ({"y_test": np.array(2)}, r"y_test has the shape \[\], expected one label an example"),
        ({"y_test": np.eye(3, dtype=int)}, r"y_test has the shape \[3, 3\]"),
        ({"y_train": np.ones(6, bool)}, "y_train is bool, expected whole numbers"),
        ({"x_train": np.uint8(0)}, r"expected uint8 images \[n, h, w, c\], found uint8 \[\]"),
        (
            {"x_train": np.zeros((6, 3, 8, 8), np.uint8), "x_test": np.zeros((3, 3, 8, 8), np.uint8)},
            r"x_train \[6, 3, 8, 8\] has its channels first; .*transpose\(0, 2, 3, 1\)",
        ),
        ({"x_train": np.zeros((6, 0, 8), np.uint8)}, "expected at least one pixel and channel"),
        ({"x_train": np.zeros((6, 9, 8, 0), np.uint8)}, "expected at least one pixel and channel"),
    ],
    ids=str,
)
def test_arrays_that_are_no_images_or_labels(changes, complaint, tmp_path):
    own_file(tmp_path / "own.npz", **changes)
    meet("npz:own.npz", tmp_path, complaint)


def test_labels_of_one_column_are_labels(tmp_path):
    own_file(tmp_path / "own.npz", y_train=np.arange(6, dtype=np.uint64)[:, None] % 3)
    assert load("npz:own.npz", tmp_path).train.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_the_version_of_an_own_file_is_that_of_its_content(tmp_path):
    own_file(tmp_path / "own.npz")
    own_file(tmp_path / "other.npz", y_train=np.array([0, 1, 2, 0, 2, 1]))
    with np.load(tmp_path / "own.npz") as arrays:
        np.savez_compressed(tmp_path / "packed.npz", **arrays)
    own, other, packed = (load(f"npz:{name}.npz", tmp_path).version for name in ("own", "other", "packed"))
    assert own == packed != other


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "File is not a zip file"),
        (b"\x93NUMPY\x01\0v\0", "File is not a zip file"),
        (b"just text", "File is not a zip file"),
    ],
)
def test_what_is_no_npz_is_not_told_to_allow_pickle(content, complaint, tmp_path):
    (tmp_path / "own.npz").write_bytes(content)
    meet("npz:own.npz", tmp_path, complaint)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-binary.tar.gz"),
        ("cifar100", "cifar-100-binary.tar.gz"),
        ("cifar10_jpeg", "cifar10_jpeg.npz"),
        ("cifar10_4000", "cifar10_train_first4000.npz"),
        ("tiny_imagenet_32", "tiny_imagenet_32_jpeg.npz"),
    ],
)
def test_a_file_that_is_not_the_published_one_is_not_unpacked(name, file, tmp_path):
    (tmp_path / file).write_bytes(b"no archive")
    with pytest.raises(UsageError, match=f"{file}: not the published file"):
        data.load(spec(name), tmp_path)


HEADERS = {
    "negative": [-1, -28, 28],
    "two negative ones": [2, -28, -28],
    "no axis": [],
    "absurd": [2**31 - 1] * 3,
    "no pixels": [20, 0, 28],
    "255 axes": [1] * 255,
    "four axes": [20, 28, 28, 1],
}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("shape", HEADERS.values(), ids=HEADERS.keys())
@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_idx_headers_that_lie(file, shape, packed, tmp_path):
    pack, end = (gzip.compress, ".gz") if packed else (bytes, "")
    write_idx_set(tmp_path, LABELS, pack, end)
    header = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes()
    (tmp_path / (file + end)).write_bytes(pack(header + bytes(20 * 28 * 28)))
    meet("mnist", tmp_path, "not an IDX file|bytes of data|at least one pixel|labels")


def test_labels_of_images_and_images_of_labels(tmp_path):
    write_idx_set(tmp_path, LABELS, bytes, "")
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros((20, 28, 28))))
    meet("mnist", tmp_path, r"train-labels has the shape \[20, 28, 28\]")
    write_idx_set(tmp_path, LABELS, bytes, "")
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(LABELS))
    meet("mnist", tmp_path, r"expected uint8 images \[n, h, w, c\]")


def test_a_gz_bomb_is_unpacked_no_further_than_its_header_says(tmp_path):
    write_idx_set(tmp_path, LABELS)
    bomb = gzip.compress(idx(np.zeros((20, 28, 28)))) + 64 * gzip.compress(bytes(2**24))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(bomb)
    tracemalloc.start()
    try:
        meet("mnist", tmp_path, r"more bytes of data, the header says \[20, 28, 28\]")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def zip_bomb(path: Path, size: int) -> None:
    """Write a valid npz file whose headers claim that its first array unpacks to `size` bytes."""
    own_file(path)
    raw = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        raw[raw.find(mark) + at : raw.find(mark) + at + 4] = struct.pack("<I", size)
    path.write_bytes(bytes(raw))


def test_an_npz_bomb_is_not_unpacked(tmp_path):
    zip_bomb(tmp_path / "own.npz", 2**32 - 2)
    meet("npz:own.npz", tmp_path, "it would unpack to 4096 MB")


def link(name: str, kind: bytes, to: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, to, size
    return info


TRAIN, TEST = "cifar-100-binary/train.bin", "cifar-100-binary/test.bin"
MEMBERS = {
    "a link to nothing": [link(TRAIN, tarfile.SYMTYPE, "/etc/passwd")],
    "a link to itself": [link(TRAIN, tarfile.SYMTYPE, "train.bin")],
    "a hard link to itself": [link(TRAIN, tarfile.LNKTYPE, TRAIN)],
    "a ring": [link(TRAIN, tarfile.SYMTYPE, "test.bin"), link(TEST, tarfile.SYMTYPE, "train.bin")],
    "a device": [link(TRAIN, tarfile.CHRTYPE)],
    "a folder": [link(TRAIN, tarfile.DIRTYPE)],
    "more than memory holds": [link(TRAIN, tarfile.REGTYPE, size=2**40)],
    "nothing": [],
}  # fmt: skip


@pytest.mark.parametrize("members", MEMBERS.values(), ids=MEMBERS.keys())
def test_archives_of_links_and_bombs(members, tmp_path):
    with tarfile.open(tmp_path / "cifar-100-binary.tar.gz", "w:gz") as archive:
        for info in members:
            archive.addfile(info)
    meet("cifar100", tmp_path, "train.bin holds 0 bytes|unpack to more than 1024 MB|cannot be unpacked")


def jpegs(folder: Path, first: bytes = b"", **changes) -> None:
    files = [file_of(np.full((4, 4, 3), 20 * i, np.uint8), ("png", "jpeg")[i % 2]) for i in range(12)]
    files[0] = first or files[0]
    arrays = {"jpeg": np.frombuffer(b"".join(files), np.uint8), "offset": np.cumsum([0, *map(len, files)])}
    np.savez(folder / "cifar10_jpeg.npz", **(arrays | {"label": np.arange(12) % 10} | changes))


def huge_png(side: int) -> bytes:
    """Return a PNG file of 4 x 4 pixels whose header claims `side` x `side` pixels."""
    small = file_of(np.zeros((4, 4, 3), np.uint8), "png")
    head = small[12:16] + struct.pack(">II", side, side) + small[24:29]
    return small[:12] + head + struct.pack(">I", zlib.crc32(head)) + small[33:]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"first": b"GIF89"}, r"cifar10_jpeg\.npz: image 0 cannot be decoded"),
        ({"first": huge_png(100_000)}, r"cifar10_jpeg\.npz: image 0 cannot be decoded \(Image size"),
        ({"first": huge_png(12_000)}, r"cifar10_jpeg\.npz: image 0 cannot be decoded \(Image size"),
        ({"first": file_of(np.zeros((4, 5, 3), np.uint8), "png")}, "image 1 .*4 x 4 pixels, expected 4 x 5"),
        ({"offset": np.arange(13.0)}, "offset is float64"),
        ({"offset": np.zeros((13, 2), int)}, r"offset is int64 \[13, 2\]"),
        ({"offset": np.full(13, 2**63, np.uint64)}, "the offsets go from 9223372036854775808"),
        ({"offset": np.array(3)}, r"offset is int64 \[\]"),
        ({"jpeg": np.zeros(3)}, "jpeg is float64"),
        ({"label": np.arange(12) + 2**32}, "labels from 4294967296"),
        ({"label": np.arange(12)}, "labels from 0 to 11, expected 0 to 9"),
        ({"label": np.arange(12) % 10 * 1.0}, "label is float64"),
    ],
    ids=str,
)  # fmt: skip
def test_images_in_one_array(changes, complaint, tmp_path):
    jpegs(tmp_path, **changes)
    meet("jpegs", tmp_path, complaint)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"worse_label": np.arange(12) + 2**32}, "worse_label: labels from 4294967296"),
        ({"worse_label": np.arange(12) % 11}, "worse_label: labels from 0 to 10, expected 0 to 9"),
        ({"worse_label": np.arange(12) % 10 * 1.0}, "worse_label is float64"),
        ({"worse_label": np.zeros((12, 3), int)}, r"worse_label has the shape \[12, 3\]"),
        ({"clean_label": np.array(1)}, r"clean_label has the shape \[\]"),
        ({"clean_label": np.arange(11) % 10}, "labels of 11 images, but the data has row 11"),
    ],
    ids=str,
)
def test_labels_of_people(changes, complaint, tmp_path):
    people(tmp_path, **changes)
    meet("people", tmp_path, complaint)


def people(folder: Path, **changes) -> None:
    labels = np.arange(12) % 10
    np.savez(folder / "cifar10n.npz", **({"clean_label": labels, "worse_label": labels} | changes))
