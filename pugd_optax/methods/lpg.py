"""LPG: class-level perturbation of the logit gradients."""

import functools
from typing import Any

import jax
import optax

from pugd_optax import classes
from pugd_optax._checks import check_count, check_number
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

    With $g_i$ the gradient of the loss with respect to the logits $u_i$ of example i, of label $y_i = c$, a rule gives
    each class two offsets or one number:

    $$\tilde g_i = \mathrm{softmax}(u_i + a_c) - \mathrm{softmax}(u_i + b_c) \qquad \text{or} \qquad
      \tilde g_i = (1 + s_c\, \epsilon_c)\, g_i, \quad \epsilon_c = \min(\epsilon + \Delta\epsilon\, x_c, C)$$

    | data | rule | what it does |
    |---|---|---|
    | long tail | `pugd_optax.classes.prior(counts)` | offsets: the gradient of logit adjustment |
    | noisy labels | `pugd_optax.classes.confusion(total_steps)` | offsets: confused classes are believed less |
    | long tail | `pugd_optax.classes.long_tail(counts)` | one number, by the rank of the class counts |
    | | `pugd_optax.classes.balanced()`, the default | one number: classes below the mean confidence are amplified |

    The loss itself does not change, and both forms are relative, so its scale and reduction do not matter: the first is
    written for cross-entropy, and `pugd_optax.logits.offsets` has it around another loss. One gradient evaluation a
    step: the gradient that comes in is not used, and under jit its backward pass is not run.

    **Written from the paper's abstract alone.** That states the idea: perturb logit gradients at class level,
    adaptively, with amplification as positive and dampening as negative augmentation. The formulas here are our
    derivation from it and from LPL, the parent method; none of the paper's figures is claimed for them.

    Args:
      num_classes: number of classes, at least 2.
      eps: $\epsilon \ge 0$, the bound at extent 0, as a fraction of the gradient; a number or a schedule. This,
        `d_eps`, `cap`, `warmup_steps` and `renormalize` are for rules of one number.
      d_eps: $\Delta\epsilon \ge 0$, what an extent of 1 adds; a number or a schedule.
      rule: see the table.
      edit: for rules of one number: `pugd_optax.logits.multiplicative` (the default), as above, or `additive`, which
        adds $s_c \epsilon_c \bar g_c$.
      inner: a method that evaluates the gradient again, as `pugd_optax.pugd()`: both of its gradients are then edited
        with the same class scales.
      cap: $C$, the largest bound, in [0, 1].
      decay: of the running confidences, in [0, 1]. Default: 1 - 1 / num_classes.
      warmup_steps: number of first steps without a perturbation.
      renormalize: keep the total weight of a batch that of the plain loss. Without it, part of any effect may be that
        of another learning rate.
      axis_name: inside `shard_map` or `pmap`, the mesh axis over which the batch is split: per-class sums are added
        over it. The gradient itself is not: average it as without this method.

    Returns:
      An `optax.GradientTransformationExtraArgs` with

          update(grads, state, params, *, logits_fn, labels, where=None, logit_loss=None, logits_vjp=None, **extra_args)

      `logits_fn(params) -> logits`, (examples, ..., classes), and `labels` are those of the batch, labels as integer
      class indices or as soft labels in the shape of the logits. `where`, bool in the shape of the index labels, is
      False for padding: such rows do not count, whatever their label. `logit_loss(logits) -> scalar` is the loss;
      default: the mean softmax cross-entropy with `labels` over the rows that count. `logits_vjp` is what
      `jax.vjp(logits_fn, params)` returns, if the caller has it already; default: evaluated here. `inner` gets all
      extra arguments and its `grad_fn` from here. `optax.tree.get(state, "strength")` is the $s_c \epsilon_c$ of the
      last step; with offsets it is by how much the largest gradient of an example falls short of cross-entropy's.

    Raises:
      ValueError, TypeError: if an argument is out of its range, or is for rules of the other kind; in `update`, if
        `params`, `logits_fn` or `labels` is missing, shapes do not fit, or labels are out of range. Under jit labels
        cannot be read: there, such a label is neither counted nor edited, and makes the gradient of the default loss
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
      A method that evaluates the gradient again goes in as `inner`. In `optax.chain(lpg(10), sam())` both members get
      the caller's `grad_fn`, so SAM's second gradient, which is all that SAM keeps, would be unedited, unless that
      `grad_fn` edits it itself with `pugd_optax.logits.perturb` and the strength of this step.

      A training step that also needs the loss or running statistics takes them from the same forward pass:

          logits, pullback, stats = jax.vjp(logits_and_stats_fn, params, has_aux=True)
          loss, g = jax.value_and_grad(logit_loss)(logits)
          updates, state = tx.update(
              pullback(g)[0], state, params, logits_fn=logits_fn, labels=y, logits_vjp=(logits, pullback)
          )

      From a `jax.value_and_grad` beside it, XLA merges the two forward passes of a plain network and not those of one
      with normalisation layers, a third of a gradient more.

      Labels of -1 for padding go with `where=labels >= 0`, or with a `logit_loss` that leaves these rows out.

      Terms of the loss that are not a function of the logits are lost: put weight decay in the optimizer.

      With a loss that adjusts logits, let `logits_fn` give the raw ones and `logit_loss` adjust: confidence is measured
      on what `logits_fn` returns. With LDAM rules of one number stay the same, though its logits are scaled by 30; for
      offsets let `logits_fn` return the scaled logits.
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
        if callable(value) or (isinstance(value, int | float) and value != _DEFAULTS[name]):
            raise ValueError(
                f"{name}={value!r} is for rules of one number a class, and this rule sets its own bound. "
                f"Fix: leave {name} out, or give the rule its strength: classes.confusion(total_steps, bound=2.0)."
            )
