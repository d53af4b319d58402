"""The losses of a batch that passes through the model in microbatches, for a penalty on per-example gradients.

Ghost norms follow the batch through every equation of the model and cannot look into a loop over microbatches. This is
not needed: the penalty is a mean over examples, so it can be computed for each microbatch and averaged.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from pugd_optax.per_example import Evaluator


class Losses(NamedTuple):
    """`params -> losses` [batch], which are also available for each microbatch separately.

    Attributes:
      whole: the losses of the batch.
      of_part: `(params, part) -> losses` of one microbatch.
      parts: the contents of the microbatches, arrays [microbatch, ...].
    """

    whole: Callable[[optax.Params], jax.Array]
    of_part: Callable[[optax.Params, Any], jax.Array]
    parts: Any

    def __call__(self, params: optax.Params) -> jax.Array:
        """The losses of the batch."""
        return self.whole(params)


def part_by_part(evaluator: Evaluator) -> Evaluator:
    """The evaluator applied to one microbatch after the other, so that only one set of activations is in memory."""

    def evaluate(losses_fn: Any, params: optax.Params, step: jax.typing.ArrayLike = 0) -> tuple[jax.Array, jax.Array]:
        if not isinstance(losses_fn, Losses):
            return evaluator(losses_fn, params, step)
        of_part = lambda part: evaluator(lambda p: losses_fn.of_part(p, part), params, step)
        losses, squares = jax.lax.map(jax.checkpoint(of_part, prevent_cse=False), losses_fn.parts)
        return losses.reshape(-1), squares.reshape(-1)

    return evaluate


def split(x: jax.Array, microbatches: int) -> jax.Array:
    """[batch, ...] to [microbatch, examples, ...].

    Every microbatch takes rows spread over the whole batch, so that each device uses only its own rows.
    """
    return x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1)
