"""The course of training, from run folders only: loss, radius and active steps, cosine, norms, sharpness."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from experiments.report.plotting import GRID, STYLE, legend, plain, save, styles_of
from experiments.report.rows import title
from experiments.report.stats import interval
from experiments.runs.records import Run

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

Methods = dict[str, list[Run]]
Shown = tuple[str, str]
"""The colour and line style of a method."""

PANELS = {
    "loss": "loss: training (thin), validation (thick)",
    "radius": "radius; strips: share of active steps",
    "cosine": "cosine of the two gradients",
    "norms": "norms: gradient (thick), perturbed (thin)",
    "sharpness": "sharpness: largest Hessian eigenvalue",
}
KEYS = {
    "loss": ("val_loss", "train_loss"),
    "radius": ("radius",),
    "cosine": ("cosine",),
    "norms": ("grad_norm", "perturbed_grad_norm"),
    "sharpness": ("sharpness",),
}


def draw(groups: dict[str, Methods], path: Path) -> Path:
    """One row of panels per setting, one panel for each kind of number in the logs, against epochs."""
    logged = lambda name: any(_logged(methods, KEYS[name]) for methods in groups.values())
    names = [name for name in KEYS if logged(name)] or ["loss"]
    with plt.rc_context(STYLE):
        size = (3.9 * len(names), 0.6 + 3.2 * len(groups))
        figure, axes = plt.subplots(len(groups), len(names), figsize=size, squeeze=False, layout="constrained")
        style = styles_of(groups)
        for line, (setting, methods) in zip(axes, groups.items(), strict=True):
            for axis, name in zip(line, names, strict=True):
                _panel(axis, name, methods, style)
            line[0].set_ylabel(textwrap.fill(plain(title(setting, methods)), 26), fontweight="bold")
        legend(figure, columns=5)
        figure.supxlabel("epoch; bands: 95 % confidence interval of the mean over seeds", fontsize=9)
        save(figure, path)
        plt.close(figure)
    return path


def _panel(axis: Axes, name: str, methods: Methods, style: dict[str, Shown]) -> None:
    if name in ("loss", "norms", "sharpness"):
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(FuncFormatter(_tick))
        axis.yaxis.set_minor_formatter(FuncFormatter(_tick))
    for method, found in methods.items():
        for key, width in zip(KEYS[name], (2.0, 0.9), strict=False):
            _line(axis, found, key, style[method], linewidth=width, label=plain(method) if width == 2.0 else None)
    _zoom(axis)
    if name == "radius":
        _strips(axis, methods, style)
    axis.set_title(PANELS[name], fontsize=9)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(axis="y", **GRID)


def _tick(value: float, _: Any) -> str:
    """The label of a tick on a logarithmic axis: 1, 2 and 5 of each decade, as plain numbers."""
    return f"{value:g}" if f"{value:.0e}"[0] in "125" else ""


def _line(axis: Axes, found: list[Run], key: str, shown: Shown, **how: Any) -> None:
    """Mean over seeds with its interval, at the epochs for which the number exists."""
    epochs, values = series(found, lambda line: line.get(key))
    if axis.get_yscale() == "log":
        values = np.where(values > 0, values, np.nan)
    kept = np.isfinite(values).any(axis=0)
    if not kept.any():
        return
    mean, half, _ = np.array([interval(column) for column in values[:, kept].T]).T
    colour, dashes = shown
    marker = "o" if kept.sum() < 4 else None
    axis.plot(epochs[kept], mean, color=colour, linestyle=dashes, marker=marker, **how)
    low = np.maximum(mean - half, mean / 10) if axis.get_yscale() == "log" else mean - half
    axis.fill_between(epochs[kept], low, mean + half, color=colour, alpha=0.13, linewidth=0)


def _zoom(axis: Axes) -> None:
    """Zoom to the means, because bands of few seeds are much wider."""
    drawn = np.concatenate([np.asarray(line.get_ydata(), float) for line in axis.lines] or [np.ones(1)])
    drawn = drawn[drawn > 0] if axis.get_yscale() == "log" else drawn
    if len(drawn) and axis.get_yscale() == "log":
        axis.set_ylim(drawn.min() / 1.4, drawn.max() * 1.4)
    elif len(drawn):
        room = 0.1 * (np.ptp(drawn) or abs(drawn.max()) or 1.0)
        axis.set_ylim(drawn.min() - room, drawn.max() + room)


def _strips(axis: Axes, methods: Methods, style: dict[str, Shown]) -> None:
    """Below the radii, one strip for each method with a radius; its height is the fraction of active steps."""
    ever = {name: found for name, found in methods.items() if _logged({name: found}, ("radius",))}
    top = axis.get_ylim()[1]
    for i, (name, found) in enumerate(ever.items()):
        epochs, share = series(found, lambda line: line.get("active"))
        base, full = -top * (0.12 + 0.11 * i), 0.08 * top
        axis.axhline(base, color="#bbbbbb", linewidth=0.6)
        axis.fill_between(epochs, base, base + full * share.mean(axis=0), color=style[name][0], step="mid", linewidth=0)
    axis.set_ylim(-top * (0.14 + 0.11 * (len(ever) - 1)), top)
    axis.set_yticks([tick for tick in axis.get_yticks() if 0 <= tick <= top])


def series(found: list[Run], value: Callable[[dict[str, Any]], float | None]) -> tuple[np.ndarray, np.ndarray]:
    """Epochs, and a number for each seed and epoch, NaN if it does not exist."""
    rows = [[value(line) for line in run.metrics] for run in found]
    epochs = np.array([line["epoch"] for line in found[0].metrics])
    return epochs, np.array([[np.nan if x is None else x for x in row] for row in rows], float)


def _logged(methods: Methods, keys: tuple[str, ...]) -> bool:
    return any(line.get(keys[0]) is not None for found in methods.values() for run in found for line in run.metrics)
