"""How hyperparameters are chosen and how many seeds a verdict takes, in the same way for every variant.

Every variant is tried with every learning rate and weight decay and every value of its own hyperparameters, on the
first half of the training data. The chosen values are judged on the second half, with other seeds. If a choice lies on
an edge of its grid, a value beyond it is added, at most as often as the setting allows.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from experiments.claims.claim import Choice
from experiments.claims.setting import Axis, Setting, Variant, at, grid
from experiments.claims.workspace import Trained, Workspace
from experiments.config.errors import Diverged

CHOOSING_SEED = 100
"""The first seed used for choosing hyperparameters."""
FRESH_SEED = 200
"""The first seed used for verdicts."""
FEWEST = 6
"""The minimum number of seeds of a verdict."""


Point = tuple[float, ...]
Tried = dict[Point, Trained]


def choose(setting: Setting, variants: Mapping[str, Variant], workspace: Workspace) -> dict[str, Choice]:
    """The best point of every variant's grid by mean validation accuracy; among equals, the first.

    If a grid has only one point, nothing is trained.

    Raises:
      Diverged: if every point of a variant diverged.
    """
    axes = {label: grid(setting, variant) for label, variant in variants.items()}
    for left in reversed(range(setting.extensions + 1)):
        found = _best(setting, variants, axes, workspace)
        wider = {
            label: tuple(axis.beyond(value) for axis, value in zip(axes[label], point, strict=True))
            for label, (point, _) in found.items()
        }
        if wider == axes or not left:
            break
        axes = wider
    return {label: _choice(setting.name, label, axes[label], found[label], wider[label]) for label in variants}


def _choice(
    setting: str, label: str, axes: Sequence[Axis], found: tuple[Point, Tried], wider: Sequence[Axis]
) -> Choice:
    point, tried = found
    beside = [(rate, *point[1:]) for rate in axes[0].values] if tried and axes else []
    return Choice(
        setting,
        label,
        tried={axis.name: list(axis.values) for axis in axes},
        chosen={axis.name: value for axis, value in zip(axes, point, strict=True)},
        on_edge=[axis.name for axis, more in zip(axes, wider, strict=True) if axis != more],
        validation=list(tried[point].validation) if tried else [],
        by_rate=[list(tried[other].validation) if other in tried else [] for other in beside],
    )


def _best(
    setting: Setting, variants: Mapping[str, Variant], axes: Mapping[str, Sequence[Axis]], workspace: Workspace
) -> dict[str, tuple[Point, Tried]]:
    """The best point of every variant, and the runs of all its points; points that diverged are left out."""
    points = {label: list(itertools.product(*(axis.values for axis in axes[label]))) for label in variants}
    if all(len(of_one) == 1 for of_one in points.values()):
        return {label: (of_one[0], {}) for label, of_one in points.items()}
    seeds = range(CHOOSING_SEED, CHOOSING_SEED + setting.choosing_seeds)
    asked = [(label, point) for label in variants for point in points[label]]
    configs = [at(variants[label].config, axes[label], point) for label, point in asked]
    trained = workspace.train(setting, configs, "first", seeds)
    best: dict[str, tuple[Point, Tried]] = {}
    for label, variant in variants.items():
        tried = {
            point: found._replace(stopped=variant.stopped)
            for (name, point), found in zip(asked, trained, strict=True)
            if name == label and not found.diverged
        }
        if not tried:
            raise Diverged(f"{setting.name}: {label} diverged at every point of its grid; use smaller learning rates")
        point = max(tried, key=lambda point: tried[point].validation.mean())
        best[label] = point, tried
    return best


def seeds_for(choices: Mapping[str, Choice], margin: float) -> tuple[float, int]:
    """The number of seeds for a verdict, computed from the runs used for choosing hyperparameters.

    The smallest n for which half the width of the 95 % interval of a paired difference is at most half the margin: t(n
    - 1) s / sqrt(n) <= margin / 2.

    Returns:
      The standard deviation s of the differences to the first variant, pooled over the others, in points; and n.
    """
    first, *others = (np.array(choice.validation) for choice in choices.values())
    spread = float(np.sqrt(np.mean([np.var(other - first, ddof=1) for other in others])))
    enough = (n for n in range(2, 10_000) if stats.t.ppf(0.975, n - 1) * spread / np.sqrt(n) <= margin / 2)
    return spread, max(FEWEST, next(enough, 10_000))
