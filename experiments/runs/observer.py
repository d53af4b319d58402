"""Observers of a run, which are notified of every epoch and of the result."""

from collections.abc import Callable
from typing import Any, NamedTuple

Numbers = dict[str, float]


class Observer(NamedTuple):
    """TensorBoard or a tracker: `epoch` gets the line of `metrics.jsonl`, `result` the content of `result.json`."""

    epoch: Callable[[dict[str, Any]], None]
    result: Callable[[dict[str, Any]], None]


def numbers(line: dict[str, Any]) -> Numbers:
    """The entries that can be plotted: numbers, without the epoch, which is the axis.

    Example:
      >>> numbers({"epoch": 3, "val_loss": 0.5, "radius": None, "by_class": [1.0]})
      {'val_loss': 0.5}
    """
    kept = {name: value for name, value in line.items() if name != "epoch"}
    return {name: value for name, value in kept.items() if isinstance(value, int | float)}


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """The settings for trackers: words, numbers and bools; options by their own names; without unset values.

    Example:
      >>> settings({"lr": "0.1", "cutout": 0, "val_size": None, "method_options": [["radius", "0.05"]]})
      {'lr': '0.1', 'cutout': 0, 'method.radius': '0.05'}
    """
    plain = {k: v for k, v in config.items() if isinstance(v, str | int | float)}
    parts = {k.removesuffix("_options"): v for k, v in config.items() if k.endswith("_options")}
    return plain | {f"{owner}.{name}": value for owner, options in parts.items() for name, value in options}
