r"""Rules with one number per class: which classes are amplified, which are dampened, and how far."""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pugd_optax._checks import check_count, check_number, is_traced
from pugd_optax._class_checks import check_counts
from pugd_optax.classes.state import ClassState

Rule = Callable[[ClassState], tuple[jax.Array, jax.Array]]
"""`state -> (sign, extent)`, two float32 arrays over classes; extents in [0, 1]."""


def strength(
    state: ClassState,
    rule: Rule,
    eps: optax.ScalarOrSchedule,
    d_eps: optax.ScalarOrSchedule,
    *,
    cap: jax.typing.ArrayLike = 0.9,
    warmup_steps: int = 0,
) -> jax.Array:
    r"""The signed bound of each class.

    $$s_c\, \epsilon_c, \qquad \epsilon_c = \min(\epsilon + \Delta\epsilon\, x_c,\ \mathrm{cap})$$

    Args:
      state: the state of the classes, including this batch.
      rule: gives the sign $s_c$ and the extent $x_c$.
      eps: $\epsilon \ge 0$, the bound at extent 0; a number or a schedule of the number of batches.
      d_eps: $\Delta\epsilon \ge 0$, added at extent 1; a number or a schedule.
      cap: the largest bound, at least 0; may be inf. Below 1 a dampened gradient cannot vanish or change sign.
      warmup_steps: the strength is 0 for this many batches at the start.

    Returns:
      (classes,) float32; 0 for classes not yet seen.

    Raises:
      ValueError, TypeError: if an argument is out of its range.
    """
    for name, value in (("eps", eps), ("d_eps", d_eps)):
        check_number(name, value, low=0, schedule=True)
    if is_traced(cap) or cap != math.inf:
        check_number("cap", cap, low=0)
    check_count("warmup_steps", warmup_steps)
    sign, extent = rule(state)
    at = lambda value: jnp.asarray(value(state.step - 1) if callable(value) else value, jnp.float32)
    bound = jnp.clip(at(eps) + at(d_eps) * extent, 0, at(cap))
    return jnp.where(state.seen & (state.step > warmup_steps), sign * bound, 0)


def balanced(
    direction: Literal["hard", "easy"] = "hard",
    dead_zone: float = 0.0,
    threshold: float | None = None,
    *,
    relative: bool = False,
) -> Rule:
    r"""Amplify the classes below the mean confidence and dampen those above it.

    $$s_c = \mathrm{sign}(\tau - q_c), \qquad x_c = |\tau - q_c|, \qquad \tau = \mathrm{mean}_{c\ \mathrm{seen}}\, q_c$$

    Args:
      direction: which classes are amplified: `"hard"` ones, with low confidence, or `"easy"` ones.
      dead_zone: classes with $|\tau - q_c|$ below this are not changed, in [0, 1]; prevents signs from flipping often.
      threshold: a fixed $\tau$ in [0, 1] instead of the mean.
      relative: divide each extent by the largest on its side of $\tau$, so that the farthest class has extent 1, as in
        the code of LPL's authors.

    Returns:
      A rule.

    Raises:
      ValueError, TypeError: if an argument is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from pugd_optax import classes
      >>> state = classes.init(3)._replace(confidence=jnp.array([0.75, 0.25, 0.0]), seen=jnp.array([True, True, False]))
      >>> sign, extent = classes.balanced()(state)
      >>> print(sign[:2], extent[:2])
      [-1.  1.] [0.25 0.25]
    """
    if direction not in ("hard", "easy"):
        raise ValueError(f"direction={direction!r}: expected 'hard' or 'easy'.")
    check_number("dead_zone", dead_zone, low=0, high=1)
    if threshold is not None:
        check_number("threshold", threshold, low=0, high=1)
    amplified = 1.0 if direction == "hard" else -1.0

    def rule(state: ClassState) -> tuple[jax.Array, jax.Array]:
        seen_sum = jnp.where(state.seen, state.confidence, 0).sum()
        mean = seen_sum / jnp.maximum(state.seen.sum(dtype=jnp.float32), 1)
        gap = (mean if threshold is None else jnp.float32(threshold)) - state.confidence
        sign = jnp.where(jnp.abs(gap) < dead_zone, 0, amplified * jnp.sign(gap))
        return sign, _share_of_side(gap, state.seen) if relative else jnp.abs(gap)

    return rule


def _share_of_side(gap: jax.Array, seen: jax.Array) -> jax.Array:
    """|gap| over the largest |gap| of the same sign among the classes seen."""
    above, below = (jnp.max(jnp.where(seen, s * gap, 0), initial=0) for s in (1, -1))
    side = jnp.where(gap > 0, above, below)
    return jnp.minimum(jnp.abs(gap) / jnp.where(side > 0, side, 1), 1)


def long_tail(counts: Any = None, head: float = 0.4) -> Rule:
    r"""Dampen head classes and amplify tail classes, by the rank of the class counts.

    With classes sorted by decreasing count, $n_1$ the largest and $n_C$ the smallest: head classes get $s_c = -1$ and
    $x_c = n_c / n_1$, tail classes $s_c = +1$ and $x_c = n_C / n_c$. The most frequent head class and the rarest tail
    class change most.

    Args:
      counts: (classes,) numbers above 0, the class counts of the training set. Default: those seen so far.
      head: share of the classes that are head classes, in [0, 1]. Classes with equal counts are ranked by index.

    Returns:
      A rule.

    Raises:
      ValueError, TypeError: if a count is 0 or an argument is out of its range.

    Example:
      >>> from pugd_optax import classes
      >>> sign, extent = classes.long_tail([100, 10, 20, 50], head=0.5)(classes.init(4))
      >>> print(sign, extent)
      [-1.  1.  1. -1.] [1.  1.  0.5 0.5]

    Notes:
      On a balanced training set the ranks mean nothing; use `balanced`.
    """
    check_number("head", head, low=0, high=1)
    given = None if counts is None else check_counts(counts).astype(np.float32)

    def rule(state: ClassState) -> tuple[jax.Array, jax.Array]:
        if given is not None:
            check_counts(given, len(state.counts))
        n = state.counts if given is None else jnp.asarray(given)
        rank = jnp.argsort(jnp.argsort(-n, stable=True), stable=True)
        in_head = rank < round(head * len(n))
        exists = n > 0
        fewest = jnp.where(exists, n, jnp.inf).min()
        extent = jnp.where(in_head, n / jnp.where(exists.any(), n.max(), 1), fewest / jnp.where(exists, n, 1))
        sign = jnp.where(exists, jnp.where(in_head, -1.0, 1.0), 0.0)
        return sign, jnp.where(exists, extent, 0)

    return rule
