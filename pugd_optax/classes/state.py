"""The state of each class: how well it is fitted, how often it was seen."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import check_count, check_number
from pugd_optax._class_checks import check_logits, membership


class ClassState(NamedTuple):
    """The state of each class; replicated across devices.

    Attributes:
      confidence: (classes,) float32, running mean of the probability of the true class; 0 before the class is seen.
      seen: (classes,) bool, whether an example of the class was seen.
      counts: (classes,) float32, number of examples seen.
      step: int32, number of batches observed.
    """

    confidence: jax.Array
    seen: jax.Array
    counts: jax.Array
    step: jax.Array


def init(num_classes: int) -> ClassState:
    """The state before the first batch.

    Args:
      num_classes: number of classes, at least 2.

    Raises:
      ValueError, TypeError: if `num_classes` is not a whole number of at least 2.
    """
    check_count("num_classes", num_classes, low=2, static=True)
    zeros = lambda dtype: jnp.zeros((num_classes,), dtype)
    return ClassState(zeros(jnp.float32), zeros(bool), zeros(jnp.float32), jnp.zeros((), jnp.int32))


def observe(
    state: ClassState,
    logits: jax.Array,
    labels: Any,
    *,
    decay: jax.typing.ArrayLike | None = None,
    where: Any = None,
    axis_name: str | None = None,
) -> ClassState:
    r"""Update the running confidence of the classes in a batch.

    $$q_c \leftarrow \lambda\, q_c + (1 - \lambda)\, \frac{\sum_i y_{ic}\, p_{ic}}{\sum_i y_{ic}}, \qquad
      p_i = \mathrm{softmax}(u_i)$$

    for the classes in the batch; the others keep their value. A class starts at the mean of its first batch. If the
    mean of a class is not finite in this batch, the class keeps its value.

    Args:
      state: the state so far.
      logits: $u$, (..., classes). No gradient flows through the state.
      labels: (...) integer class indices, or (..., classes) soft labels in [0, 1], for example from mixup: an example
        then counts for each class by its share. With label smoothing, pass the indices.
      decay: $\lambda$ in [0, 1]. Default: $1 - 1/C$ for C classes, so .9 for 10 and .99 for 100.
      where: (...) bool, False for rows that do not count, such as padding; their labels do not matter.
      axis_name: inside `shard_map` or `pmap`, the mesh axis over which the batch is split: per-class sums are added up
        over it, so every device has the state of the whole batch.

    Returns:
      The next state.

    Raises:
      ValueError, TypeError: if logits, labels and the number of classes do not fit, or labels are out of range. Under
        jit labels cannot be checked: a label out of range then belongs to no class and is not counted.

    Example:
      >>> import jax.numpy as jnp
      >>> from pugd_optax import classes
      >>> logits = jnp.log(jnp.array([[0.8, 0.1, 0.1], [0.4, 0.3, 0.3]]))
      >>> state = classes.observe(classes.init(3), logits, jnp.array([0, 0]))
      >>> print(jnp.array_str(state.confidence, precision=2), state.seen)
      [0.6 0.  0. ] [ True False False]
    """
    num_classes = len(state.confidence)
    check_logits(logits, num_classes)
    decay = 1 - 1 / num_classes if decay is None else decay
    check_number("decay", decay, low=0, high=1)
    members = membership(labels, logits, where)
    p = jax.nn.softmax(jax.lax.stop_gradient(logits).astype(jnp.float32))
    rows = tuple(range(logits.ndim - 1))
    # Selected, not multiplied, so that a non-finite example affects the mean of its own class only.
    n, q = members.sum(rows), jnp.where(members > 0, members * p, 0).sum(rows)
    if axis_name is not None:
        n, q = jax.lax.psum((n, q), axis_name)
    mean = q / jnp.where(n > 0, n, 1)
    present = (n > 0) & jnp.isfinite(mean)
    keep = jnp.where(state.seen, jnp.asarray(decay, jnp.float32), 0)
    return ClassState(
        confidence=jnp.where(present, keep * state.confidence + (1 - keep) * mean, state.confidence),
        seen=state.seen | present,
        counts=state.counts + jnp.where(present, n, 0),
        step=jnp.asarray(optax.safe_increment(state.step)),
    )
