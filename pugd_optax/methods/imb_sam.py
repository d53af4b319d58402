"""ImbSAM: SAM on the tail classes only."""

from typing import Any

import jax.numpy as jnp
import optax

from pugd_optax._checks import check_count
from pugd_optax._class_checks import check_counts
from pugd_optax._from_logits import class_weighted
from pugd_optax._typing import Mask
from pugd_optax.schedules import Radius
from pugd_optax.timing import When


def imb_sam(
    counts: Any,
    radius: Radius = 0.05,
    eta: int = 20,
    *,
    when: When = None,
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Imbalanced SAM: SAM on the loss of classes with few examples, plain training on the others.

    $$L = L_{head} + L_{tail}, \qquad \epsilon = \rho\,\frac{\nabla L_{tail}(w)}{\|\nabla L_{tail}(w)\|}, \qquad
      u = \nabla L_{head}(w) + \nabla L_{tail}(w + \epsilon)$$

    The tail classes are those with fewer than $\eta$ training examples. Three gradient evaluations per step. If all
    classes are tail classes it is SAM.

    Args:
      counts: (classes,) numbers above 0, the class counts of the training set.
      radius: $\rho \ge 0$; a number or a schedule.
      eta: $\eta$; a class with fewer examples is a tail class. The authors use 20 for CIFAR-100-LT.
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
      >>> tx = optax.chain(pugd_optax.imb_sam(counts=[40, 10], radius=0.1), optax.sgd(0.5))
      >>> w = {"a": jnp.array([[0.5, -0.5], [0.2, 0.1]]), "b": jnp.eye(2)}
      >>> state = tx.init(w)
      >>> for _ in range(20):
      ...     updates, state = tx.update(jax.grad(loss_fn)(w), state, w, logits_fn=logits_fn, labels=y)
      ...     w = optax.apply_updates(w, updates)
      >>> print(f"{loss_fn(w):.3f}")
      0.064

    References:
      Zhou, Qu, Xu and Shen, ImbSAM: A Closer Look at Sharpness-Aware Minimization in Class-Imbalanced Recognition, ICCV
      2023, https://arxiv.org/abs/2308.07815

    Notes:
      The formula was checked against the authors' code, https://github.com/cool-xuan/Imbalanced_SAM, which differs in
      one point: it doubles the losses of tail classes, so part of its gain may be that of a class weight. To do the
      same, double them in the loss that gives `grads`, and pass this loss as `logit_loss`.
    """
    n = check_counts(counts)
    check_count("eta", eta, low=1, static=True)
    if not (n < eta).any():
        raise ValueError(
            f"eta={eta}: no class has fewer examples, so none would be perturbed. Fix: eta={int(min(n)) + 1}."
        )
    weights = lambda: jnp.asarray(n < eta, jnp.float32)
    return class_weighted("imb_sam", weights, radius=radius, when=when, mask=mask, report=report)
