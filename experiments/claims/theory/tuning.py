"""Choosing hyperparameters on a grid that is extended if the best point lies on an edge."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.claims.claim import Choice
from experiments.claims.protocol import CHOOSING_SEED
from experiments.claims.setting import EXTENSIONS, beyond

RATES = (0.01, 0.02, 0.04, 0.08, 0.16)
DECAYS = (1e-4, 1e-3, 1e-2)


class Chosen(NamedTuple):
    """The best point, its score, the values tried on each axis, and the axes on whose edge it still lies."""

    values: dict[str, float]
    score: float
    tried: dict[str, list[float]]
    ends: list[str]

    def __str__(self) -> str:
        """The chosen values in words."""
        said = ", ".join(f"{name} {value:.2g}" for name, value in self.values.items())
        return said + (f" (at the end of the grid: {', '.join(self.ends)})" if self.ends else "")

    def choice(self, setting: str, variant: str) -> Choice:
        """The choice in the form used by the page; the score is an accuracy in percent."""
        scores = [] if np.isnan(self.score) else [self.score]  # a single point is not evaluated
        return Choice(setting, variant, self.tried, self.values, self.ends, scores)


def seeds(choosing: int, first: int, fresh: int) -> tuple[range, range]:
    """Seeds for choosing hyperparameters, and seeds of the verdict, which start at `first`."""
    return range(CHOOSING_SEED, CHOOSING_SEED + choosing), range(first, first + fresh)


def choose(score: Callable[..., float], grid: Mapping[str, Sequence[float]], *, reach: int = EXTENSIONS) -> Chosen:
    """The point of a grid with the highest score; an axis is extended by its last ratio if the point is on its edge.

    If there is only one point, it is not evaluated.

    Args:
      score: `(**point) -> score`; NaN counts as worst.
      grid: the values of each axis, increasing.
      reach: how often the grid is extended, at most.

    Returns:
      The best point.

    Example:
      >>> print(choose(lambda a: -abs(a - 8.0), {"a": (1.0, 2.0)}))
      a 8
    """
    axes = {name: tuple(values) for name, values in grid.items()}
    if all(len(values) == 1 for values in axes.values()):
        return Chosen({name: values[0] for name, values in axes.items()}, np.nan, _listed(axes), [])
    scores: dict[tuple[float, ...], float] = {}
    for left in reversed(range(reach + 1)):
        for point in itertools.product(*axes.values()):
            if point not in scores:
                found = score(**dict(zip(axes, point, strict=True)))
                scores[point] = found if np.isfinite(found) else -np.inf
        best = max(scores, key=scores.__getitem__)
        values = dict(zip(axes, best, strict=True))
        wider = {name: beyond(axis, values[name]) for name, axis in axes.items()}
        if wider == axes or not left:
            break
        axes = wider
    return Chosen(values, scores[best], _listed(axes), [name for name in axes if wider[name] != axes[name]])


def _listed(axes: Mapping[str, tuple[float, ...]]) -> dict[str, list[float]]:
    return {name: list(values) for name, values in axes.items()}
