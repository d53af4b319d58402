"""LPG: class-level perturbation of the logit gradients."""

import functools

import jax
import optax

from pugd_optax import classes
from pugd_optax._checks import check_count, check_number
from pugd_optax.logits import Edit, multiplicative, renormalize as rescale
from pugd_optax.through_logits import through_logits


def lpg(
    num_classes: int,
    eps: optax.ScalarOrSchedule = 0.1,
    d_eps: optax.ScalarOrSchedule = 0.25,
    *,
    rule: classes.Rule | None = None,
    edit: Edit = multiplicative,
    inner: optax.GradientTransformation | None = None,
    cap: float = 0.9,
    decay: float | None = None,
    warmup_steps: int = 0,
    renormalize: bool = False,
    axis_name: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Learning to perturb gradients: amplify the logit gradients of some classes, dampen those of others.

    $$\tilde g_i = (1 + s_c\, \epsilon_c)\, g_i \quad (c = y_i), \qquad
      \epsilon_c = \min(\epsilon + \Delta\epsilon\, x_c,\ \mathrm{cap})$$

    $g_i$ is the gradient of the loss with respect to the logits of example i. The sign $s_c$ and the extent $x_c$ come
    from a rule on the running confidence of each class; by default, classes below the mean confidence are amplified.
    The loss itself does not change, and the bound is relative, so its scale and reduction do not matter. One gradient
    evaluation a step: the gradient that comes in is not used, and under jit its backward pass is not run.

    **Written from the paper's abstract alone.** That states the idea: perturb logit gradients at class level,
    adaptively, with amplification as positive and dampening as negative augmentation. The formulas here are our
    derivation from it and from LPL, the parent method; none of the paper's figures is claimed for them.

    Args:
      num_classes: number of classes, at least 2.
      eps: $\epsilon \ge 0$, the bound at extent 0, as a fraction of the gradient; a number or a schedule.
      d_eps: $\Delta\epsilon \ge 0$, what an extent of 1 adds; a number or a schedule.
      rule: sign and extent of each class: `pugd_optax.classes.balanced()` (the default), `long_tail(counts)` or
        `noisy()`.
      edit: `pugd_optax.logits.multiplicative`, as above, or `additive`, which adds $s_c \epsilon_c \bar g_c$.
      inner: a method that evaluates the gradient again, as `pugd_optax.pugd()`: both of its gradients are then edited
        with the same class scales.
      cap: the largest bound, in [0, 1].
      decay: of the running confidences, in [0, 1]. Default: 1 - 1 / num_classes.
      warmup_steps: number of first steps without a perturbation.
      renormalize: keep the total weight of a batch that of the plain loss. Without it, part of any effect may be that
        of another learning rate.
      axis_name: inside `shard_map` or `pmap`, the mesh axis over which the batch is split: per-class sums are added
        over it. The gradient itself is not: average it as without this method.

    Returns:
      An `optax.GradientTransformationExtraArgs` with

          update(grads, state, params, *, logits_fn, labels, logit_loss=None, logits_vjp=None, **extra_args)

      `logits_fn(params) -> logits`, (examples, ..., classes), and `labels` are those of the batch, labels as integer
      class indices or as soft labels in the shape of the logits. `logit_loss(logits) -> scalar` is the loss; default:
      the mean softmax cross-entropy with `labels`. `logits_vjp` is what `jax.vjp(logits_fn, params)` returns, if the
      caller has it already; default: evaluated here. `inner` gets all extra arguments and its `grad_fn` from here.
      `optax.tree.get(state, "strength")` is the $s_c \epsilon_c$ of the last step.

    Raises:
      ValueError, TypeError: if an argument is out of its range; in `update`, if `params`, `logits_fn` or `labels` is
        missing, shapes do not fit, or labels are out of range. Under jit labels cannot be read: there, such a label is
        neither counted nor edited, and makes the gradient of the default loss NaN.

    Example:
      >>> import jax, jax.numpy as jnp, optax, pugd_optax
      >>> x, y = jnp.array([[1.0, 0.0], [0.5, 1.0], [2.0, 1.0]]), jnp.array([0, 1, 0])
      >>> logits_fn = lambda w: x @ w
      >>> loss_fn = lambda w: optax.softmax_cross_entropy_with_integer_labels(logits_fn(w), y).mean()
      >>> def train(tx, w):
      ...     @jax.jit
      ...     def step(w, state):
      ...         grads = jax.grad(loss_fn)(w)
      ...         updates, state = tx.update(grads, state, w, logits_fn=logits_fn, labels=y)
      ...         return optax.apply_updates(w, updates), state
      ...     state = tx.init(w)
      ...     for _ in range(10):
      ...         w, state = step(w, state)
      ...     return loss_fn(w)
      >>> w = jnp.zeros((2, 2))
      >>> print(f"{train(optax.chain(pugd_optax.lpg(2), optax.sgd(0.5)), w):.3f}")
      0.298
      >>> print(f"{train(optax.chain(pugd_optax.lpg(2, inner=pugd_optax.pugd(0.1)), optax.sgd(0.1)), w):.3f}")
      0.364

    References:
      Li, Gradient Perturbation: Learning to Perturb Gradients for Adaptive Training, 2026,
      https://arxiv.org/abs/2605.29494 (its abstract). For LPL see `pugd_optax.lpl`.

    Notes:
      A method that evaluates the gradient again goes in as `inner`. In `optax.chain(lpg(10), sam())` both members get
      the caller's `grad_fn`, so SAM's second gradient, which is all that SAM keeps, would be unedited, unless that
      `grad_fn` edits it itself with `pugd_optax.logits.perturb` and the strength of this step.

      A training step that also wants the loss or running statistics takes them from the same forward pass:

          logits, pullback, stats = jax.vjp(logits_and_stats_fn, params, has_aux=True)
          loss, g = jax.value_and_grad(logit_loss)(logits)
          updates, state = tx.update(
              pullback(g)[0], state, params, logits_fn=logits_fn, labels=y, logits_vjp=(logits, pullback)
          )

      From a `jax.value_and_grad` beside it, XLA merges the two forward passes of a plain network and not those of one
      with normalisation layers, a third of a gradient more.

      Labels of -1 for padding go with a `logit_loss` that leaves these rows out; the default one takes them for errors.

      Terms of the loss that are not a function of the logits are lost: put weight decay in the optimizer.

      With a loss that adjusts logits, let `logits_fn` give the raw ones and `logit_loss` adjust: confidence is measured
      on what `logits_fn` returns. With LDAM nothing changes, though its logits are scaled by 30: the bound is relative.

      Whether low confidence should be amplified or dampened where labels are noisy has to be tried: see
      `pugd_optax.classes.noisy`.
    """
    for name, value in (("eps", eps), ("d_eps", d_eps)):
        check_number(name, value, low=0, schedule=True)
    check_number("cap", cap, low=0, high=1)
    check_count("warmup_steps", warmup_steps)
    rule = classes.balanced() if rule is None else rule
    strength = functools.partial(classes.strength, rule=rule, eps=eps, d_eps=d_eps, cap=cap, warmup_steps=warmup_steps)

    def freeze(logits: jax.Array, labels, t: jax.Array):
        t = rescale(t, labels, logits, axis_name=axis_name) if renormalize else t
        return lambda loss, u: edit(jax.grad(loss)(u), labels, t, axis_name=axis_name)

    return through_logits(num_classes, freeze, strength, decay=decay, inner=inner, axis_name=axis_name)
