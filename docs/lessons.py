"""Parts of the notebooks shown on pages: the cells themselves run here, so that nothing is computed in two places."""

import contextlib
import functools
import io
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import nbformat
from plotly.offline import get_plotlyjs

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.report.plotting import DPI, METHODS

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
PLAYER, PATHS = "00_step_by_step", "01_what_is_a_gradient_perturbation"
FRAME = '<iframe src="player.html" title="The player" width="100%" height="640" style="border: 0"></iframe>'


def player() -> dict[str, str]:
    """The interactive page of the first notebook, with plotly.js next to it, so that no network is needed."""
    names = run(PLAYER, ("imports", "model", "knobs", "walk", "page"))
    return {"player.html": names["page"].replace(names["PLOTLY"], "plotly.min.js"), "plotly.min.js": get_plotlyjs()}


@functools.cache
def paths() -> dict[str, bytes]:
    """For each method its path over the loss of two weights, together with that of gradient descent, as PNG."""
    names = run(PATHS, ("imports", "model", "draw-landscape", "methods"))
    figure, axes = plt.subplots(figsize=(4.6, 4), layout="constrained")
    names["draw_landscape"](axes)
    _line(axes, "gradient descent", names["paths"]["gradient descent"], METHODS["sgd"], 2.5)
    figure.canvas.draw()
    figure.set_layout_engine("none")  # the axes have their place: only the method changes
    made = {f"{name}.png": _picture(figure, name, names["paths"][name]) for name in names["METHODS"]}
    plt.close(figure)
    return made


def run(notebook: str, cells: tuple[str, ...]) -> dict[str, Any]:
    """The names defined by these cells of a notebook."""
    names: dict[str, Any] = {"__name__": notebook}
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")
        for cell in nbformat.read(NOTEBOOKS / f"{notebook}.ipynb", as_version=4).cells:
            if cell.id in cells:
                exec(compile(cell.source, f"{notebook}: {cell.id}", "exec"), names)  # noqa: S102, the repository's own
    plt.close("all")
    return names


def _picture(figure: Figure, name: str, path: dict[str, Any]) -> bytes:
    """The figure with one more path, which is removed afterwards."""
    (axes,) = figure.axes
    drawn = _line(axes, name, path, METHODS[name], 1.5)
    axes.legend(loc="upper right", frameon=True, fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI)
    for line in drawn:
        line.remove()
    return out.getvalue()


def _line(axes: Axes, label: str, path: dict[str, Any], colour: str, width: float) -> list[Line2D]:
    end = {"color": colour, "markeredgecolor": "white", "markersize": 8, "label": label}
    return [
        *axes.plot(path["a"], path["b"], color=colour, linewidth=width),
        *axes.plot(path["a"][-1], path["b"][-1], "o", **end),
    ]
