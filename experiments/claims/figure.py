"""The panels of a finding as one figure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib
import numpy as np

from experiments.claims.claim import Panel
from experiments.claims.conditions import DIVERGED
from experiments.report.plotting import GRID, PALETTE, STYLE, save, styles
from experiments.report.stats import interval

matplotlib.use("agg")
from matplotlib import pyplot as plt, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

MARKED = 12
"""Curves with at most this many points have markers."""

MANY = 4
"""Above curves with few points a legend with more lines than this gets a space of its own."""

MARKERS = "os^Dv"


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Means over seeds with their 95 % intervals, three panels per row."""
    across = 2 if len(panels) == 4 else min(3, len(panels))
    down = -(-len(panels) // across)
    labels = [line.label for panel in panels for line in panel.lines]
    height = max(4.2, *(0.2 * len(panel.lines) for panel in panels if panel.kind == "points"), 0)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            down, across, figsize=(5.6 * across, height * down), squeeze=False, layout="constrained"
        )
        for axis in axes.flat[len(panels) :]:
            axis.remove()
        for axis, panel in zip(axes.flat, panels, strict=False):
            KINDS[panel.kind](axis, panel, labels)
            axis.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
            _scales(axis, panel)
            axis.grid(**GRID)
        if points := [axis for axis, panel in zip(axes.flat, panels, strict=False) if panel.kind == "scatter"]:
            _legend_of_points(figure, points)
        save(figure, path)
        plt.close(figure)


def _scales(axis: Axes, panel: Panel) -> None:
    """Logarithmic axes with plain numbers; a swept quantity with few values and classes have a tick at each."""
    if panel.x == "class":
        axis.set_xticks(panel.lines[0].x)
    if panel.x == "epoch":
        axis.xaxis.set_major_locator(ticker.MaxNLocator(steps=[1, 2, 5, 10], integer=True))
    if "x" in panel.log:
        axis.set_xscale("log")
        swept = sorted({x for line in panel.lines for x in line.x})
        if panel.kind == "curves" and len(swept) <= 8:
            axis.set_xticks(swept, [f"{x:.2g}" if x < 10 else f"{x:g}" for x in swept])
            axis.xaxis.set_minor_locator(ticker.NullLocator())
    means = np.concatenate([line.get_ydata() for line in axis.lines])
    if "y" in panel.log and np.nanmax(means) > 2 * np.nanmin(means):  # a narrower range would have hardly a tick
        axis.set_yscale("log")
        low, high = axis.get_ylim()
        axis.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        digits = "123456789" if high < 10 * low else "25" if high < 100 * low else ""
        axis.yaxis.set_minor_formatter(
            ticker.FuncFormatter(lambda value, _: f"{value:.2g}" if f"{value:.0e}"[0] in digits else "")
        )


def _curves(axis: Axes, panel: Panel, others: Sequence[str] = ()) -> None:
    """Means with bands; a point at which too many runs diverged is left out."""
    style = styles([line.label for line in panel.lines], others)
    for line in panel.lines:
        theory = all(len(values) == 1 for values in line.y)
        mean, half, diverged = np.array([interval(values) for values in line.y]).T
        mean[diverged > DIVERGED * np.array([len(values) for values in line.y])] = np.nan
        colour, dashes = style[line.label]
        marker = "" if theory or len(line.x) > MARKED else "o"
        face = colour if dashes == "-" else "white"
        axis.plot(
            line.x,
            mean,
            "--" if theory else dashes,
            color=colour,
            label=line.label,
            linewidth=1.6,
            marker=marker,
            markersize=4,
            markerfacecolor=face,
        )
        # On a logarithmic axis a band that reaches below 0 would hide the mean.
        low = np.maximum(mean - half, mean / 10) if "y" in panel.log else mean - half
        if len(line.x) == 1:
            axis.errorbar(line.x, mean, [mean - low, half], fmt="none", color=colour, elinewidth=0.8, capsize=2)
        axis.fill_between(line.x, low, mean + half, color=colour, alpha=0.15, linewidth=0)
    if len(panel.lines) > MANY and len(panel.lines[0].x) <= MARKED and "y" not in panel.log:
        low, high = axis.get_ylim()
        axis.set_ylim(low, high + 0.07 * len(panel.lines) * (high - low))
    axis.legend(facecolor="white", edgecolor="none", framealpha=0.8, fontsize=8)


def _points(axis: Axes, panel: Panel, others: Sequence[str] = ()) -> None:
    """Values along the horizontal axis, one row per line, with its name on the left."""
    del others
    for i, line in enumerate(panel.lines):
        mean, half, _ = interval(line.y[0])
        axis.errorbar(mean, i, xerr=half, fmt="o", color=PALETTE[0], markersize=4, linewidth=1.2)
    low, high = axis.get_xlim()
    if low < 0 < high:
        axis.axvline(0, color="black", linewidth=0.8, zorder=0)
    axis.set_yticks(range(len(panel.lines)), [line.label for line in panel.lines], fontsize=8)
    axis.set_ylim(len(panel.lines) - 0.5, -0.5)


def _scatter(axis: Axes, panel: Panel, others: Sequence[str] = ()) -> None:
    """One point per line; variants of a method have the same colour and different markers."""
    style, drawn = styles([line.label for line in panel.lines], others), Counter[str]()
    for line in panel.lines:
        (x,), (mean, half, _) = line.x, interval(line.y[0])
        colour, _ = style[line.label]
        marker = MARKERS[drawn[colour] % len(MARKERS)]
        axis.errorbar(
            x, mean, half, fmt=marker, color=colour, markersize=6, elinewidth=0.8, capsize=2, label=line.label
        )
        drawn[colour] += 1


def _legend_of_points(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend next to all panels of points, because names at the points would overlap."""
    pairs = [axis.get_legend_handles_labels() for axis in axes]
    found = {label: handle for handles, labels in pairs for handle, label in zip(handles, labels, strict=True)}
    figure.legend(found.values(), found.keys(), loc="outside right center", frameon=False, fontsize=8)


KINDS = {"curves": _curves, "points": _points, "scatter": _scatter}
