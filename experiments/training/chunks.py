"""The division of an epoch's steps into compiled calls."""

from typing import NamedTuple

import numpy as np


class Chunk(NamedTuple):
    """Steps `start` to `stop` of an epoch; `active` applies to all of them, or is None if the gate decides."""

    start: int
    stop: int
    active: bool | None

    @property
    def program(self) -> tuple[int, bool | None]:
        """The key of its compiled program: the number of steps and `active`."""
        return self.stop - self.start, self.active


def chunks(plan: np.ndarray | None, steps: int, size: int) -> list[Chunk]:
    """The calls of an epoch, each with `size` steps, except that the last one may be shorter.

    Args:
      plan: bool [steps], whether each step is active; None where it is not known ahead.
      steps: steps of the epoch.
      size: steps of a call. Where the plan changes within it, the gate decides at run time.

    Example:
      >>> [chunk.program for chunk in chunks(np.array([0, 0, 0, 1, 1], bool), steps=5, size=2)]
      [(2, False), (2, None), (1, True)]
    """
    bounds = [(start, min(start + size, steps)) for start in range(0, steps, size)]
    return [Chunk(start, stop, None if plan is None else _agreed(plan[start:stop])) for start, stop in bounds]


def _agreed(plan: np.ndarray) -> bool | None:
    return bool(plan[0]) if (plan == plan[0]).all() else None
