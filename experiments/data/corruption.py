"""Wrong labels and long tails, always made from clean labels and a seed."""

import numpy as np

from experiments.config.errors import UsageError, pick

_CIFAR10 = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}
_MNIST = {7: 1, 2: 7, 5: 6, 6: 5, 3: 8}
CONFUSIONS = {"cifar10": _CIFAR10, "mnist": _MNIST}


def noisy_labels(labels: np.ndarray, text: str, num_classes: int, seed: int, family: str = "") -> np.ndarray:
    """Labels with a share of them flipped.

    Args:
      labels: clean labels, int [n].
      text: `none`; `symmetric:r`, in every class a share r becomes one of the **other** classes, drawn uniformly;
        `pair:r`, becomes the next class; `asymmetric:r`, becomes the class it is mistaken for (CIFAR-10: truck to
        automobile, bird to airplane, deer to horse, cat and dog to each other; digits: 7 to 1, 2 to 7, 3 to 8, 5 and
        6 to each other), other classes stay clean.
      num_classes: number of classes C.
      seed: decides which labels flip, and to what.
      family: the data set that this is or is a copy of, for `asymmetric`.

    Returns:
      int32 [n]; in every class that flips, round(r n_c) labels are wrong.

    Example:
      >>> clean = np.repeat(np.arange(3), 100)
      >>> np.bincount(noisy_labels(clean, "pair:0.1", num_classes=3, seed=0)[clean == 0]).tolist()
      [90, 10]
    """
    if text == "none":
        return labels.astype(np.int32)
    kind, rate = _parts("noise", text, 0, 1)
    rng = np.random.default_rng([seed, 2])
    flip = pick(
        "label noise",
        kind,
        {
            "symmetric": lambda c, n: (c + rng.integers(1, num_classes, n)) % num_classes,
            "pair": lambda c, n: np.full(n, (c + 1) % num_classes),
            "asymmetric": lambda c, n: np.full(n, _confusion(family).get(c, c)),
        },
    )
    noisy = labels.astype(np.int32).copy()
    for c in range(num_classes):
        members = np.flatnonzero(labels == c)
        flipped = rng.permutation(members)[: round(rate * len(members))]
        noisy[flipped] = flip(c, len(flipped))
    return noisy


def long_tail(labels: np.ndarray, text: str, num_classes: int, seed: int) -> np.ndarray:
    """Positions of a long-tailed subset.

    Args:
      labels: labels, int [n].
      text: `none`; `exp:k`, class c keeps $n k^{-c/(C-1)}$ examples; `step:k`, the second half of the classes keeps
        $n / k$; n is the size of the smallest class, k >= 1 the ratio of the largest to the smallest class kept.
      num_classes: number of classes C.
      seed: decides which examples stay.

    Returns:
      Sorted positions.

    Example:
      >>> labels = np.repeat(np.arange(3), 100)
      >>> np.bincount(labels[long_tail(labels, "exp:100", num_classes=3, seed=0)]).tolist()
      [100, 10, 1]
    """
    if text == "none":
        return np.arange(len(labels))
    kind, ratio = _parts("imbalance", text, 1, float("inf"))
    share = pick(
        "imbalance",
        kind,
        {
            "exp": lambda c: ratio ** (-c / (num_classes - 1)),
            "step": lambda c: 1.0 if c < num_classes // 2 else 1 / ratio,
        },
    )
    largest = np.bincount(labels, minlength=num_classes).min()
    rng = np.random.default_rng([seed, 3])
    subsets = [
        rng.permutation(np.flatnonzero(labels == c))[: int(largest * share(c) + 1e-9)] for c in range(num_classes)
    ]
    empty = [c for c, k in enumerate(subsets) if len(k) == 0]
    if empty:
        raise UsageError(f"--imbalance {text}: no example of class {empty[0]} would be left of {largest}")
    return np.sort(np.concatenate(subsets))


def _parts(name: str, text: str, low: float, high: float) -> tuple[str, float]:
    kind, _, number = text.partition(":")
    try:
        amount = float(number)
    except ValueError:
        amount = float("nan")
    if not low <= amount <= high:
        raise UsageError(f"--{name} {text}: expected none or kind:number with a number in [{low:g}, {high:g}]")
    return kind, amount


def _confusion(family: str) -> dict[int, int]:
    if family not in CONFUSIONS:
        known = family or "this data set"
        raise UsageError(f"--noise asymmetric: no confusions are known for {known}; use pair or symmetric")
    return CONFUSIONS[family]
