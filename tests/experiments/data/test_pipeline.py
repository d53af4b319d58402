"""Streamed data against the same data in memory: feeds, statistics, whole runs."""

import dataclasses
import io
import json

import jax
import numpy as np
import pytest
from PIL import Image

from experiments.config.schema import Config
from experiments.data import Encoded, Examples
from experiments.data.augment import pipeline
from experiments.data.batch import Data, HostBatch
from experiments.data.pipeline import channels, source, stream
from experiments.training.experiment import prepare
from experiments.training.trainer import run

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (30, 6, 5, 3), np.uint8), np.arange(30, dtype=np.int32)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


def as_files() -> Examples:
    files = [png(image) for image in IMAGES]
    return Examples(Encoded(files, np.arange(30), (6, 5, 3)), LABELS)  # pyright: ignore


@pytest.mark.parametrize("examples", [Examples(IMAGES, LABELS), as_files()], ids=["array", "files"])
def test_blocks_come_in_order_from_any_of_them_on(examples):
    blocks = list(RNG.permutation(30).reshape(5, 2, 3))
    for start in (0, 3):
        fed = list(stream(examples, blocks[start:]))
        assert len(fed) == 5 - start
        for positions, batch in zip(blocks[start:], fed, strict=True):
            assert isinstance(batch, HostBatch)
            np.testing.assert_array_equal(batch.images, IMAGES[positions])
            np.testing.assert_array_equal(batch.labels, LABELS[positions])


def test_random_cuts_follow_from_the_numbers_and_the_file():
    wide = Encoded([png(RNG.integers(0, 256, (40, 60, 3), np.uint8))] * 2, np.array([0, 1]), (8, 8, 3), resize=True)  # pyright: ignore
    examples = Examples(wide, LABELS[:2])
    cuts = lambda *draw: next(stream(examples, [np.array([0, 1])], *draw)).images
    np.testing.assert_array_equal(cuts((0, 1)), cuts((0, 1)))
    np.testing.assert_array_equal(cuts(), cuts())
    assert (cuts((0, 1)) != cuts((0, 2))).any()
    assert (cuts((0, 1))[0] != cuts((0, 1))[1]).any()
    assert (cuts()[0] == cuts()[1]).all()


def test_mean_and_deviation_of_the_channels():
    mean, std = channels(IMAGES)
    np.testing.assert_allclose(mean, IMAGES.mean((0, 1, 2), keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(std, IMAGES.std((0, 1, 2), keepdims=True), rtol=1e-6)
    for found, expected in zip(channels(as_files().images), (mean, std), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_constant_channel_stays_small_where_a_crop_pads_it_with_zeros():
    opaque = np.concatenate([IMAGES, np.full((30, 6, 5, 1), 255, np.uint8)], -1)  # red, green, blue and alpha
    data = Data(*map(jax.device_put, (opaque, LABELS, *channels(opaque))))
    images, _ = pipeline("crop", 0, 0.0, num_classes=30)(jax.random.key(0), data, np.arange(30))
    assert float(abs(images[..., 3]).max()) == pytest.approx(1)
    assert float(abs(images[..., :3]).max()) < 3


def test_streamed_data_has_no_images_on_the_device():
    held = source(as_files(), channels(IMAGES), streamed=True)
    assert held.data.images.shape == (0, 6, 5, 3)
    assert held.data.labels.tolist() == LABELS.tolist()


CONFIG = Config(
    dataset="digits", model="mlp", method="sam", epochs=2, batch=48, train_size=240, val_size=100, devices=1,
    tensorboard=False, checkpoint_every=0, imbalance="exp:2", cutout=2, mixup=0.2,
)  # fmt: skip


def numbers_of(folder, **changes) -> list[dict]:
    run(prepare(dataclasses.replace(CONFIG, **changes)), seed=3, folder=folder)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


@pytest.mark.parametrize("changes", [{}, {"steps_per_call": 2, "devices": 2, "parallel": "shard_map"}])
def test_a_streamed_run_is_the_run_in_memory(tmp_path, changes):
    assert numbers_of(tmp_path / "on", stream="on", **changes) == numbers_of(tmp_path / "off", stream="off", **changes)
