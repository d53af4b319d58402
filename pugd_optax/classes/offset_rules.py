r"""Rules with two offsets per class: from class counts for long tails, from observed confusions for noisy labels."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

from pugd_optax._checks import check_count, check_number
from pugd_optax._class_checks import check_counts, check_positive
from pugd_optax.classes.state import ClassState
from pugd_optax.logits.offsets import Offsets
from pugd_optax.logits.perturb import Strength

_UNTIL_LEARNED = 2.0
"""The bound before the confusions are known."""


class BatchRule(NamedTuple):
    """A rule with its own memory that sees each batch.

    Attributes:
      init: `num_classes -> state`.
      update: `(state, seen, logits, members, axis_name) -> (strength, state)` with the `ClassState` of this batch, its
        logits, its labels as soft labels (all 0 for rows that do not count), and the mesh axis of its sums or None.
        `strength` is what `pugd_optax.logits.perturb` takes.
    """

    init: Callable[[int], Any]
    update: Callable[[Any, ClassState, jax.Array, jax.Array, str | None], tuple[Strength, Any]]


def prior(counts: Any, tau: optax.ScalarOrSchedule = 1.0) -> BatchRule:
    r"""For long tails: amplify tail classes and dampen head classes by putting the class frequencies into the softmax.

    $$a_{ck} = \tau \log \pi_k, \qquad b = -\infty: \qquad
      \tilde g_i = \mathrm{softmax}(u_i + \tau \log \pi) - e_{y_i}$$

    With cross-entropy, the gradients are those of `pugd_optax.losses.logit_adjustment`.

    Args:
      counts: (classes,) numbers above 0, the class counts of the training set.
      tau: $\tau \ge 0$, a number or a schedule of the number of batches; 0 is the plain loss.

    Returns:
      A rule.

    Raises:
      ValueError, TypeError: if a count is 0, counts do not fit the number of classes, or `tau` is below 0.

    Example:
      >>> import jax, jax.numpy as jnp, optax, pugd_optax
      >>> from pugd_optax import classes
      >>> x, y = jnp.array([[1.0, 0.0], [0.5, 1.0], [2.0, 1.0]]), jnp.array([0, 1, 0])
      >>> tx = pugd_optax.lpg(2, rule=classes.prior([2, 1]))
      >>> w = jnp.zeros((2, 2))
      >>> g, _ = tx.update(w, tx.init(w), w, logits_fn=lambda w: x @ w, labels=y)
      >>> adjusted = lambda w: pugd_optax.losses.logit_adjustment(x @ w, y, [2, 1]).mean()
      >>> bool(jnp.allclose(g, jax.grad(adjusted)(w), atol=1e-6))
      True
    """
    n = check_counts(counts)
    check_number("tau", tau, low=0, schedule=True)
    log_prior = np.log(n / n.sum())

    def init(num_classes: int) -> tuple:
        check_counts(n, num_classes)
        return ()

    def update(state, seen, logits, members, axis_name):
        del logits, members, axis_name
        at = jnp.asarray(tau(seen.step - 1) if callable(tau) else tau, float)
        return Offsets(at * jnp.asarray(log_prior, float), None), state

    return BatchRule(init, update)


def confusion(total_steps: int, bound: float = 3.0, window: tuple[float, float] = (0.05, 0.2)) -> BatchRule:
    r"""For noisy labels: trust a label less the more its class is confused with another.

    $$a = 0, \qquad b_{ck} = \mathrm{clip}\Big(\log \frac{T_{kc}}{T_{cc}},\ -B,\ 0\Big), \qquad
      T = \text{rows of } N + 1 + 4I \text{, divided by their sums}$$

    $N_{kc}$ is how often an example labelled c was predicted as k. It is counted in an early window of training and
    then frozen, because a network that has memorised its labels predicts all of them. $T_{kc}$ estimates how often an
    example of class k is labelled c, so $\mathrm{softmax}(u + b_c)$ is the posterior of the true class given the label,
    with odds of at most $e^B$ in favour of the label. Before the end of the window, b = -2 off the diagonal. No clean
    data is needed.

    Args:
      total_steps: number of batches of the whole training.
      bound: $B > 0$, the largest log-odds in favour of a label. 2 to 3 work well; `float("inf")` uses the estimate as
        it is.
      window: first and last share of `total_steps` in which confusions are counted, in [0, 1].

    Returns:
      A rule. Its state, (classes, classes) float32, is $N$; `transitions` computes $T$ from it.

    Raises:
      ValueError, TypeError: if an argument is out of its range, or no step lies in the window or after it.

    Example:
      >>> import jax.numpy as jnp, pugd_optax
      >>> from pugd_optax import classes
      >>> tx = pugd_optax.lpg(2, rule=classes.confusion(total_steps=1000))
      >>> x, y, w = jnp.eye(2), jnp.array([0, 1]), jnp.zeros((2, 2))
      >>> g, state = tx.update(w, tx.init(w), w, logits_fn=lambda w: x @ w, labels=y)
      >>> print(jnp.array_str(g, precision=2))  # cross-entropy's would be +-0.25
      [[-0.19  0.19]
       [ 0.19 -0.19]]

    Notes:
      It is made for noise with class structure (one digit mistaken for another). Under symmetric noise all classes are
      equally affected, and a robust loss such as `pugd_optax.losses.gce` does as well. With clean labels it costs a
      little accuracy.

      Choose the learning rate by validation: if two classes are confused from the start, a high learning rate may give
      one of them up, in some seeds only. Do not combine it with `gce`: both reduce the weight of examples with low
      confidence, and together they may fail to learn whole classes.
    """
    check_count("total_steps", total_steps, low=1, static=True)
    if isinstance(bound, jax.core.Tracer) or bound != math.inf:
        check_positive("bound", bound)
    first, last = _steps_of(window, total_steps)

    def init(num_classes: int) -> jax.Array:
        return jnp.zeros((num_classes, num_classes), jnp.float32)

    def update(state, seen, logits, members, axis_name):
        step = seen.step - 1
        state = state + jnp.where((step >= first) & (step < last), _count(logits, members, axis_name), 0)
        off_diagonal = 1 - jnp.eye(len(state), dtype=jnp.float32)
        log = jnp.log(transitions(state)).T
        learned = jnp.clip(log - jnp.diagonal(log)[:, None], -bound, 0)
        return Offsets(None, jnp.where(step < last, -jnp.minimum(bound, _UNTIL_LEARNED) * off_diagonal, learned)), state

    return BatchRule(init, update)


def transitions(confusions: jax.Array) -> jax.Array:
    r"""How often class k is labelled c, estimated from the confusions counted by `confusion`.

    $$T = \text{rows of } N + 1 + 4I \text{, divided by their sums}$$

    Args:
      confusions: $N$, (classes, classes): row k is the prediction, column c the label.

    Returns:
      $T$, (classes, classes), rows sum to 1: what `pugd_optax.losses.forward_correction` takes.

    Example:
      >>> import jax.numpy as jnp
      >>> from pugd_optax import classes
      >>> print(jnp.array_str(classes.transitions(jnp.array([[15.0, 0.0], [4.0, 10.0]])), precision=2))
      [[0.95 0.05]
       [0.25 0.75]]
    """
    smoothed = confusions + 1 + 4 * jnp.eye(len(confusions), dtype=confusions.dtype)
    return smoothed / smoothed.sum(1, keepdims=True)


def _count(logits: jax.Array, members: jax.Array, axis_name: str | None) -> jax.Array:
    """The confusions of one batch, without rows whose largest logit is not finite; -inf is a class not allowed."""
    num_classes = logits.shape[-1]
    u = jax.lax.stop_gradient(logits).reshape(-1, num_classes)
    predicted = jax.nn.one_hot(u.argmax(-1), num_classes, dtype=jnp.float32)
    predicted = jnp.where(jnp.isfinite(u.max(-1, keepdims=True)), predicted, 0)
    counts = jnp.matmul(predicted.T, members.reshape(-1, num_classes), precision="highest")
    return counts if axis_name is None else jax.lax.psum(counts, axis_name)


def _steps_of(window: tuple[float, float], total_steps: int) -> tuple[int, int]:
    """The first step of the window and the first after it."""
    if not (isinstance(window, tuple | list) and len(window) == 2):
        raise TypeError(f"window={window!r}: expected two shares of training. Fix: window=(0.05, 0.2).")
    for end in window:
        check_number("window", end, low=0, high=1)
    # A tolerance of a thousandth of a step: 0.2 * 15 is above 3 in floating point.
    first, last = (math.ceil(share * total_steps - 1e-3) for share in window)
    if not first < last < total_steps:
        what = "holds none" if first >= last else "leaves none after it"
        raise ValueError(
            f"window={tuple(window)} {what} of the {total_steps} steps, so confusions would never be learned and used. "
            "Fix: window=(0.05, 0.2) and total_steps= of the whole training."
        )
    return first, last
