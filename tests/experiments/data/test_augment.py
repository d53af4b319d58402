"""Cutout, mixup and the order of the parts; crop and flip are tested with the step."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.config.errors import UsageError
from experiments.data.augment import cutout, mixup, pipeline
from experiments.data.batch import Data, HostBatch

IMAGES = np.random.default_rng(0).integers(1, 256, (200, 8, 6, 2), np.uint8)
LABELS = np.arange(200, dtype=np.int32) % 5
DATA = Data(*map(jnp.asarray, (IMAGES, LABELS, np.full((1, 1, 1, 1), 7.0, "f"), np.full((1, 1, 1, 1), 2.0, "f"))))
KEY = jax.random.key(0)


def test_cutout_is_one_square_around_any_pixel():
    cut = np.asarray(cutout(KEY, jnp.asarray(IMAGES, jnp.float32), 3)) == 0
    assert (cut[..., 0] == cut[..., 1]).all()
    centres = set()
    for hole in cut[..., 0]:
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole.sum() == len(rows) * len(columns)
        # at an edge part of the square lies outside
        assert len(rows) == 3 or (len(rows) == 2 and {rows[0], rows[-1]} & {0, 7})
        assert len(columns) == 3 or (len(columns) == 2 and {columns[0], columns[-1]} & {0, 5})
        top = rows[-1] - 1 if rows[0] == 0 else rows[0] + 1
        left = columns[-1] - 1 if columns[0] == 0 else columns[0] + 1
        centres.add((top, left))
    assert len(centres) > 40  # out of 48 pixels


def test_mixup_mixes_images_and_labels_alike():
    images, soft = mixup(KEY, jnp.asarray(IMAGES, jnp.float32), jnp.asarray(LABELS), alpha=1.0, num_classes=5)
    share = float((images[0, 0, 0, 0] - IMAGES[-1, 0, 0, 0]) / (float(IMAGES[0, 0, 0, 0]) - IMAGES[-1, 0, 0, 0]))
    assert 0.01 < share < 0.99
    np.testing.assert_allclose(images, share * IMAGES + (1 - share) * IMAGES[::-1], rtol=1e-4)
    np.testing.assert_allclose(soft, share * np.eye(5)[LABELS] + (1 - share) * np.eye(5)[LABELS[::-1]], atol=1e-6)


def test_the_share_of_mixup_follows_beta():
    draw = lambda key: mixup(key, jnp.array([[1.0], [0.0]]), jnp.array([0, 1]), 0.2, 2)[1][0, 0]
    shares = np.asarray(jax.vmap(draw)(jax.random.split(KEY, 4000)))
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.2 + 1)), abs=0.01)  # the variance of Beta(a, a)


def test_the_parts_in_their_order():
    indices = jnp.array([3, 1, 4])
    images, labels = pipeline("none", 0, 0.0, 5)(KEY, DATA, indices)
    np.testing.assert_allclose(images, (IMAGES[[3, 1, 4]] - 7.0) / 2)
    assert labels.tolist() == [3, 1, 4]
    images, labels = pipeline("crop_flip", 4, 0.5, 5)(KEY, DATA, indices)
    assert images.dtype == jnp.float32
    assert labels.shape == (3, 5)
    np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-6)


def test_the_share_of_mixup_is_not_drawn_with_the_key_of_an_image():
    """The third of five images is mixed with itself, so it shows whether it was flipped."""
    augment = pipeline("flip", 0, 1.0, num_classes=5)
    images, soft = jax.jit(jax.vmap(lambda key: augment(key, DATA, jnp.arange(5))))(jax.random.split(KEY, 400))
    flipped = np.isclose(images[:, 2], (IMAGES[2, :, ::-1] - 7.0) / 2, atol=1e-3).all((1, 2, 3))
    assert 100 < flipped.sum() < 300
    assert np.abs(np.corrcoef(flipped, soft[:, 0, 0])).min() < 0.2


@pytest.mark.parametrize("parts", [("none", 0, 0.0), ("crop_flip", 3, 0.4)])
def test_a_fed_batch_is_augmented_as_the_one_read_by_position(parts):
    indices = np.array([9, 2, 30, 5])
    augment = jax.jit(pipeline(*parts, num_classes=5))
    fed = augment(KEY, DATA, HostBatch(IMAGES[indices], LABELS[indices]))
    chex.assert_trees_all_equal(fed, augment(KEY, DATA, indices))


@pytest.mark.parametrize("parts", [("none", -1, 0.0), ("none", 0, -0.1), ("none", 0, float("nan"))])
def test_sizes_out_of_range(parts):
    with pytest.raises(UsageError, match="expected numbers >= 0"):
        pipeline(*parts, num_classes=5)
