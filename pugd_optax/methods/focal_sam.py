"""Focal-SAM: sharpness weighted by class."""

from typing import Any

import jax.numpy as jnp
import optax

from pugd_optax._checks import check_number
from pugd_optax._class_checks import check_counts
from pugd_optax._from_logits import class_weighted
from pugd_optax._typing import Mask
from pugd_optax.schedules import Radius
from pugd_optax.timing import When


def focal_sam(
    counts: Any,
    radius: Radius = 0.2,
    gamma: float = 1.0,
    strength: float = 0.5,
    *,
    when: When = None,
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Focal SAM: sharpness is reduced for every class, more for rare ones.

    $$c_k = \lambda (1 - \pi_k)^\gamma, \qquad L_c = \tfrac1n \sum_i c_{y_i} \ell_i, \qquad
      \epsilon = \rho\,\frac{\nabla L_c(w)}{\|\nabla L_c(w)\|}, \qquad
      u = \nabla (L - L_c)(w) + \nabla L_c(w + \epsilon)$$

    with $\pi_k$ the share of class $k$ in the training set. Three gradient evaluations per step. $\gamma = 0$,
    $\lambda = 1$ is SAM.

    Args:
      counts: (classes,) numbers above 0, the class counts of the training set.
      radius: $\rho \ge 0$; a number or a schedule.
      gamma: $\gamma \ge 0$, how strongly frequent classes are down-weighted.
      strength: $\lambda \ge 0$, the weight of sharpness.
      when: the gate (see `pugd_optax.timing`). Default: every step. On other steps $g$ is passed on unchanged.
      mask: the parameters to perturb, a tree of bools or a function of the parameters; norms of the perturbation are
        over these only. Default: all.
      report: also store norms, cosine and distance of active steps in the state (see `pugd_optax.reevaluate`).

    Returns:
      An `optax.GradientTransformationExtraArgs` with

          update(grads, state, params, *, logits_fn, labels, where=None, logit_loss=None, **extra_args)

      as in `pugd_optax.lpg`: `logits_fn(params) -> logits` and `labels` are those of the batch that gave `grads`,
      `where` is False for rows that do not count, such as padding, `logit_loss(logits) -> scalar` is the loss, a sum or
      mean over examples; default: the mean softmax cross-entropy with `labels` over the rows that count.

    Raises:
      ValueError, TypeError: if an argument is out of its range; in `update`, if `params`, `logits_fn` or `labels` is
        missing or labels do not fit.

    Example:
      >>> import jax, jax.numpy as jnp, optax, pugd_optax
      >>> x, y = jnp.array([[1.0, 0.0], [0.5, 1.0], [2.0, 1.0]]), jnp.array([0, 1, 0])
      >>> logits_fn = lambda w: jnp.tanh(x @ w["a"]) @ w["b"]
      >>> loss_fn = lambda w: optax.softmax_cross_entropy_with_integer_labels(logits_fn(w), y).mean()
      >>> tx = optax.chain(pugd_optax.focal_sam(counts=[40, 10], radius=0.1), optax.sgd(0.5))
      >>> w = {"a": jnp.array([[0.5, -0.5], [0.2, 0.1]]), "b": jnp.eye(2)}
      >>> state = tx.init(w)
      >>> for _ in range(20):
      ...     updates, state = tx.update(jax.grad(loss_fn)(w), state, w, logits_fn=logits_fn, labels=y)
      ...     w = optax.apply_updates(w, updates)
      >>> print(f"{loss_fn(w):.3f}")
      0.065

    References:
      Li et al., Focal-SAM: Focal Sharpness-Aware Minimization for Long-Tailed Classification, ICML 2025,
      https://arxiv.org/abs/2505.01660

    Notes:
      The formula was checked against the authors' code, https://github.com/scongl/Focal-SAM. The defaults are those of
      its options, but every published command sets its own: for a ResNet-32 on a long tail of 100 : 1, $\rho = 0.2$,
      $\gamma = 3$ and $\lambda = 0.5$ on CIFAR-10, 0.3, 3.2 and 0.8 on CIFAR-100.
    """
    n = check_counts(counts)
    check_number("gamma", gamma, low=0)
    check_number("strength", strength, low=0)
    weights = lambda: strength * jnp.asarray(1 - n / n.sum()) ** gamma
    return class_weighted("focal_sam", weights, radius=radius, when=when, mask=mask, report=report)
