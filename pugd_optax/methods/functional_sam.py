"""Functional SAM: SAM that perturbs the Jacobian of the network, but not the gradient of the loss at the logits."""

from typing import Any

import jax
import optax

from pugd_optax._checks import LOGIT_ARGS, check_extra_args, check_trees
from pugd_optax._from_logits import loss_of_logits
from pugd_optax._typing import Mask
from pugd_optax.methods.sam import sam
from pugd_optax.schedules import Radius
from pugd_optax.through_logits import pulled_back
from pugd_optax.timing import When


def functional_sam(
    radius: Radius = 0.05,
    *,
    when: When = None,
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Functional SAM: the Jacobian of the network is taken at the perturbed point, the gradient of the loss is not.

    $$\epsilon = \rho\,\frac{g}{\|g\|}, \qquad u = J(w + \epsilon)^\top\, \nabla_u \ell\big(u(w)\big)$$

    with the logits $u(w)$ and their Jacobian $J$. SAM's gradient changes along two paths, through $J$ and through the
    gradient at the logits; in language models the second dominates and lowers a sharpness that does not matter. Two
    gradient evaluations per step, and one more forward pass if the compiler does not merge it with the caller's.

    Args:
      radius: $\rho \ge 0$; a number or a schedule.
      when: the gate (see `pugd_optax.timing`). Default: every step. On other steps $g$ is passed on unchanged.
      mask: the parameters to perturb, a tree of bools or a function of the parameters; norms of the perturbation are
        over these only. Default: all.
      report: also store norms, cosine and distance of active steps in the state (see `pugd_optax.reevaluate`).

    Returns:
      An `optax.GradientTransformationExtraArgs` with

          update(grads, state, params, *, logits_fn, labels, where=None, logit_loss=None, **extra_args)

      as in `pugd_optax.lpg`: `logits_fn(params) -> logits` and `labels` are those of the batch that gave `grads`,
      `where` is False for rows that do not count, such as padding, `logit_loss(logits) -> scalar` is the loss; default:
      the mean softmax cross-entropy with `labels` over the rows that count.

    Raises:
      ValueError, TypeError: if an argument is out of its range; in `update`, if `params`, `logits_fn` or `labels` is
        missing or labels do not fit.

    Example:
      >>> import jax, jax.numpy as jnp, optax, pugd_optax
      >>> x, y = jnp.array([[1.0, 0.0], [0.5, 1.0], [2.0, 1.0]]), jnp.array([0, 1, 0])
      >>> logits_fn = lambda w: jnp.tanh(x @ w["a"]) @ w["b"]
      >>> loss_fn = lambda w: optax.softmax_cross_entropy_with_integer_labels(logits_fn(w), y).mean()
      >>> tx = optax.chain(pugd_optax.functional_sam(radius=0.1), optax.sgd(0.5))
      >>> w = {"a": jnp.array([[0.5, -0.5], [0.2, 0.1]]), "b": jnp.eye(2)}
      >>> state = tx.init(w)
      >>> for _ in range(20):
      ...     updates, state = tx.update(jax.grad(loss_fn)(w), state, w, logits_fn=logits_fn, labels=y)
      ...     w = optax.apply_updates(w, updates)
      >>> print(f"{loss_fn(w):.3f}")
      0.072

    References:
      Singh, Mobahi, Agarwala and Dauphin, Avoiding Spurious Sharpness Minimization Broadens Applicability of SAM, ICML
      2025, https://arxiv.org/abs/2502.02407

    Notes:
      The formula was checked against a third-party summary, https://junaidaliop.github.io/zij/math/functionalsam/, and
      the paper's abstract; the authors' code is not public. Their second proposal, an ascent preconditioned by the
      second moments of Adam, is not implemented.

      Terms of the loss that are not a function of the logits affect the ascent but are missing in $u$: put weight decay
      in the optimizer.
    """
    inner = sam(radius, when=when, mask=mask, report=report)

    def update(
        updates, state, params=None, *, logits_fn: Any = None, labels=None, where=None, logit_loss=None, **extra_args
    ):
        check_trees(updates, params)
        check_extra_args(extra_args, LOGIT_ARGS)
        loss = loss_of_logits("functional_sam", logits_fn, labels, where, logit_loss)

        def grad_fn(w_star: optax.Params) -> optax.Updates:
            at_w = jax.grad(loss)(logits_fn(params))
            return pulled_back(*jax.vjp(logits_fn, w_star), lambda logits: at_w, updates)

        return inner.update(updates, state, params, **(extra_args | {"grad_fn": grad_fn, "value_fn": None}))

    return optax.GradientTransformationExtraArgs(inner.init, update)
