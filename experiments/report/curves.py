"""Learning curves, created from run folders only."""

from pathlib import Path

import matplotlib
import numpy as np

from experiments.report.plotting import GRID, STYLE, legend, plain, save, styles_of
from experiments.report.rows import describe
from experiments.report.stats import interval
from experiments.runs.records import Run

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

AXES = (("epoch", "epoch"), ("gradient_evaluations", "gradient evaluations"))


def draw(groups: dict[str, dict[str, list[Run]]], path: Path) -> Path:
    """Validation accuracy against epochs and against gradient evaluations, one row of panels per setting."""
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(
            len(groups), 2, figsize=(11, 0.6 + 3.7 * len(groups)), squeeze=False, sharey="row", layout="constrained"
        )
        style = styles_of(groups)
        for line, (setting, methods) in zip(panels, groups.items(), strict=True):
            for panel, (key, label) in zip(line, AXES, strict=True):
                _panel(panel, methods, style, key, label)
            line[0].set_ylabel("validation accuracy %\nmean and 95 % confidence interval")
            line[0].set_title(plain(f"{setting}: {describe(methods)}".removeprefix(": ")), fontweight="bold")
        legend(figure, columns=4)
        save(figure, path)
        plt.close(figure)
    return path


def _panel(panel: Axes, methods: dict[str, list[Run]], style: dict[str, tuple[str, str]], key: str, label: str) -> None:
    ends, lowest = [], 100.0
    for title, found in methods.items():
        x = np.mean([[record[key] for record in run.metrics] for run in found], axis=0)
        y = 100 * np.array([[record["val_accuracy"] for record in run.metrics] for run in found])
        mean, half, _ = np.array([interval(values) for values in y.T]).T
        colour, line = style[title]
        marker = "o" if len(x) < 4 else None
        panel.plot(x, mean, color=colour, linestyle=line, label=plain(title), linewidth=1.8, marker=marker)
        panel.fill_between(x, mean - half, mean + half, color=colour, alpha=0.13, linewidth=0)
        ends.append(mean[-1])
        lowest = min(lowest, mean.min())
    panel.set_xlabel(label)
    panel.set_xlim(left=0)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_ylim(max(0, lowest - 1, min(ends) - 20), min(100.5, max(ends) + 4))
    panel.grid(axis="y", **GRID)
