"""Wrong labels and long tails, created from clean labels and a seed."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments.config.errors import UsageError

_CIFAR10 = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}
_MNIST = {7: 1, 2: 7, 5: 6, 6: 5, 3: 8}
CONFUSIONS = {"cifar10": _CIFAR10, "mnist": _MNIST}


class Labels(NamedTuple):
    """The inputs of label noise: the number of classes, the data set, and random numbers."""

    num_classes: int
    family: str
    rng: np.random.Generator


class Noise(NamedTuple):
    """Noise that flips a share of the labels of every class; `target(c, n, labels)` gives the n new labels."""

    share: float
    target: Callable[[int, int, Labels], np.ndarray]


class HumanNoise(NamedTuple):
    """Labels given by people, by their name in `cifar_n`."""

    which: str


def symmetric(share: float) -> Noise:
    """In every class, the share is replaced by one of the **other** classes, drawn uniformly."""
    draw = lambda c, n, labels: (c + labels.rng.integers(1, labels.num_classes, n)) % labels.num_classes
    return Noise(_fraction(share), draw)


def pair(share: float) -> Noise:
    """In every class, the share is replaced by the next class."""
    return Noise(_fraction(share), lambda c, n, labels: np.full(n, (c + 1) % labels.num_classes))


def asymmetric(share: float) -> Noise:
    """In classes that are easily confused, the share is replaced by the class it is mistaken for; others stay clean.

    CIFAR-10: truck to automobile, bird to airplane, deer to horse, cat and dog to each other. Digits: 7 to 1, 2 to 7,
    3 to 8, 5 and 6 to each other.
    """
    return Noise(_fraction(share), lambda c, n, labels: np.full(n, _confusion(labels.family).get(c, c)))


def human(labels: str) -> HumanNoise:
    """Labels given by people to CIFAR-10 (aggre, random1, random2, random3, worse) or CIFAR-100 (noisy)."""
    return HumanNoise(labels)


def none() -> None:
    """No change of labels and classes."""


Tail = Callable[[int, int], float]
"""`(class, number of classes) -> share of its examples that is kept`."""


def exp(ratio: float) -> Tail:
    """Class c keeps $k^{-c/(C-1)}$ of its examples, where k is the ratio of the largest class to the smallest."""
    k = _ratio(ratio)
    return lambda c, num_classes: k ** (-c / (num_classes - 1))


def step(ratio: float) -> Tail:
    """The second half of the classes keeps 1 / ratio of its examples."""
    k = _ratio(ratio)
    return lambda c, num_classes: 1.0 if c < num_classes // 2 else 1 / k


NOISES = {f.__name__: f for f in (none, symmetric, pair, asymmetric, human)}
IMBALANCES = {f.__name__: f for f in (none, exp, step)}


def noisy_labels(labels: np.ndarray, noise: Noise | None, num_classes: int, seed: int, family: str = "") -> np.ndarray:
    """Labels with a share of them flipped.

    Args:
      labels: clean labels, int [n].
      noise: the kind of noise, or None.
      num_classes: number of classes C.
      seed: determines which labels are flipped, and to what.
      family: the data set, or the original if this is a copy, for `asymmetric`.

    Returns:
      int32 [n]; in every affected class, round(share * n_c) labels are wrong.

    Example:
      >>> clean = np.repeat(np.arange(3), 100)
      >>> np.bincount(noisy_labels(clean, pair(0.1), num_classes=3, seed=0)[clean == 0]).tolist()
      [90, 10]
    """
    noisy = labels.astype(np.int32)
    if noise is None:
        return noisy
    about = Labels(num_classes, family, np.random.default_rng([seed, 2]))
    for c in range(num_classes):
        members = np.flatnonzero(labels == c)
        flipped = about.rng.permutation(members)[: round(noise.share * len(members))]
        noisy[flipped] = noise.target(c, len(flipped), about)
    return noisy


def long_tail(labels: np.ndarray, tail: Tail | None, num_classes: int, seed: int) -> np.ndarray:
    """Positions of a long-tailed subset.

    Args:
      labels: labels, int [n].
      tail: the share of each class that is kept, relative to the size of the smallest class; None for all.
      num_classes: number of classes C.
      seed: determines which examples are kept.

    Returns:
      Sorted positions.

    Raises:
      ValueError: if a class would be empty.

    Example:
      >>> labels = np.repeat(np.arange(3), 100)
      >>> np.bincount(labels[long_tail(labels, exp(100), num_classes=3, seed=0)]).tolist()
      [100, 10, 1]
    """
    if tail is None:
        return np.arange(len(labels))
    largest = np.bincount(labels, minlength=num_classes).min()
    rng = np.random.default_rng([seed, 3])
    counts = [int(largest * tail(c, num_classes) + 1e-9) for c in range(num_classes)]
    if 0 in counts:
        raise ValueError(f"no example of class {counts.index(0)} would be left of {largest}")
    subsets = [rng.permutation(np.flatnonzero(labels == c))[:count] for c, count in enumerate(counts)]
    return np.sort(np.concatenate(subsets))


def _fraction(share: float) -> float:
    if isinstance(share, bool | str) or not 0 <= share <= 1:
        raise ValueError(f"share={share}: expected a number in [0, 1]")
    return share


def _ratio(ratio: float) -> float:
    if isinstance(ratio, bool | str) or not ratio >= 1:
        raise ValueError(f"ratio={ratio}: expected a number >= 1")
    return ratio


def _confusion(family: str) -> dict[int, int]:
    if family not in CONFUSIONS:
        known = family or "this data set"
        raise UsageError(f"--noise asymmetric: no confusions are known for {known}; use pair or symmetric")
    return CONFUSIONS[family]
