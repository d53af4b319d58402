"""Reading, checking and dividing data sets; the files are written by the tests."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import data
from experiments.config.errors import UsageError
from experiments.config.specs import spec
from experiments.data.sources.npz import jpeg_set


def load(text, folder, **options):
    return data.load(spec(text), folder, checksum=False, **options)


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def write_idx_set(folder: Path, labels: np.ndarray, pack=gzip.compress, end: str = ".gz") -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 28, 28), np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte{end}").write_bytes(pack(idx(images)))
        (folder / f"{part}-labels-idx1-ubyte{end}").write_bytes(pack(idx(labels)))
    return images


def test_digits_need_no_file():
    digits = data.load(spec("digits"), None)
    assert digits.train.images.shape == (1000, 8, 8, 1)
    assert np.unique(np.asarray(digits.train.images)).tolist() == [15 * level for level in range(17)]
    assert digits.test.images.shape == (797, 8, 8, 1)
    assert np.bincount(np.concatenate([digits.train.labels, digits.test.labels])).tolist() == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180,
    ]  # fmt: skip


@pytest.mark.parametrize("folder", ["fashion-mnist", ""])
@pytest.mark.parametrize(("pack", "end"), [(gzip.compress, ".gz"), (bytes, "")])
def test_idx_files_packed_or_not_in_their_folder_or_not(tmp_path, folder, pack, end):
    labels = np.arange(20) % 10
    images = write_idx_set(tmp_path / folder, labels, pack, end)
    dataset = load("fashion_mnist", tmp_path)
    np.testing.assert_array_equal(np.asarray(dataset.train.images)[..., 0], images)
    np.testing.assert_array_equal(dataset.test.labels, labels)
    assert dataset.train.labels.dtype == np.int32


def test_files_other_than_the_published_ones_are_refused(tmp_path):
    write_idx_set(tmp_path, np.arange(20) % 10)
    with pytest.raises(UsageError, match=r"train-images.*not the published file.*--no-checksum"):
        data.load(spec("mnist"), tmp_path)


def file_of(image: np.ndarray, kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def write_jpegs(path: Path, train_rows: int, monkeypatch) -> np.ndarray:
    """Write twelve grey JPEG images; the loader reads the first `train_rows` as training images."""
    grey = np.broadcast_to(np.arange(12, dtype=np.uint8)[:, None, None, None] * 20, (12, 32, 32, 3)).copy()
    files = [file_of(image, "jpeg", quality=100, subsampling=0) for image in grey]
    offset, label = np.cumsum([0, *map(len, files)]), np.arange(12, dtype=np.uint8) % 10
    np.savez(path, jpeg=np.frombuffer(b"".join(files), np.uint8), offset=offset, label=label)
    few = lambda folder: jpeg_set(folder, "cifar10-jpeg", "cifar10_jpeg.npz", train_rows, 10, "cifar10")
    monkeypatch.setitem(data.LOADERS, "cifar10_jpeg", few)
    return grey


def test_jpegs_are_decoded_once_and_kept(tmp_path, monkeypatch):
    grey = write_jpegs(tmp_path / "cifar10_jpeg.npz", 8, monkeypatch)
    first = load("cifar10_jpeg", tmp_path)
    monkeypatch.setattr(data.Encoded, "decode", None)  # a second decoding would fail
    again = load("cifar10_jpeg", tmp_path)
    for dataset in (first, again):
        np.testing.assert_allclose(np.concatenate([dataset.train.images, dataset.test.images]), grey, atol=1)
        assert dataset.test.labels.tolist() == [8, 9, 0, 1]
        assert dataset.test.rows.tolist() == [8, 9, 10, 11]
    folder = Path(os.environ["PUGD_CACHE_DIR"]) / "decoded"
    assert len(list(folder.iterdir())) == 2
    for kept in folder.iterdir():
        kept.write_bytes(kept.read_bytes()[:-10])
    with pytest.raises(UsageError, match=r"broken file in the cache.*delete it"):
        load("cifar10_jpeg", tmp_path)


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    write_jpegs(tmp_path / "cifar10_jpeg.npz", 8, monkeypatch)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PUGD_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(UsageError, match=r"PUGD_CACHE_DIR.*to spare"):
        load("cifar10_jpeg", tmp_path)


def test_encoded_images_stay_so_where_they_are_streamed(tmp_path, monkeypatch):
    grey = write_jpegs(tmp_path / "cifar10_jpeg.npz", 8, monkeypatch)
    images = load("cifar10_jpeg", tmp_path, stream="on").train.take(np.array([5, 2])).images
    assert isinstance(images, data.Encoded)
    assert images.shape == (2, 32, 32, 3)
    np.testing.assert_allclose(images.decode(0), grey[5], atol=1)
    assert not list(Path(os.environ["PUGD_CACHE_DIR"]).iterdir())


def test_images_of_any_size_are_cut_and_scaled():
    wide = np.zeros((40, 80, 3), np.uint8)
    wide[:, 40:] = 255
    images = data.Encoded([file_of(wide, "png")], np.array([0]), (16, 16, 3), resize=True)  # pyright: ignore
    middle = images.decode(0)
    assert middle[:, :6].max() == 0
    assert middle[:, 10:].min() == 255
    cuts = [images.decode(0, np.random.default_rng(seed)) for seed in (0, 0, 1, 2)]
    np.testing.assert_array_equal(cuts[0], cuts[1])
    assert len({cut.tobytes() for cut in cuts}) == 3
    with pytest.raises(UsageError, match="40 x 80 pixels, expected 16 x 16"):
        data.Encoded([file_of(wide, "png")], np.array([0]), (16, 16, 3)).decode(0)  # pyright: ignore
    with pytest.raises(UsageError, match="image 0 cannot be decoded"):
        data.Encoded([b"GIF89"], np.array([0]), (16, 16, 3)).decode(0)  # pyright: ignore


def write_archive(path: Path, parts: dict[str, np.ndarray]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, rows in parts.items():
            info = tarfile.TarInfo(name)
            info.size = rows.nbytes
            archive.addfile(info, io.BytesIO(rows.tobytes()))


@pytest.mark.parametrize(("name", "label_bytes"), [("cifar10", 1), ("cifar100", 2)])
def test_cifar_archives(tmp_path, name, label_bytes):
    rows = np.random.default_rng(0).integers(0, 10, (6, 3072 + label_bytes), np.uint8)
    members = {
        "cifar10": [f"cifar-10-batches-bin/{f}.bin" for f in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")],
        "cifar100": ["cifar-100-binary/train.bin", "cifar-100-binary/test.bin"],
    }[name]
    path = tmp_path / ("cifar-10-binary.tar.gz" if name == "cifar10" else "cifar-100-binary.tar.gz")
    write_archive(path, {m: np.roll(rows, -i, 0) for i, m in enumerate(members)})
    dataset = load(name, tmp_path)
    assert len(dataset.train.labels) == 6 * (len(members) - 1)
    image, pixels = dataset.train.images[1], rows[1, label_bytes:]
    assert (image[0, 1] == pixels[[1, 1025, 2049]]).all()  # planes of red, green and blue
    assert dataset.train.labels[:6].tolist() == rows[:, label_bytes - 1].tolist()
    assert dataset.train.rows.tolist() == list(range(len(dataset.train.labels)))
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(UsageError, match="cannot be unpacked"):
        load(name, tmp_path)
    write_archive(path, dict.fromkeys(members, rows[:, :-1]))
    with pytest.raises(UsageError, match="expected images of 307"):
        load(name, tmp_path)
    path.unlink()
    with pytest.raises(UsageError, match=rf"no such file.*tfds:{name}"):
        load(name, tmp_path)


def test_first_4000_of_cifar10(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (1200, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "cifar10_train_first4000.npz", image=images, label=(np.arange(1200) % 10).astype(np.uint8))
    dataset = load("cifar10_4000", tmp_path)
    np.testing.assert_array_equal(dataset.train.images, images[:200])
    np.testing.assert_array_equal(dataset.test.images, images[200:])
    assert dataset.augment == "crop_flip"


def own_file(path: Path, **changes) -> None:
    arrays = {"x_train": np.zeros((6, 9, 8), np.uint8), "y_train": np.arange(6) % 3}
    arrays |= {"x_test": np.zeros((3, 9, 8), np.uint8), "y_test": np.arange(3)} | changes
    np.savez(path, **arrays)


def test_a_file_of_ones_own(tmp_path):
    own_file(tmp_path / "own.npz")
    dataset = load("npz:own.npz", tmp_path)
    assert dataset.train.images.shape == (6, 9, 8, 1)
    assert dataset.num_classes == 3
    assert dataset.test.labels.tolist() == [0, 1, 2]
    for changes, complaint in [
        ({"x_train": np.zeros((6, 9, 8), np.float32)}, "expected uint8 images"),
        ({"y_train": np.arange(6) - 1}, "labels from -1 to 4, expected 0 to 4"),
        ({"y_test": np.arange(4)}, "3 images but 4 labels"),
        ({"y_test": np.arange(3.0)}, "y_test is float64, expected whole numbers"),
        ({"x_test": np.zeros((0, 9, 8), np.uint8), "y_test": np.zeros(0, int)}, "holds no example"),
        ({"x_test": np.zeros((3, 8, 8), np.uint8)}, r"training images \[9, 8, 1\], test images \[8, 8, 1\]"),
        ({"y_train": np.array([{}] * 6)}, "cannot be read as npz.*allow_pickle=False"),
    ]:
        own_file(tmp_path / "own.npz", **changes)
        with pytest.raises(UsageError, match=complaint):
            load("npz:own.npz", tmp_path)


def test_a_file_by_its_absolute_path_wants_no_folder(tmp_path):
    own_file(tmp_path / "own.npz")
    for folder in (None, tmp_path / "elsewhere"):
        assert load(f"npz:{tmp_path / 'own.npz'}", folder).train.images.shape == (6, 9, 8, 1)
    with pytest.raises(UsageError, match=rf"^{tmp_path}/another.npz: no such file$"):
        load(f"npz:{tmp_path}/another.npz", None)


def test_wrong_files_are_named(tmp_path):
    write_idx_set(tmp_path, np.arange(20))
    with pytest.raises(UsageError, match="labels from 0 to 19, expected 0 to 9"):
        load("mnist", tmp_path)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UsageError, match=r"train-images.*cannot be unpacked"):
        load("mnist", tmp_path)
    file.write_bytes(gzip.compress(idx(np.zeros((3, 28, 28)))[:-5]))
    with pytest.raises(UsageError, match="2347 bytes of data"):
        load("mnist", tmp_path)
    file.write_bytes(gzip.compress(b"PK\x03\x04"))
    with pytest.raises(UsageError, match="not an IDX file"):
        load("mnist", tmp_path)
    file.write_bytes(gzip.compress(b"\0\0\x08\x03\0\0"))
    with pytest.raises(UsageError, match="not an IDX file"):
        load("mnist", tmp_path)
    np.savez(tmp_path / "cifar10_jpeg.npz", jpeg=np.zeros(3, np.uint8), offset=[0], label=np.zeros(0, int))
    with pytest.raises(UsageError, match="0 labels, 1 offsets"):
        load("cifar10_jpeg", tmp_path)
    (tmp_path / "cifar10_jpeg.npz").write_bytes(b"PK\x03\x04nothing")
    with pytest.raises(UsageError, match="cannot be read as npz"):
        load("cifar10_jpeg", tmp_path)
    with pytest.raises(UsageError, match="no such file"):
        load("tiny_imagenet_32", tmp_path)
    with pytest.raises(UsageError, match="PUGD_DATA_DIR"):
        load("mnist", None)
    with pytest.raises(UsageError, match="did you mean 'cifar10'"):
        load("cifar-10", tmp_path)
    with pytest.raises(UsageError, match="did you mean 'tfds'"):
        load("tdfs:cifar10", tmp_path)


def test_images_and_labels_must_match(tmp_path):
    write_idx_set(tmp_path, np.arange(10))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(9))))
    with pytest.raises(UsageError, match="10 images but 9 labels"):
        load("mnist", tmp_path)


def test_splits_are_disjoint_drawn_by_seed_and_leave_the_test_set_alone():
    digits = data.load(spec("digits"), None)
    marked = digits._replace(train=digits.train._replace(labels=np.arange(1000, dtype=np.int32)))
    splits = [data.divide(marked, 500, 300, seed) for seed in (0, 0, 1)]
    train, val = splits[0].train.labels, splits[0].val.labels
    assert len(set(train)) == 500
    assert len(set(val)) == 300
    assert not set(train) & set(val)
    np.testing.assert_array_equal(train, splits[1].train.labels)
    assert set(train) != set(splits[2].train.labels)
    assert all(split.test is digits.test for split in splits)
    assert len(data.divide(digits, None, None, 0).train.labels) == 900
    with pytest.raises(UsageError, match="900 training and 200 validation examples requested of 1000"):
        data.divide(digits, 900, 200, 0)


def test_divided_by_class_every_seed_leaves_as_many_of_each():
    digits = data.load(spec("digits"), None)
    splits = [data.divide_by_class(digits, None, 200, seed) for seed in (0, 1)]
    counts = [np.bincount(split.train.labels) for split in splits]
    np.testing.assert_array_equal(*counts)
    np.testing.assert_allclose(counts[0], 0.8 * np.bincount(digits.train.labels), atol=1)
    assert not np.array_equal(splits[0].train.images, splits[1].train.images)
    both = np.concatenate([splits[0].train.images, splits[0].val.images]).reshape(1000, -1)
    assert sorted(map(bytes, both)) == sorted(map(bytes, digits.train.images.reshape(1000, -1)))


DATA_DIR = os.environ.get("PUGD_DATA_DIR")
needs_files = pytest.mark.skipif(not DATA_DIR, reason="PUGD_DATA_DIR names no folder with the real files")


@needs_files
@pytest.mark.parametrize(
    ("name", "shape", "test", "level"),
    [
        ("mnist", (60_000, 28, 28, 1), 10_000, 0.1307),
        ("fashion_mnist", (60_000, 28, 28, 1), 10_000, 0.2860),
        ("cifar10_4000", (3_000, 32, 32, 3), 1_000, 0.47),
    ],
)
def test_real_files(name, shape, test, level):
    dataset = data.load(spec(name), Path(str(DATA_DIR)))
    assert dataset.train.images.shape == shape
    assert len(dataset.test.labels) == test
    assert np.asarray(dataset.train.images).mean() / 255 == pytest.approx(level, abs=1e-2 if test == 1000 else 1e-4)


@needs_files
def test_real_jpegs_are_the_published_ones_and_balanced():
    for name, each in [("cifar10_jpeg", 5000), ("tiny_imagenet_32", 500)]:
        dataset = data.load(spec(name), Path(str(DATA_DIR)), stream="on")
        assert set(np.bincount(dataset.train.labels)) == {each}
        assert dataset.train.images.shape[1:] == (32, 32, 3)
