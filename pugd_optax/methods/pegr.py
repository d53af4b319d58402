"""PEGR: per-example gradient regularisation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pugd_optax._checks import check_count, check_number
from pugd_optax._typing import Combine
from pugd_optax.combines import replace
from pugd_optax.per_example import Evaluator, ghost, micro_batches, regularized
from pugd_optax.reevaluate import reevaluate
from pugd_optax.timing import When


def pegr(
    strength: optax.ScalarOrSchedule,
    penalty: Evaluator | None = None,
    *,
    group_size: int = 1,
    when: When = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Per-example gradient regularisation: descend the loss plus the mean squared gradient norm of the examples.

    $$u = \nabla \Big( \frac1n \sum_i \ell_i + \frac{\lambda}{2n} \sum_i \|\nabla \ell_i\|^2 \Big)
        = g + \frac{\lambda}{n} \sum_i H_i g_i$$

    Besides the norm of the gradient, the penalty contains its variance over the examples, so features of single
    examples are learned less than features that examples share. Loss and penalty are differentiated together, from
    `losses_fn`. The exact penalty costs about twice as much as a gradient for dense layers and three times for
    convolutions; the estimator costs three times as much.

    Args:
      strength: $\lambda \ge 0$; a number or a schedule. Its unit is the loss divided by a squared gradient norm: 0.01
        to 0.1 is a first guess for cross-entropy. At 0 the gradient is returned unchanged.
      penalty: the evaluator (`pugd_optax.per_example`): `ghost`, exact (default); `signs(key)`, unbiased on any model;
        or `reference`, exact and slow.
      group_size: $b$, the size of micro-batches used in place of examples; it must divide the batch. 1 is PEGR, the
        whole batch is gradient regularisation, $g + \lambda H g$.
      when: the gate (see `pugd_optax.timing`). Default: every step. On other steps $g$ is passed on unchanged.

    Returns:
      An `optax.GradientTransformationExtraArgs` with

          update(grads, state, params, *, losses_fn, active=None, **extra_args)

      where `losses_fn(params)` returns the loss of each example, [batch], on the batch and with the random key that
      gave `grads`.

    Raises:
      ValueError, TypeError: if an argument is out of its range; in `update`, if `losses_fn` is missing, returns no
        vector, or couples examples as BatchNorm in training mode does; if the batch is not divisible by `group_size`;
        if a parameter is complex; with `ghost`, if it cannot follow a parameter.

    Example:
      >>> import jax, jax.numpy as jnp, optax, pugd_optax
      >>> x, y = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([1.0, 0.0])
      >>> losses_fn = lambda w: jnp.logaddexp(0.0, x @ w) - y * (x @ w)
      >>> tx = optax.chain(pugd_optax.pegr(0.1), optax.sgd(0.1))
      >>> w = jnp.array([1.0, 2.0])
      >>> state = tx.init(w)
      >>> for _ in range(10):
      ...     grads = jax.grad(lambda w: jnp.mean(losses_fn(w)))(w)
      ...     updates, state = tx.update(grads, state, w, losses_fn=losses_fn)
      ...     w = optax.apply_updates(w, updates)
      >>> print(f"{jnp.mean(losses_fn(w)):.3f}")
      0.582

    References:
      Meng, Cao and Zou, Per-Example Gradient Regularization Improves Learning Signals from Noisy Data,
      https://arxiv.org/abs/2303.17940

    Notes:
      On active steps the gradient is computed from `losses_fn`, not taken from `grads`. Under jit the caller's own
      backward pass is then never computed and costs nothing. Anything in `grads` other than the gradient of the mean of
      `losses_fn` (weight decay, an edit by a transformation before this one) is lost. Decay and clip after it.

      If the strength is a schedule or traced, that backward pass is computed, because the strength may be 0.

      For one ReLU layer with a fixed second layer the penalty does not help: there is no curvature along a pattern.
    """
    check_number("strength", strength, low=0, schedule=True)
    check_count("group_size", group_size, low=1, static=True)
    penalty = ghost if penalty is None else penalty
    constant = isinstance(strength, int | float | np.number)
    never = constant and strength == 0
    combine = replace if constant else _unless_zero(strength)
    inner = reevaluate(optax.set_to_zero(), combine, radius=0.0, when=when)

    def update(updates, state, params=None, *, losses_fn=None, grad_fn=None, value_fn=None, active=None, **extra_args):
        del grad_fn, value_fn
        if losses_fn is None:
            raise ValueError(_NO_LOSSES)
        at = strength(state.step) if callable(strength) else strength
        objective = regularized(micro_batches(losses_fn, group_size), at, penalty, state.step)
        active = False if never else active
        return inner.update(updates, state, params, grad_fn=jax.grad(objective), active=active, **extra_args)

    return optax.GradientTransformationExtraArgs(inner.init, update)


_NO_LOSSES = (
    "pegr needs losses_fn= in update, the loss of each example as a function of the parameters. Fix: "
    "tx.update(grads, state, params, losses_fn=lambda p: losses(p, batch)), a vector [batch], with the batch and the "
    "random key that gave grads; with value_and_grad, extra_args=dict(losses_fn=...)."
)


def _unless_zero(strength: Any) -> Combine:
    """The regularised gradient, or the unchanged gradient if the strength is 0."""

    def combine(g: optax.Updates, g_star: optax.Updates, step: jax.typing.ArrayLike = 0) -> optax.Updates:
        zero = jnp.asarray(strength(step) if callable(strength) else strength) == 0
        return jax.tree.map(lambda x, y: jnp.where(zero, x, y), g, g_star)

    return combine
