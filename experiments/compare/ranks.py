"""Mean ranks over blocks, and their critical difference.

In each block (a task and a seed) the methods are ranked by accuracy, the best first. Friedman's test asks whether the
ranks differ at all; two methods differ at the 5 % level if their mean ranks differ by Nemenyi's critical difference

    q sqrt(k (k + 1) / (6 n)),   q = studentized range of k means at 5 % / sqrt(2),

for k methods and n blocks.

References:
  Demšar, *Statistical Comparisons of Classifiers over Multiple Data Sets*, JMLR 7, 2006.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Ranks(NamedTuple):
    """The mean rank of each method, best first, the critical difference, Friedman's p, and the number of blocks."""

    mean: dict[str, float]
    critical: float
    p: float
    blocks: int

    @property
    def leaders(self) -> list[str]:
        """Methods that do not differ significantly from the best."""
        first, *_ = self.mean.values()
        return [name for name, rank in self.mean.items() if rank - first < self.critical]


def ranks(scores: Mapping[str, Sequence[float]]) -> Ranks:
    """Rank the methods by their scores, one per block; a run that diverged ranks last.

    Example:
      >>> found = ranks({"a": [3, 3, 3, 3], "b": [1, 2, 1, 2], "c": [2, 1, 2, 1]})
      >>> found.mean, round(found.critical, 2)
      ({'a': 1.0, 'b': 2.5, 'c': 2.5}, 1.66)
    """
    table = np.array([list(values) for values in scores.values()], float)
    count, blocks = table.shape
    placed = stats.rankdata(-np.nan_to_num(table, nan=-np.inf), axis=0)
    mean = dict(sorted(zip(scores, placed.mean(axis=1).tolist(), strict=True), key=lambda pair: pair[1]))
    q = stats.studentized_range.ppf(0.95, count, np.inf) / np.sqrt(2)
    p = stats.friedmanchisquare(*placed).pvalue if count > 2 else np.nan
    return Ranks(mean, float(q * np.sqrt(count * (count + 1) / (6 * blocks))), float(p), blocks)
