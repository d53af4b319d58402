"""The figure: a critical difference diagram, and the gain of each method on each task."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np

from experiments.compare.ranks import Ranks
from experiments.report.plotting import GRID, METHODS, PALETTE, STYLE, method_of, save

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

OTHER = "#999999"


def draw(ranks: Ranks, gains: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """The methods by mean rank, and their mean gain over plain training on each task, in points."""
    names = list(ranks.mean)
    with plt.rc_context(STYLE):
        size = (11, 1.6 + 0.22 * len(names))
        figure, (left, right) = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
        _ranks(left, ranks)
        for (task, values), colour in zip(gains.items(), PALETTE, strict=False):
            right.plot([values[name] for name in names], range(len(names)), "o", color=colour, ms=4, label=task)
        right.axvline(0, color="black", linewidth=0.8)
        right.set_xscale("symlog", linthresh=5, linscale=1.5)  # most lose or gain a few points, some lose tens
        ticks = [-50, -20, -10, -5, -2, 0, 2, 5, 10]
        right.set_xticks(ticks, [str(tick) for tick in ticks])
        right.set(title="Gain over plain training, same gradient evaluations", xlabel="test accuracy, points")
        figure.legend(loc="outside lower center", ncols=len(gains), frameon=False, fontsize=8)
        right.grid(**GRID)
        save(figure, path)
        plt.close(figure)


def _ranks(axis: Axes, ranks: Ranks) -> None:
    """A point for each method; those left of the line do not differ significantly from the best."""
    names, values = list(ranks.mean), np.array(list(ranks.mean.values()))
    colours = [METHODS.get(method_of(name) or "", OTHER) for name in names]
    axis.barh(range(len(names)), values, color=colours, height=0.7)
    axis.axvline(values[0] + ranks.critical, color="black", linestyle="--", linewidth=1)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.invert_yaxis()
    critical = f"best + critical difference {ranks.critical:.1f}"
    axis.set(title="Mean rank, 1 is best", xlabel=f"mean rank over {ranks.blocks} blocks; dashed: {critical}")
    axis.grid(axis="x", **GRID)
