"""Sets prepared by TensorFlow Datasets, made by its own API here and read without TensorFlow."""

import io
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import data
from experiments.config.errors import UsageError
from experiments.config.specs import spec
from tests.experiments.data.test_damaged_files import EXAMPLES, FIRST, damaged

tfds = pytest.importorskip("tensorflow_datasets")
SIDE, CLASSES = 8, 3


def png(level: int, side: int = SIDE) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), level, np.uint8)).save(file, "png")
    file.seek(0)
    return file


def prepare(folder: Path, name: str, parts: dict[str, int], side: int | None = SIDE, **options) -> None:
    """Prepare a data set of grey images: image i has the level 7 i, the class i mod 3 and the id of row i."""
    ids, dtype, draw = (options.get(key) for key in ("ids", "dtype", "draw"))

    def info(self):
        image = tfds.features.Image(shape=(side, side, 3), dtype=dtype or np.uint8)
        features = {"id": np.int64 if ids else tfds.features.Text(), "image": image}
        features["label"] = tfds.features.ClassLabel(num_classes=CLASSES)
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def examples(split: str, count: int):
        for i in range(count):
            image = (draw or png)(7 * i, side or 12 + i)
            yield i, {"id": ids or f"{split}_{i:05d}", "image": image, "label": i % CLASSES}

    body = {
        "name": name,
        "pkg_dir_path": folder,
        "VERSION": tfds.core.Version(options.pop("version", "1.0.0")),
        "_info": info,
        "_split_generators": lambda self, manager: {k: examples(k, n) for k, n in parts.items()},
        "_generate_examples": lambda self: iter(()),
    }
    builder = type(name, (tfds.core.GeneratorBasedBuilder,), body, skip_registration=True)
    builder(data_dir=folder, file_format="array_record").download_and_prepare()


def test_a_prepared_set_is_read_without_tensorflow(tmp_path):
    prepare(tmp_path, "cifar10", {"train": 30, "test": 10})
    dataset = data.load(spec("tfds:cifar10"), tmp_path)
    assert "tensorflow" not in sys.modules
    assert dataset.train.images.shape == (30, SIDE, SIDE, 3)
    assert dataset.test.images.shape == (10, SIDE, SIDE, 3)
    assert (dataset.num_classes, dataset.augment, dataset.family) == (CLASSES, "crop_flip", "cifar10")
    rows = dataset.train.rows
    assert sorted(rows) == list(range(30))
    assert rows.tolist() != list(range(30))  # TFDS shuffles; the id gives the original position
    np.testing.assert_array_equal(np.asarray(dataset.train.images)[:, 0, 0, 0], 7 * rows)
    np.testing.assert_array_equal(dataset.train.labels, rows % CLASSES)


def test_the_newest_version_is_read_and_its_labels_only_once(tmp_path, monkeypatch):
    prepare(tmp_path, "some_set", {"train": 4, "test": 2})
    prepare(tmp_path, "some_set", {"train": 5, "test": 2}, version="1.10.0")
    first = data.load(spec("tfds:some_set"), tmp_path, stream="on")
    assert len(first.train.labels) == 5
    assert (first.augment, first.version) == ("none", "1.10.0")
    from experiments.data.sources import tfds as reader

    monkeypatch.setattr(reader, "_row", None)  # reading the labels again would fail
    np.testing.assert_array_equal(
        data.load(spec("tfds:some_set"), tmp_path, stream="on").train.labels, first.train.labels
    )


def test_images_of_imagenet_are_cut_to_one_size(tmp_path):
    prepare(tmp_path, "imagenet2012", {"train": 4, "validation": 2, "test": 2}, side=None)
    dataset = data.load(spec("tfds:imagenet2012"), tmp_path, stream="on")
    assert dataset.train.images.shape == (4, 224, 224, 3)
    assert len(dataset.test.labels) == 2
    image = dataset.train.images.decode(1, np.random.default_rng(0))
    np.testing.assert_array_equal(image, 7 * dataset.train.rows[1])


def test_images_of_many_sizes_are_cut_at_random_as_they_are_read_however_few(tmp_path):
    prepare(tmp_path, "flowers", {"train": 4, "test": 2}, side=None)
    images = data.load(spec("tfds:flowers"), tmp_path).train.images
    assert isinstance(images, data.Encoded)
    assert images.shape == (4, 224, 224, 3)
    with pytest.raises(
        UsageError, match="--stream off: these images are cropped at random as they are read; leave it out"
    ):
        data.load(spec("tfds:flowers"), tmp_path, stream="off")


def palette(level: int, side: int) -> io.BytesIO:
    """Return a red image as a PNG file of one band, with a palette."""
    red, file = np.full((side, side, 3), (200, 0, 0), np.uint8), io.BytesIO()
    Image.fromarray(red).quantize().save(file, "png")
    file.seek(0)
    return file


def test_images_have_the_channels_of_the_set_not_of_its_first_file(tmp_path):
    prepare(tmp_path, "red", {"train": 4, "test": 2}, draw=palette, ids=7)
    dataset = data.load(spec("tfds:red"), tmp_path)
    assert np.asarray(dataset.train.images)[:, 0, 0].tolist() == [[200, 0, 0]] * 4
    assert dataset.train.rows is None  # an id that is a number is no name of a row


def test_images_of_more_than_a_byte_are_refused(tmp_path):
    prepare(tmp_path, "deep", {"train": 4, "test": 2}, dtype=np.uint16)
    with pytest.raises(UsageError, match="tfds:deep: expected uint8 images, found uint16"):
        data.load(spec("tfds:deep"), tmp_path)


def test_what_is_not_prepared_is_told_with_the_command(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"not prepared in .*tfds.builder\('cifar100', .*download_and_prepare"):
        data.load(spec("tfds:cifar100"), tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "elsewhere"))
    with pytest.raises(UsageError, match="elsewhere"):
        data.load(spec("tfds:cifar100"), None)
    prepare(tmp_path, "no_test", {"train": 4})
    with pytest.raises(UsageError, match="no split 'test', only train"):
        data.load(spec("tfds:no_test"), tmp_path)
    info = tmp_path / "no_test" / "1.0.0" / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    with pytest.raises(UsageError, match="not ArrayRecord files"):
        data.load(spec("tfds:no_test"), tmp_path)


@pytest.mark.slow
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path, monkeypatch):
    prepare(tmp_path / "sets", "some_set", {"train": 6, "test": 3})
    files = {path: path.read_bytes() for path in sorted((tmp_path / "sets").rglob("*")) if path.is_file()}
    refusals = []
    for seed in range(EXAMPLES):
        monkeypatch.setenv("PUGD_CACHE_DIR", str(tmp_path / "cache" / str(seed)))
        how = random.Random(FIRST + seed)
        path = how.choice(sorted(files))
        path.write_bytes(damaged(files[path], how))
        try:
            dataset = data.load(spec("tfds:some_set"), tmp_path / "sets")
            assert data.resident(dataset.train).images.shape == (len(dataset.train.labels), SIDE, SIDE, 3)
        except UsageError as error:
            refusals.append(str(error))
        finally:
            path.write_bytes(files[path])
    assert [said for said in refusals if "\n" in said or len(said) > 1000] == []
    assert len(refusals) > EXAMPLES / 4
