"""The parts of a comparison: the setting shared by all variants, the variants, and the hyperparameter grids."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments.config.schema import Config

EXTENSIONS = 3
"""How often the grid of a variant is extended, at most."""


def beyond(values: tuple[float, ...], value: float, below: float = math.inf) -> tuple[float, ...]:
    """Ascending values, extended at the edge where `value` lies by the ratio of the two there, but not to `below`.

    Example:
      >>> beyond((0.1, 0.3), 0.3), beyond((1.0, 2.0, 4.0), 2.0)
      ((0.1, 0.3, 0.9), (1.0, 2.0, 4.0))
    """
    if len(values) == 1 or value not in (values[0], values[-1]):
        return values
    lower = value == values[0]
    new = float(f"{value * (values[0] / values[1] if lower else values[-1] / values[-2]):.3g}")
    if not new < below:
        return values
    return (new, *values) if lower else (*values, new)


class Axis(NamedTuple):
    """A hyperparameter: the values to try, ascending, how to set one, and an upper limit that no value reaches."""

    name: str
    values: tuple[float, ...]
    set: Callable[[Config, float], Config]
    below: float = math.inf

    def beyond(self, value: float) -> "Axis":
        """The same axis with one more value if `value` is on an edge."""
        return self._replace(values=beyond(self.values, value, self.below))


class Variant(NamedTuple):
    """One side of a comparison.

    Attributes:
      config: data, network, method.
      own: its own hyperparameters; every variant also has learning rate and weight decay.
      stopped: whether its accuracy is that of the epoch with the best validation accuracy instead of the last.
    """

    config: Config
    own: tuple[Axis, ...] = ()
    stopped: bool = False


class Setting(NamedTuple):
    """The settings shared by all variants of a comparison.

    Attributes:
      name: for tables and folders.
      base: data, network, length.
      axes: the hyperparameters of every variant, with the values to try.
      choosing_seeds: number of runs of each point of a grid.
      extensions: how often a grid is extended, at most.
      most_seeds: maximum number of runs of the chosen point.
      optional: whether it is skipped if there is no data folder.
      tiny: whether it is for tests: nothing is chosen, and only variants needed by the criteria are trained.
    """

    name: str
    base: Config
    axes: tuple[Axis, ...]
    choosing_seeds: int = 5
    extensions: int = EXTENSIONS
    most_seeds: int = 30
    optional: bool = False
    tiny: bool = False


def at(config: Config, axes: Sequence[Axis], point: Sequence[float]) -> Config:
    """The configuration at one point of a grid."""
    for axis, value in zip(axes, point, strict=True):
        config = axis.set(config, value)
    return config


def grid(setting: Setting, variant: Variant) -> tuple[Axis, ...]:
    """The axes of a variant: those of the setting and its own; a tiny setting uses only their first values."""
    own = (axis._replace(values=axis.values[:1]) if setting.tiny else axis for axis in variant.own)
    return *setting.axes, *own


def rates(*values: float) -> Axis:
    """Initial learning rates of a cosine schedule to 0."""
    return field("lr", *values, name="rate", template="cosine:{:g}:0.0")


def decays(*values: float) -> Axis:
    """Weight decays."""
    return Axis("decay", values, lambda config, decay: dataclasses.replace(config, weight_decay=decay))


def field(key: str, *values: float, name: str, template: str, below: float = math.inf) -> Axis:
    """Values that are part of the text of a setting."""
    return Axis(name, values, lambda c, x: dataclasses.replace(c, **{key: template.format(x)}), below=below)


def option(key: str, *values: float, name: str = "", template: str = "{:g}", below: float = math.inf) -> Axis:
    """Values of a method option, as on the command line."""

    def put(config: Config, value: float) -> Config:
        options = dict(config.method_options) | {key: template.format(value)}
        return dataclasses.replace(config, method_options=tuple(options.items()))

    return Axis(name or key, values, put, below=below)
