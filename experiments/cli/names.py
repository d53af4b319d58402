"""The names that options accept, from the registries that read them; shown by `train --help`."""

from collections.abc import Callable, Mapping
from typing import Any

from experiments.config.schedules import GATES, MASKS, SCHEDULES
from experiments.config.specs import colon_usage
from experiments.data import LOADERS
from experiments.data.corruption import IMBALANCES, NOISES
from experiments.models.zoo import MODELS
from experiments.training.objective import FLOODINGS, LOSSES, REWEIGHTS
from experiments.training.optimizer import METHODS
from experiments.training.second_batch import SECOND_BATCHES

FILLED: tuple[str, ...] = ("folder", "counts", "steps", "total_steps", "decay_steps", "transition_steps", "schedule")
"""Arguments that the trainer fills in."""
PLAIN: dict[str, Mapping[str, Any]] = {"--method": METHODS, "--model": MODELS, "--method.mask": MASKS}
"""Options that take only a name."""
CALLS: dict[str, Mapping[str, Callable[..., Any]]] = {
    "--dataset": LOADERS,
    "--second-batch": SECOND_BATCHES,
    "--loss": LOSSES,
    "--reweight": REWEIGHTS,
    "--flooding": FLOODINGS,
    "--noise": NOISES,
    "--imbalance": IMBALANCES,
    "--method.when": GATES,
    "--lr": SCHEDULES,
}
"""Options that take a name with arguments; a schedule can also replace a number of a method, such as its radius."""


def names() -> dict[str, list[str]]:
    """The names each option accepts, as they are written.

    Example:
      >>> names()["--imbalance"]
      ['none', 'exp:ratio', 'step:ratio']
    """
    fills: dict[str, None] = dict.fromkeys(FILLED)
    return {option: [*known] for option, known in PLAIN.items()} | {
        option: [colon_usage(name, function, fills) for name, function in known.items()]
        for option, known in CALLS.items()
    }


def listing() -> str:
    """The same, one option per line."""
    return "\n".join(f"{option}: {', '.join(found)}" for option, found in names().items())
