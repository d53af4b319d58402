"""Label noise and long tails."""

import numpy as np
import pytest

from experiments.corrupt import long_tail, noisy_labels
from experiments.names import UsageError

CLEAN = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 500))


def transitions(noisy: np.ndarray) -> np.ndarray:
    table = np.zeros((10, 10))
    np.add.at(table, (CLEAN, noisy), 1 / 500)
    return table


def test_symmetric_noise_flips_the_exact_share_of_every_class_to_the_others():
    table = transitions(noisy_labels(CLEAN, "symmetric:0.4", 10, seed=0))
    np.testing.assert_allclose(np.diag(table), 0.6)
    np.testing.assert_allclose(table[~np.eye(10, dtype=bool)], 0.4 / 9, atol=0.04)
    assert table[~np.eye(10, dtype=bool)].min() > 0


def test_pair_noise_goes_to_the_next_class():
    table = transitions(noisy_labels(CLEAN, "pair:0.45", 10, seed=0))
    np.testing.assert_allclose(table, 0.55 * np.eye(10) + 0.45 * np.roll(np.eye(10), 1, axis=1))


def test_asymmetric_noise_of_cifar10_is_drawn_from_clean_labels():
    table = transitions(noisy_labels(CLEAN, "asymmetric:0.4", 10, seed=0, family="cifar10"))
    expected = np.eye(10)
    for source, target in [(9, 1), (2, 0), (4, 7), (3, 5), (5, 3)]:
        expected[source, [source, target]] = 0.6, 0.4
    np.testing.assert_allclose(table, expected)


def test_noise_follows_the_seed_alone():
    first, again, other = (noisy_labels(CLEAN, "symmetric:0.2", 10, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(noisy_labels(CLEAN, "none", 10, seed=0), CLEAN)


def test_long_tails_have_the_published_counts():
    labels = np.repeat(np.arange(10), 5000)
    exp = long_tail(labels, "exp:100", 10, seed=0)
    assert np.bincount(labels[exp]).tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    step = long_tail(labels, "step:10", 10, seed=0)
    assert np.bincount(labels[step]).tolist() == [5000] * 5 + [500] * 5
    assert len(set(exp)) == len(exp)
    assert (exp != long_tail(labels, "exp:100", 10, seed=1)).any()
    assert len(long_tail(labels, "none", 10, seed=0)) == 50_000


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: noisy_labels(CLEAN, "symetric:0.2", 10, 0), "did you mean 'symmetric'"),
        (lambda: noisy_labels(CLEAN, "symmetric:1.2", 10, 0), r"in \[0, 1\]"),
        (lambda: noisy_labels(CLEAN, "symmetric", 10, 0), "kind:number"),
        (lambda: noisy_labels(CLEAN, "asymmetric:0.2", 10, 0, "tiny"), "no confusions are known for tiny"),
        (lambda: long_tail(CLEAN, "exp:0.5", 10, 0), r"in \[1, inf\]"),
        (lambda: long_tail(CLEAN, "exp:1000", 10, 0), "no example of class 9"),
    ],
)
def test_wrong_requests(make, complaint):
    with pytest.raises(UsageError, match=complaint):
        make()
