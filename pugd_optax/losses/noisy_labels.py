"""Losses that are less affected by wrong labels than cross-entropy."""

from typing import Any

import jax
import jax.numpy as jnp

from pugd_optax._checks import check_number
from pugd_optax._class_checks import check_class_axis, check_positive, check_transitions
from pugd_optax._cross_entropy import cross_entropy, in_range
from pugd_optax._norms import widen


def gce(logits: jax.Array, labels: Any, q: float = 0.7) -> jax.Array:
    r"""Generalised cross-entropy, $(1 - p_y^q) / q$: between cross-entropy ($q \to 0$) and absolute error ($q = 1$).

    Args:
      logits: (..., classes).
      labels: (...) integer class indices. One out of range raises, or gives NaN under jit.
      q: in (0, 1].

    Returns:
      (...) losses, each below $1/q$.

    Raises:
      ValueError, TypeError: if `q` is out of its range, or logits and labels do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> gce(jnp.zeros((1, 2)), jnp.array([0]), q=1.0).tolist()
      [0.5]

    References:
      Zhang and Sabuncu, Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels, NeurIPS
      2018, https://arxiv.org/abs/1805.07836
    """
    check_number("q", q, low=0, high=1)
    check_positive("q", q)
    return jnp.expm1(-q * cross_entropy(logits, labels)) / -q


def sce(logits: jax.Array, labels: Any, alpha: float = 0.1, beta: float = 1.0, floor: float = 1e-4) -> jax.Array:
    r"""Symmetric cross-entropy: cross-entropy plus the same with prediction and label exchanged.

    $$\alpha\, (-\log p_y) + \beta\, (-\log A)\, (1 - p_y)$$

    Args:
      logits: (..., classes).
      labels: (...) integer class indices. One out of range raises, or gives NaN under jit.
      alpha: $\alpha \ge 0$, .1 for CIFAR-10 and 6 for CIFAR-100 in the paper.
      beta: $\beta \ge 0$, 1 for CIFAR-10 and .1 for CIFAR-100.
      floor: $A$ in (0, 1], replaces the 0 in the $\log 0$ of the labels; 1e-4 in the authors' code.

    Returns:
      (...) losses.

    Raises:
      ValueError, TypeError: if an argument is out of its range, or logits and labels do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> print(jnp.array_str(sce(jnp.zeros((1, 2)), jnp.array([0])), precision=3))
      [4.674]

    References:
      Wang, Ma, Chen, Luo, Yi and Bailey, Symmetric Cross Entropy for Robust Learning with Noisy Labels, ICCV 2019,
      https://arxiv.org/abs/1908.06112
    """
    check_number("alpha", alpha, low=0)
    check_number("beta", beta, low=0)
    check_number("floor", floor, low=0, high=1)
    check_positive("floor", floor)
    ce = cross_entropy(logits, labels)
    log_floor = jnp.log(jnp.asarray(floor, widen(ce).dtype)).astype(ce.dtype)  # 1e-9 would be 0 in float16
    return alpha * ce - beta * log_floor * -jnp.expm1(-ce)


def forward_correction(logits: jax.Array, labels: Any, transitions: Any) -> jax.Array:
    r"""Forward correction for noisy labels: cross-entropy of the predicted distribution of the **noisy** label.

    $$-\log \sum_k p_k\, T_{k y}, \qquad p = \mathrm{softmax}(u)$$

    Args:
      logits: $u$, (..., classes).
      labels: (...) integer class indices, the noisy labels. One out of range raises, or gives NaN under jit.
      transitions: $T$, (classes, classes), entries in [0, 1], rows that sum to 1: how often class k is labelled c.
        Known, or estimated: `pugd_optax.classes.transitions`. May be traced.

    Returns:
      (...) losses. With the identity as $T$ it is cross-entropy.

    Raises:
      ValueError, TypeError: if logits, labels and $T$ do not fit, or rows of an untraced $T$ do not sum to 1.

    Example:
      >>> import jax.numpy as jnp
      >>> flips = jnp.array([[0.75, 0.25], [0.25, 0.75]])
      >>> print(jnp.array_str(forward_correction(jnp.array([[9.0, 0.0]]), jnp.array([1]), flips), precision=2))
      [1.39]

    References:
      Patrini, Rozza, Menon, Nock and Qu, Making Deep Neural Networks Robust to Label Noise: a Loss Correction
      Approach, CVPR 2017, https://arxiv.org/abs/1609.03683
    """
    num_classes = check_class_axis(logits)
    check_transitions(transitions, num_classes)
    u, (safe, factor) = widen(logits), in_range(labels, logits)
    columns = jnp.log(jnp.asarray(transitions, u.dtype)).T[safe]
    # A difference of two log-sum-exps: finite where p_k underflows.
    losses = jax.nn.logsumexp(u, axis=-1) - jax.nn.logsumexp(u + columns, axis=-1)
    return (losses * factor).astype(logits.dtype)
