"""Losses and weights for long tails, based on the class counts of the training set."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pugd_optax._checks import check_count, check_number
from pugd_optax._class_checks import check_class_axis, check_counts, check_indices, check_positive
from pugd_optax._cross_entropy import cross_entropy
from pugd_optax._norms import widen


def balanced_softmax(logits: jax.Array, labels: Any, counts: Any) -> jax.Array:
    r"""Cross-entropy with the class counts in the softmax, $\mathrm{CE}(u + \log n, y)$.

    Args:
      logits: $u$, (..., classes).
      labels: (...) integer class indices. One out of range raises, or gives NaN under jit.
      counts: (classes,) numbers above 0, the class counts of the training set.

    Returns:
      (...) losses. The same as `logit_adjustment` at $\tau = 1$.

    Raises:
      ValueError, TypeError: if a count is 0, or logits, labels and counts do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> print(jnp.array_str(balanced_softmax(jnp.zeros((2, 2)), jnp.array([0, 1]), [3, 1]), precision=3))
      [0.288 1.386]

    References:
      Ren et al., Balanced Meta-Softmax for Long-Tailed Visual Recognition, NeurIPS 2020,
      https://arxiv.org/abs/2007.10740
    """
    return logit_adjustment(logits, labels, counts, tau=1.0)


def logit_adjustment(logits: jax.Array, labels: Any, counts: Any, tau: float = 1.0) -> jax.Array:
    r"""Logit-adjusted cross-entropy, $\mathrm{CE}(u + \tau \log \pi, y)$ with the class frequencies $\pi$.

    Args:
      logits: $u$, (..., classes).
      labels: (...) integer class indices. One out of range raises, or gives NaN under jit.
      counts: (classes,) numbers above 0, the class counts of the training set.
      tau: $\tau \ge 0$; 0 is plain cross-entropy.

    Returns:
      (...) losses.

    Raises:
      ValueError, TypeError: if a count is 0, `tau` is below 0, or logits, labels and counts do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> print(jnp.array_str(logit_adjustment(jnp.zeros((2, 2)), jnp.array([0, 1]), [3, 1], tau=0.0), precision=3))
      [0.693 0.693]

    References:
      Menon, Jayasumana, Rawat, Jain, Veit and Kumar, Long-Tail Learning via Logit Adjustment, ICLR 2021,
      https://arxiv.org/abs/2007.07314
    """
    check_number("tau", tau, low=0)
    return cross_entropy(adjust_logits(logits, counts, -tau), labels)


def adjust_logits(logits: jax.Array, counts: Any, tau: float = 1.0) -> jax.Array:
    r"""Post-hoc logit adjustment, $u - \tau \log \pi$: for predicting with a model trained on plain cross-entropy.

    Args:
      logits: $u$, (..., classes).
      counts: (classes,) numbers above 0, the class counts of the training set.
      tau: $\tau$.

    Returns:
      Adjusted logits; predict their argmax.

    Raises:
      ValueError, TypeError: if a count is 0 or does not fit the logits.

    Example:
      >>> import jax.numpy as jnp
      >>> int(adjust_logits(jnp.array([[1.0, 0.5]]), [3, 1]).argmax())
      1
    """
    check_number("tau", tau)
    n = check_counts(counts, check_class_axis(logits))
    return logits + _along_classes(-np.log(n / n.sum()), logits) * jnp.asarray(tau, logits.dtype)


def ldam(logits: jax.Array, labels: Any, counts: Any, max_margin: float = 0.5, scale: float = 30.0) -> jax.Array:
    r"""Label-distribution-aware margins: the rarer the true class, the larger its margin.

    $$\mathrm{CE}\big(s\,(u - m_y\, e_y),\, y\big), \qquad m_c = m_{\max} \Big(\frac{n_c}{\min_k n_k}\Big)^{-1/4}$$

    Args:
      logits: $u$, (..., classes): cosines, from normalised features and a normalised last layer.
      labels: (...) integer class indices. One out of range raises, or gives NaN under jit.
      counts: (classes,) numbers above 0, the class counts of the training set.
      max_margin: $m_{\max} \ge 0$, the margin of the rarest class.
      scale: $s > 0$.

    Returns:
      (...) losses. For LDAM-DRW average them by `weighted_mean` with `drw_weights(counts, step, start)[labels]`.

    Raises:
      ValueError, TypeError: if a count is 0, or logits, labels and counts do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> u, y, counts = jnp.array([[0.5, 0.0], [0.0, 0.5]]), jnp.array([0, 1]), [16, 1]
      >>> print(jnp.array_str(ldam(u, y, counts, scale=1.0), precision=3))
      [0.576 0.693]

    References:
      Cao, Wei, Gaidon, Arechiga and Ma, Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss,
      NeurIPS 2019, https://arxiv.org/abs/1906.07413
    """
    check_number("max_margin", max_margin, low=0)
    check_positive("scale", scale)
    n = check_counts(counts, check_class_axis(logits))
    u = widen(logits)  # scaled by 30, a logit of 2200 is beyond float16
    margins = _along_classes((n.min() / n) ** 0.25, u) * jnp.asarray(max_margin, u.dtype)
    true_class = jax.nn.one_hot(check_indices(labels, logits), len(n), dtype=u.dtype)
    return cross_entropy(jnp.asarray(scale, u.dtype) * (u - margins * true_class), labels).astype(logits.dtype)


def class_balanced_weights(counts: Any, beta: float = 0.9999) -> jax.Array:
    r"""Weights by the effective number of examples, $(1 - \beta) / (1 - \beta^{n_c})$, rescaled to sum to C.

    Args:
      counts: (classes,) numbers above 0, the class counts of the training set.
      beta: $\beta$ in [0, 1); 0 gives equal weights, towards 1 they approach inverse frequency.

    Returns:
      (classes,) float32. Average losses by `weighted_mean(losses, weights[labels])`; the authors' code, which
      divides by the number of examples instead, has smaller gradients on a long tail (see `weighted_mean`).

    Raises:
      ValueError, TypeError: if a count is 0 or `beta` is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> print(jnp.array_str(class_balanced_weights([1000, 10], beta=0.99), precision=3))
      [0.175 1.825]

    References:
      Cui, Jia, Lin, Song and Belongie, Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019,
      https://arxiv.org/abs/1901.05555
    """
    check_number("beta", beta, low=0, high=1)
    if beta == 1:
        raise ValueError(f"beta={beta}: expected a number in [0, 1). Fix: beta=0.9999.")
    weights = 1 / (1 - beta ** check_counts(counts))
    return jnp.asarray(weights * len(weights) / weights.sum(), jnp.float32)


def drw_weights(counts: Any, step: jax.typing.ArrayLike, start: int, beta: float = 0.9999) -> jax.Array:
    r"""Deferred re-weighting: equal weights up to a step, class-balanced weights from then on.

    Args:
      counts: (classes,) numbers above 0, the class counts of the training set.
      step: the current step; may be traced.
      start: first step with class-balanced weights; the paper of LDAM starts at 0.8 of the training.
      beta: as in `class_balanced_weights`.

    Returns:
      (classes,) float32 that sum to C.

    Raises:
      ValueError, TypeError: if a count is 0, or `start` or `beta` is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> for step in (4, 5):
      ...     print(jnp.array_str(drw_weights([1000, 10], step, start=5, beta=0.99), precision=2))
      [1. 1.]
      [0.17 1.83]

    References:
      Cao et al., the paper of `ldam`, https://arxiv.org/abs/1906.07413
    """
    check_count("start", start)
    weights = class_balanced_weights(counts, beta)
    return jnp.where(jnp.asarray(step) >= start, weights, jnp.ones_like(weights))


def weighted_mean(losses: jax.Array, weights: jax.Array) -> jax.Array:
    r"""The weighted mean of losses, $\sum_i v_i \ell_i / \sum_i v_i$, as in the code of LDAM-DRW.

    `(weights * losses).mean()` divides by the number of examples instead, as the authors of `class_balanced_weights`
    do. On a long tail most examples have small weights, so its gradient is smaller at the same learning rate: 5.8 times
    with these weights on CIFAR-10 with an imbalance of 100.

    Args:
      losses: (...) losses.
      weights: (...) weights $v_i \ge 0$, one for each label: `class_balanced_weights(counts)[labels]`.

    Returns:
      A scalar; 0 where all weights are 0.

    Raises:
      ValueError: if shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> float(weighted_mean(jnp.array([1.0, 3.0]), jnp.array([0.5, 1.5])))
      2.5

    References:
      Cao, Wei, Gaidon, Arechiga and Ma, Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss,
      NeurIPS 2019, https://arxiv.org/abs/1906.07413 (their code takes PyTorch's weighted cross-entropy)
    """
    if jnp.shape(losses) != jnp.shape(weights):
        raise ValueError(
            f"weights have the shape {jnp.shape(weights)}, losses {jnp.shape(losses)}: expected one weight for each "
            "loss. Fix: weights[labels]."
        )
    total = jnp.sum(weights * widen(losses))
    weight = jnp.sum(weights, dtype=total.dtype)
    return (total / jnp.where(weight > 0, weight, 1)).astype(losses.dtype)


def _along_classes(x: np.ndarray, logits: jax.Array) -> jax.Array:
    """One number per class, in the dtype of the logits and ready to be added to them."""
    return jnp.asarray(x, logits.dtype).reshape((1,) * (logits.ndim - 1) + (-1,))
