"""What a comparison is made of: the setting that all variants share, the variants, and the grids of hyperparameters."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from experiments.config.schema import Config


def beyond(values: tuple[float, ...], value: float, below: float = math.inf) -> tuple[float, ...]:
    """Ascending values, with one more where `value` is on an edge, by the ratio of the two there; none from `below` on.

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
    """A hyperparameter: the values that are tried, ascending, how one is set, and a bound that none reaches."""

    name: str
    values: tuple[float, ...]
    set: Callable[[Config, float], Config]
    below: float = math.inf

    def beyond(self, value: float) -> "Axis":
        """With another value where `value` is on an edge."""
        return self._replace(values=beyond(self.values, value, self.below))


class Variant(NamedTuple):
    """One side of a comparison.

    Attributes:
      config: data, network, method.
      own: hyperparameters of its own; learning rate and weight decay are every variant's.
      stopped: whether its accuracy is that of the epoch with the best validation accuracy instead of the last.
    """

    config: Config
    own: tuple[Axis, ...] = ()
    stopped: bool = False


class Setting(NamedTuple):
    """What all variants of a comparison share.

    Attributes:
      name: for tables and folders.
      base: data, network, length.
      axes: the hyperparameters of every variant, with the values that are tried.
      choosing_seeds: runs of each point of a grid.
      most_seeds: runs of what was chosen, at most.
      optional: whether it is left out where no data folder is named.
      tiny: whether it is the scale of tests: nothing is chosen, and variants that no criterion asks for are left out.
    """

    name: str
    base: Config
    axes: tuple[Axis, ...]
    choosing_seeds: int = 5
    most_seeds: int = 30
    optional: bool = False
    tiny: bool = False


def at(config: Config, axes: Sequence[Axis], point: Sequence[float]) -> Config:
    """The configuration at a point of a grid."""
    for axis, value in zip(axes, point, strict=True):
        config = axis.set(config, value)
    return config


def grid(setting: Setting, variant: Variant) -> tuple[Axis, ...]:
    """The axes of a variant: those of the setting and its own, of which a tiny setting takes the first values."""
    own = (axis._replace(values=axis.values[:1]) if setting.tiny else axis for axis in variant.own)
    return *setting.axes, *own


def rates(*values: float) -> Axis:
    """Learning rates at the start of a cosine that falls to 0."""
    return field("lr", *values, name="rate", template="cosine:{:g}:0.0")


def decays(*values: float) -> Axis:
    """Weight decays."""
    return Axis("decay", values, lambda config, decay: dataclasses.replace(config, weight_decay=decay))


def field(key: str, *values: float, name: str, template: str, below: float = math.inf) -> Axis:
    """Values within the text of a setting."""
    return Axis(name, values, lambda c, x: dataclasses.replace(c, **{key: template.format(x)}), below=below)


def option(key: str, *values: float, name: str = "", template: str = "{:g}", below: float = math.inf) -> Axis:
    """Values of an option of the method, as on the command line."""

    def put(config: Config, value: float) -> Config:
        options = dict(config.method_options) | {key: template.format(value)}
        return dataclasses.replace(config, method_options=tuple(options.items()))

    return Axis(name or key, values, put, below=below)
