"""The examples used for the second gradient of a step, set by `--second-batch`.

| text | examples |
|---|---|
| `1` | the whole batch |
| `0.25` | a quarter of the batch, every fourth example, so that examples need not move between devices |
| `raised:0.5` | the half of the batch whose losses the perturbation increases most, as in ESAM |

Losses, running statistics and the first gradient always use the whole batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from experiments.config.specs import Literal, Spec

Rows = slice | jax.Array
FORWARD = 1 / 3
"""The cost of a forward pass, in gradients."""


class SecondBatch(NamedTuple):
    """How the examples of the second gradient are chosen.

    Attributes:
      rows: `(batch size, increases) -> positions`; `increases()`, [batch], is what the perturbation adds to the losses.
      cost: cost of a second gradient, in gradients of the whole batch.
    """

    rows: Callable[[int, Callable[[], jax.Array]], Rows]
    cost: float


def spread(share: float) -> SecondBatch:
    """A share in (0, 1] of the batch: every k-th example, k = 1 / share rounded down; so above 1/2 the first ones.

    Example:
      >>> list(range(10))[spread(0.2).rows(10, lambda: None)]
      [0, 5]
    """
    _check(share)

    def rows(size: int, increases: Callable[[], jax.Array]) -> Rows:
        del increases
        count = _count(share, size)
        return slice(0, count * (size // count), size // count)

    return SecondBatch(rows, share)


def raised(share: float) -> SecondBatch:
    """The share in (0, 1] of the batch whose losses the perturbation increases most; needs one more forward pass.

    References:
      Du et al., Efficient Sharpness-aware Minimization, https://arxiv.org/abs/2110.03141, section 3.2
    """
    _check(share)
    return SecondBatch(lambda size, increases: jax.lax.top_k(increases(), _count(share, size))[1], share + FORWARD)


SECOND_BATCHES = {"spread": spread, "raised": raised}


def second_batch(x: Literal | Spec) -> SecondBatch | None:
    """The selection given by the option; None for the whole batch.

    Raises:
      UsageError: if the share is not a number in (0, 1].
    """
    if x == 1:
        return None
    made = x if isinstance(x, Spec) else Spec(str(x), "--second-batch", "spread", (x,))
    return made.build("second batch", SECOND_BATCHES)


def _check(share: float) -> None:
    if isinstance(share, bool | str) or share is None or not 0 < share <= 1:
        raise ValueError(f"share={share!r}: expected a number in (0, 1]")


def _count(share: float, size: int) -> int:
    return max(1, round(share * size))
