"""Choosing hyperparameters on a grid that extends where its winner lies on an edge."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.claims.claim import Choice


class Chosen(NamedTuple):
    """The winner, its score, the values that were tried of each axis, and the axes on whose end the winner still is."""

    values: dict[str, float]
    score: float
    tried: dict[str, list[float]]
    ends: list[str]

    def __str__(self) -> str:
        """The values in words."""
        said = ", ".join(f"{name} {value:.2g}" for name, value in self.values.items())
        return said + (f" (at the end of the grid: {', '.join(self.ends)})" if self.ends else "")

    def choice(self, setting: str, variant: str) -> Choice:
        """As the page shows it; the score is an accuracy in percent."""
        return Choice(setting, variant, self.tried, self.values, self.ends, [self.score])


def choose(
    score: Callable[..., float], grid: Mapping[str, Sequence[float]], *, fixed: Sequence[str] = (), reach: int = 3
) -> Chosen:
    """The point of a grid with the highest score; an axis whose edge wins is continued by its last ratio.

    Of a single point no score is taken.

    Args:
      score: `(**point) -> score`; NaN loses against everything.
      grid: the values of each axis, rising.
      fixed: axes that are not continued.
      reach: by how many values an axis may grow on either side.

    Returns:
      The winner.

    Example:
      >>> print(choose(lambda a: -abs(a - 8.0), {"a": (1.0, 2.0)}))
      a 8
    """
    axes = {name: list(values) for name, values in grid.items()}
    if all(len(values) == 1 for values in axes.values()):
        return Chosen({name: values[0] for name, values in axes.items()}, np.nan, axes, [])
    left = {(name, end): 0 if name in fixed else reach for name in axes for end in (0, -1)}
    scores: dict[tuple[float, ...], float] = {}
    while True:
        for point in itertools.product(*axes.values()):
            if point not in scores:
                found = score(**dict(zip(axes, point, strict=True)))
                scores[point] = found if np.isfinite(found) else -np.inf
        best = max(scores, key=scores.__getitem__)
        values = dict(zip(axes, best, strict=True))
        if not _grow(axes, values, left):
            open_axes = [n for n in axes if n not in fixed and len(axes[n]) > 1]
            ends = [n for n in open_axes if values[n] in (axes[n][0], axes[n][-1])]
            return Chosen(values, scores[best], axes, ends)


def _grow(axes: dict[str, list[float]], best: Mapping[str, float], left: dict[tuple[str, int], int]) -> bool:
    """Continue the axes on whose edge the best point lies; False where there is none."""
    grown = False
    for (name, end), times in left.items():
        values = axes[name]
        if times and len(values) > 1 and best[name] == values[end]:
            beyond = values[end] * values[end] / values[1 if end == 0 else -2]
            values.insert(0 if end == 0 else len(values), beyond)
            left[name, end] = times - 1
            grown = True
    return grown
