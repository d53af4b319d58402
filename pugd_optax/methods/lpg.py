"""LPG: class-level perturbation of the logit gradients."""

import functools
from typing import Any

import jax
import optax

from pugd_optax import classes
from pugd_optax._checks import check_count, check_number, is_traced
from pugd_optax.logits import Edit, Offsets, Strength, renormalize as rescale
from pugd_optax.logits.perturb import edit_of
from pugd_optax.through_logits import signed, through_logits


def lpg(
    num_classes: int,
    eps: optax.ScalarOrSchedule = 0.1,
    d_eps: optax.ScalarOrSchedule = 0.25,
    *,
    rule: classes.Rule | classes.BatchRule | None = None,
    edit: Edit | None = None,
    inner: optax.GradientTransformation | None = None,
    cap: float = 0.9,
    decay: float | None = None,
    warmup_steps: int = 0,
    renormalize: bool = False,
    axis_name: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Learning to perturb gradients: amplify the logit gradients of some classes, dampen those of others.

    Let $g_i$ be the gradient of the loss with respect to the logits $u_i$ of example i with label $y_i = c$. A rule
    gives each class two offsets or one number:

    $$\tilde g_i = \mathrm{softmax}(u_i + a_c) - \mathrm{softmax}(u_i + b_c) \qquad \text{or} \qquad
      \tilde g_i = (1 + s_c\, \epsilon_c)\, g_i, \quad \epsilon_c = \min(\epsilon + \Delta\epsilon\, x_c, C)$$

    | data | rule | what it does |
    |---|---|---|
    | long tail | `pugd_optax.classes.prior(counts)` | offsets: the gradient of logit adjustment |
    | noisy labels | `pugd_optax.classes.confusion(total_steps)` | offsets: labels of confused classes count less |
    | long tail | `pugd_optax.classes.long_tail(counts)` | one number, by the rank of the class counts |
    | | `pugd_optax.classes.balanced()`, the default | one number: classes below the mean confidence are amplified |

    The loss itself does not change, and both forms are relative, so its scale and reduction do not matter. The first
    form is written for cross-entropy; `pugd_optax.logits.offsets` gives it for other losses. One gradient evaluation
    per step: the incoming gradient is not used, and under jit its backward pass is not run.

    **Written from the paper's abstract alone.** The abstract states the idea: perturb logit gradients at class level,
    adaptively, with amplification as positive and dampening as negative augmentation. The formulas here are derived
    from it and from LPL, the method it builds on; none of the paper's results are claimed for them.

    Args:
      num_classes: number of classes, at least 2.
      eps: $\epsilon \ge 0$, the bound at extent 0, as a fraction of the gradient; a number or a schedule. Like `d_eps`,
        `cap`, `warmup_steps` and `renormalize`, it is only for rules with one number.
      d_eps: $\Delta\epsilon \ge 0$, added at extent 1; a number or a schedule.
      rule: see the table.
      edit: for rules with one number: `pugd_optax.logits.multiplicative` (the default), as above, or `additive`, which
        adds $s_c \epsilon_c \bar g_c$.
      inner: a method with a second gradient, such as `pugd_optax.pugd()`: both of its gradients are then edited with
        the same class scales.
      cap: $C$, the largest bound, in [0, 1].
      decay: decay of the running confidences, in [0, 1]. Default: 1 - 1 / num_classes.
      warmup_steps: number of steps without a perturbation at the start.
      renormalize: keep the total weight of a batch equal to that of the plain loss. Otherwise part of any effect may be
        that of a different learning rate.
      axis_name: inside `shard_map` or `pmap`, the mesh axis over which the batch is split: per-class sums are added up
        over it. The gradient itself is not: average it as you would without this method.

    Returns:
      An `optax.GradientTransformationExtraArgs` with

          update(grads, state, params, *, logits_fn, labels, where=None, logit_loss=None, logits_vjp=None, **extra_args)

      `logits_fn(params) -> logits`, (examples, ..., classes), and `labels` are those of the batch; labels are integer
      class indices or soft labels with the shape of the logits. `where`, a bool array with the shape of the index
      labels, is False for padding: such rows do not count, whatever their label. `logit_loss(logits) -> scalar` is the
      loss; default: the mean softmax cross-entropy with `labels` over the rows that count. `logits_vjp` is the result
      of `jax.vjp(logits_fn, params)`, if the caller already has it; default: evaluated here. `inner` gets all extra
      arguments, and a `grad_fn` created here. `optax.tree.get(state, "strength")` is the $s_c \epsilon_c$ of the last
      step; with offsets it tells by how much the largest gradient of an example is smaller than that of cross-entropy.

    Raises:
      ValueError, TypeError: if an argument is out of its range, or is for rules of the other kind (a traced one cannot
        be told from a default that `optax.inject_hyperparams` traces, and is ignored there); in `update`, if
        `params`, `logits_fn` or `labels` is missing, shapes do not fit, or labels are out of range. Under jit labels
        cannot be checked: there, such a label is neither counted nor edited, and makes the gradient of the default loss
        NaN.

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
      Pass a method with a second gradient as `inner`. In `optax.chain(lpg(10), sam())` both members get the caller's
      `grad_fn`, so SAM's second gradient, which is SAM's output, would not be edited, unless `grad_fn` itself edits it
      with `pugd_optax.logits.perturb` and the strength of this step.

      A training step that also needs the loss or running statistics can take them from the same forward pass:

          logits, pullback, stats = jax.vjp(logits_and_stats_fn, params, has_aux=True)
          loss, g = jax.value_and_grad(logit_loss)(logits)
          updates, state = tx.update(
              pullback(g)[0], state, params, logits_fn=logits_fn, labels=y, logits_vjp=(logits, pullback)
          )

      With a separate `jax.value_and_grad`, XLA merges the two forward passes of a plain network, but not those of a
      network with normalisation layers, which costs a third of a gradient more.

      If padding has the label -1, pass `where=labels >= 0`, or a `logit_loss` that ignores these rows.

      Terms of the loss that are not a function of the logits are lost: put weight decay in the optimizer.

      If the loss adjusts logits, let `logits_fn` return the raw logits and adjust them in `logit_loss`, because
      confidence is measured on the output of `logits_fn`. With LDAM, rules with one number work unchanged, although its
      logits are scaled by 30; for offsets, let `logits_fn` return the scaled logits.
    """
    for name, value in (("eps", eps), ("d_eps", d_eps)):
        check_number(name, value, low=0, schedule=True)
    check_number("cap", cap, low=0, high=1)
    check_count("warmup_steps", warmup_steps)
    rule = classes.balanced() if rule is None else rule
    if isinstance(rule, classes.BatchRule):
        given = {"eps": eps, "d_eps": d_eps, "cap": cap, "warmup_steps": warmup_steps, "renormalize": renormalize}
        _refuse_bounds(given)
    else:
        bounds = {"eps": eps, "d_eps": d_eps, "cap": cap, "warmup_steps": warmup_steps}
        rule = signed(functools.partial(classes.strength, rule=rule, **bounds))

    def freeze(logits: jax.Array, members: jax.Array, t: Strength):
        if renormalize and not isinstance(t, Offsets):
            t = rescale(t, members, logits, axis_name=axis_name)
        edited = edit_of(t, edit, axis_name)
        return lambda loss, u: edited(jax.grad(loss)(u), u, members, t)

    return through_logits(num_classes, freeze, rule, decay=decay, inner=inner, axis_name=axis_name)


_DEFAULTS = {"eps": 0.1, "d_eps": 0.25, "cap": 0.9, "warmup_steps": 0, "renormalize": False}


def _refuse_bounds(given: dict[str, Any]) -> None:
    for name, value in given.items():
        # `optax.inject_hyperparams` passes the defaults too: as arrays, and traced under jit.
        if callable(value) or (not is_traced(value) and value != _DEFAULTS[name]):
            raise ValueError(
                f"{name}={value!r} is for rules with one number per class, and this rule sets its own bound. "
                f"Fix: leave {name} out, or give the rule its strength: classes.confusion(total_steps, bound=2.0)."
            )
