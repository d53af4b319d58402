"""Common style of all figures: colours of methods, line styles, fonts.

A method has the same colour in every figure. Variants of a method share the colour and differ by line style; lines
without a method use the remaining colours in order. These and the most frequent methods use Okabe and Ito's palette,
which colour-blind readers can distinguish too; the other methods use other colours, chosen to differ within a panel.
"""

import itertools
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.files import replacing

DPI = 160
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
}
GRID: dict[str, Any] = {"color": "#dddddd", "linewidth": 0.6}
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
LINES = ("-", "--", ":", "-.")
METHODS = {
    "sgd": "#555555",
    "sam": "#0072B2",
    "multi_step_sam": "#AA11AA",
    "gsam": "#5E4FA2",
    "wsam": "#FF0044",
    "stable_sam": "#117711",
    "amp": "#FF3300",
    "esam": "#1B9E9E",
    "looksam": "#E69F00",
    "rst": "#662222",
    "ae_sam": "#CC77DD",
    "momentum_sam": "#7A9A01",
    "friendly_sam": "#AA00FF",
    "vasso": "#440099",
    "le_sam": "#00AA00",
    "unified_sam": "#889966",
    "zsharp": "#EE7766",
    "sam_on": "#880066",
    "pugd": "#D55E00",
    "rts_pugd": "#009E73",
    "asam": "#56B4E9",
    "fisher_sam": "#FF5588",
    "gnp": "#8B5A2B",
    "gradient_regularization": "#B8860B",
    "pegr": "#A50F47",
    "lpg": "#CC79A7",
    "lpl": "#FF33AA",
    "functional_sam": "#224400",
    "imb_sam": "#FF00EE",
    "focal_sam": "#8855FF",
    "noise_injection": "#6A3D9A",
    "layerwise_noise": "#663355",
    "nso": "#0077FF",
    "anti_pgd": "#0000FF",
    "perturbed_gradient_descent": "#881100",
}
_SAME = {"none": "sgd", "plain": "sgd", "gradient_descent": "sgd", "rts": "rts_pugd"}


def method_of(label: str) -> str | None:
    """The method with whose name a label begins, or else a part of it after a comma.

    Example:
      >>> [method_of(label) for label in ("PUGD 1", "RTS, defaults", "momentum SAM", "noise, PEGR 0.03", "sine, rises")]
      ['pugd', 'rts_pugd', 'momentum_sam', 'pegr', None]
    """
    for part in label.lower().split(", "):
        words = re.findall(r"[a-z0-9]+", part)
        for count in (3, 2, 1):
            name = "_".join(words[:count])
            if name in METHODS or name in _SAME:
                return _SAME.get(name, name)
    return None


def save(figure: Any, path: Path) -> None:
    """Write the figure atomically. Letters missing in all fonts become boxes, without a warning."""
    with warnings.catch_warnings(), replacing(path) as part:
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        figure.savefig(part, dpi=DPI, format=path.suffix.removeprefix("."))


def plain(text: str) -> str:
    """The text, escaped so that Matplotlib does not interpret dollar signs as formulas or hide the line."""
    return text.replace("$", r"\$").removeprefix("_")


def legend(figure: Any, columns: int) -> None:
    """One legend above all panels: every label once, in at most this many columns."""
    handles = [axis.get_legend_handles_labels() for axis in figure.axes]
    found = {text: line for pair in handles for line, text in zip(*pair, strict=True)}
    columns = max(1, min(columns, len(found)))
    figure.legend(found.values(), found.keys(), loc="outside upper left", ncols=columns, frameon=False)


def styles_of(groups: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, str]]:
    """The colour and line style of each line in a figure with a row of panels per group: the same in every row."""
    return styles(list(dict.fromkeys(label for labels in groups.values() for label in labels)))


def styles(labels: Sequence[str], others: Iterable[str] = ()) -> dict[str, tuple[str, str]]:
    """The colour and line style of each line in a panel; `others` are the labels in the other panels of the figure.

    Example:
      >>> made = styles(["SGD", "PUGD", "PUGD, twice the radius", "a bound"])
      >>> made["PUGD"], made["PUGD, twice the radius"]
      (('#D55E00', '-'), ('#D55E00', '--'))
    """
    methods = {label: method_of(label) for label in labels}
    taken = {METHODS[name] for name in (*methods.values(), *map(method_of, others)) if name}
    free = itertools.cycle([colour for colour in PALETTE if colour not in taken])
    found: dict[str, tuple[str, str]] = {}
    for label, name in methods.items():
        colour = METHODS[name] if name else next(free)
        used = sum(other == colour for other, _ in found.values())
        found[label] = colour, LINES[used % len(LINES)]
    return found
