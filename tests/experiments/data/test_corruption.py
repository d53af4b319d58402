"""Label noise, long tails, and the data that a seed selects."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from experiments import data
from experiments.config.errors import UsageError
from experiments.config.schema import Config
from experiments.config.specs import spec
from experiments.data import Examples
from experiments.data.cifar_n import human_labels
from experiments.data.corruption import asymmetric, exp, long_tail, noisy_labels, pair, step, symmetric
from experiments.data.split import class_counts, split

CLEAN = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 500))


def transitions(noisy: np.ndarray) -> np.ndarray:
    table = np.zeros((10, 10))
    np.add.at(table, (CLEAN, noisy), 1 / 500)
    return table


def test_symmetric_noise_flips_the_exact_share_of_every_class_to_the_others():
    table = transitions(noisy_labels(CLEAN, symmetric(0.4), 10, seed=0))
    np.testing.assert_allclose(np.diag(table), 0.6)
    np.testing.assert_allclose(table[~np.eye(10, dtype=bool)], 0.4 / 9, atol=0.04)
    assert table[~np.eye(10, dtype=bool)].min() > 0


def test_pair_noise_goes_to_the_next_class():
    table = transitions(noisy_labels(CLEAN, pair(0.45), 10, seed=0))
    np.testing.assert_allclose(table, 0.55 * np.eye(10) + 0.45 * np.roll(np.eye(10), 1, axis=1))


def test_asymmetric_noise_of_cifar10_is_drawn_from_clean_labels():
    table = transitions(noisy_labels(CLEAN, asymmetric(0.4), 10, seed=0, family="cifar10"))
    expected = np.eye(10)
    for source, target in [(9, 1), (2, 0), (4, 7), (3, 5), (5, 3)]:
        expected[source, [source, target]] = 0.6, 0.4
    np.testing.assert_allclose(table, expected)


def test_noise_follows_the_seed_alone():
    first, again, other = (noisy_labels(CLEAN, symmetric(0.2), 10, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(noisy_labels(CLEAN, None, 10, seed=0), CLEAN)


def test_long_tails_have_the_published_counts():
    labels = np.repeat(np.arange(10), 5000)
    left = long_tail(labels, exp(100), 10, seed=0)
    assert np.bincount(labels[left]).tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    halves = long_tail(labels, step(10), 10, seed=0)
    assert np.bincount(labels[halves]).tolist() == [5000] * 5 + [500] * 5
    assert len(set(left)) == len(left)
    assert (left != long_tail(labels, exp(100), 10, seed=1)).any()
    assert len(long_tail(labels, None, 10, seed=0)) == 50_000


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"noise": "symetric:0.2"}, "did you mean 'symmetric'"),
        ({"noise": "symmetric:1.2"}, r"--noise symmetric:1.2: share=1.2: expected a number in \[0, 1\]"),
        ({"noise": "symmetric"}, "--noise symmetric: needs share; expected symmetric:share"),
        ({"noise": "asymmetric:0.2", "dataset": "tiny"}, "no confusions are known for tiny"),
        ({"noise": "human:worst"}, "did you mean 'worse'"),
        ({"imbalance": "exp:0.5"}, "--imbalance exp:0.5: ratio=0.5: expected a number >= 1"),
        ({"imbalance": "exp:1000"}, "--imbalance exp:1000: no example of class 8"),
    ],
)
def test_wrong_requests(settings, complaint):
    images = np.zeros((len(CLEAN), 1, 1, 1), np.uint8)
    family = settings.get("dataset", "cifar10")
    examples = Examples(images, CLEAN, np.arange(len(CLEAN)))
    dataset = data.Dataset(examples, examples, 10, "none", family)
    with pytest.raises(UsageError, match=complaint):
        split(Config(**settings), dataset, seed=0)


@pytest.mark.parametrize(
    ("classes", "largest", "totals", "smallest"),
    [
        (10, 5000, {10: 20431, 50: 13996, 100: 12406, 200: 11203}, [500, 100, 50, 25]),
        (100, 500, {10: 19573, 50: 12608, 100: 10847, 200: 9502}, [50, 10, 5, 2]),
    ],
)
def test_totals_of_long_tailed_cifar(classes, largest, totals, smallest):
    labels = np.repeat(np.arange(classes), largest)
    kept = [labels[long_tail(labels, exp(ratio), classes, seed=0)] for ratio in totals]
    assert [len(k) for k in kept] == list(totals.values())
    assert [np.bincount(k).min() for k in kept] == smallest


def people(folder, count: int = 60, wrong: int = 6) -> Examples:
    """Write a file of human labels, the first `wrong` of them wrong; return half of its images in another order."""
    clean = np.arange(count, dtype=np.uint8) % 10
    given = clean.copy()
    given[:wrong] = (given[:wrong] + 1) % 10
    np.savez(folder / "cifar10n.npz", clean_label=clean, worse_label=given, aggre_label=clean)
    rows = np.random.default_rng(1).permutation(count)[: count // 2]
    return Examples(np.zeros((len(rows), 2, 2, 3), np.uint8), clean[rows].astype(np.int32), rows)


def test_human_labels_are_joined_by_the_original_row(tmp_path):
    train = people(tmp_path)
    labels = human_labels(train, "worse", "cifar10", tmp_path, checksum=False)
    np.testing.assert_array_equal(labels != train.labels, train.rows < 6)
    np.testing.assert_array_equal(human_labels(train, "aggre", "cifar10", tmp_path, checksum=False), train.labels)
    assert labels.dtype == np.int32


def test_human_labels_that_do_not_belong_to_the_data(tmp_path):
    train = people(tmp_path)
    ask = lambda train, which="worse", family="cifar10": human_labels(train, which, family, tmp_path, checksum=False)
    with pytest.raises(UsageError, match="30 clean labels are not those of the data"):
        ask(train._replace(labels=(train.labels + 1) % 10))
    with pytest.raises(UsageError, match="labels of 60 images, but the data has row 70"):
        ask(train._replace(rows=train.rows + 70 - train.rows.max()))
    with pytest.raises(UsageError, match="did you mean 'worse'"):
        ask(train, "worst")
    with pytest.raises(UsageError, match="not this data set"):
        ask(train, family="mnist")
    with pytest.raises(UsageError, match="not this data set"):
        ask(train._replace(rows=None))
    with pytest.raises(UsageError, match="not the published file"):
        human_labels(train, "worse", "cifar10", tmp_path)


DATA_DIR = os.environ.get("PUGD_DATA_DIR")


@pytest.mark.skipif(not DATA_DIR, reason="PUGD_DATA_DIR names no folder with the real files")
def test_published_shares_of_wrong_labels():
    cifar10 = data.load(spec("cifar10_jpeg"), Path(str(DATA_DIR)), stream="on").train
    rates = {"aggre": 9.01, "random1": 17.23, "random2": 18.12, "random3": 17.64, "worse": 40.21}
    for which, percent in rates.items():
        wrong = human_labels(cifar10, which, "cifar10", Path(str(DATA_DIR))) != cifar10.labels
        assert 100 * wrong.mean() == pytest.approx(percent, abs=0.005)


def test_a_class_without_example_is_refused():
    digits = data.load(spec("digits"), None)
    config = Config(train_size=12, val_size=100, seeds=1)
    with pytest.raises(UsageError, match=r"no example of class \d.* among the 12 for training; use a larger --train"):
        split(config, digits, seed=0)


def test_a_class_that_the_whole_set_leaves_out_wants_other_numbers():
    images, labels = np.zeros((60, 4, 4, 1), np.uint8), np.array([0, 1, 7] * 20)
    gap = data.Dataset(data.Examples(images, labels), data.Examples(images, labels), 8, "none")
    with pytest.raises(UsageError) as caught:
        split(Config(dataset="npz:gap.npz"), gap, seed=0)
    found = "--dataset npz:gap.npz: no example of class 2 and 4 more among the 60 for training"
    assert str(caught.value) == f"{found}; number the classes from 0 without a gap"


def test_class_counts_are_those_of_every_seed():
    digits = data.load(spec("digits"), None)
    config = Config(train_size=600, imbalance="exp:5", noise="symmetric:0.4")
    counts = class_counts(config, digits)
    for seed in (0, 1):
        clean = split(dataclasses.replace(config, noise="none"), digits, seed).train
        np.testing.assert_array_equal(np.bincount(clean.labels), counts)
    plain = class_counts(dataclasses.replace(config, imbalance="none"), digits)
    np.testing.assert_allclose(plain, 0.6 * np.bincount(digits.train.labels))


def test_the_share_of_wrong_labels_is_rounded():
    clean = np.repeat(np.arange(3), 100)
    assert (noisy_labels(clean, pair(0.29), 3, seed=0) != clean).sum() == 3 * 29  # 0.29 * 100 is a little less than 29


def test_the_tail_and_the_wrong_labels_are_drawn_apart():
    labels = np.repeat([0, 1], [100, 50])
    kept = long_tail(labels, exp(1), 2, seed=0)
    flipped = np.flatnonzero(noisy_labels(labels, pair(0.5), 2, seed=0) != labels)
    assert set(kept[kept < 100]) != set(flipped[flipped < 100])
