"""LPL: class-level perturbation of the logits."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pugd_optax import classes
from pugd_optax._checks import check_count, check_number
from pugd_optax._class_checks import check_positive, membership
from pugd_optax.through_logits import signed, through_logits


def lpl(
    num_classes: int,
    eps: optax.ScalarOrSchedule = 0.4,
    d_eps: optax.ScalarOrSchedule = 0.04,
    step_size: float = 0.01,
    *,
    rule: classes.Rule | None = None,
    inner: optax.GradientTransformation | None = None,
    decay: float | None = None,
    warmup_steps: int = 0,
    axis_name: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Learning to perturb logits: one vector per class is added to the logits before the loss.

    $$\delta_c \leftarrow \delta_c + s_c\, \alpha\, \mathrm{mean}_{i \in c}
      \big(\mathrm{softmax}(u_i + \delta_c) - y_i\big) \quad \lfloor \epsilon_c / \alpha \rfloor \text{ times}, \qquad
      \tilde g = \nabla_w\, \mathrm{mean}_i\, \ell\big(u_i + \mathrm{stop}(\delta_{y_i})\big)$$

    For amplified classes ($s_c = +1$) the steps ascend the cross-entropy, for dampened ones they descend it.
    $\epsilon_c = \epsilon + \Delta\epsilon\, x_c$, with sign and extent from a rule as in `pugd_optax.lpg`. The bound
    determines the number of steps. One gradient evaluation: the incoming gradient is not used, and the steps involve
    only the logits.

    Args:
      num_classes: number of classes, at least 2.
      eps: $\epsilon \ge 0$, in units of logits; a number or a schedule.
      d_eps: $\Delta\epsilon \ge 0$, added at extent 1; a number or a schedule.
      step_size: $\alpha > 0$.
      rule: sign and extent of each class: `pugd_optax.classes.balanced(relative=True)` (the default), in which the
        class farthest from the mean confidence on its side has extent 1, or `long_tail(counts)`.
      inner: a method with a second gradient, such as `pugd_optax.pugd()`: both gradients use the same frozen $\delta$.
      decay: decay of the running confidences, in [0, 1]. Default: 1 - 1 / num_classes. 0 is the paper's per-batch mean,
        over the classes seen so far.
      warmup_steps: number of steps without a perturbation at the start.
      axis_name: inside `shard_map` or `pmap`, the mesh axis over which the batch is split; one small all-reduce for
        each of the $\lfloor \epsilon_c / \alpha \rfloor$ steps. The gradient is not averaged.

    Returns:
      An `optax.GradientTransformationExtraArgs` whose `update` is that of `pugd_optax.lpg`. `logit_loss` receives the
      perturbed logits.

    Raises:
      ValueError, TypeError: as `pugd_optax.lpg`; here too, a label out of range under jit makes the gradient of the
        default loss NaN.

    Example:
      >>> import jax, jax.numpy as jnp, optax, pugd_optax
      >>> x, y = jnp.array([[1.0, 0.0], [0.5, 1.0], [2.0, 1.0]]), jnp.array([0, 1, 0])
      >>> tx = optax.chain(pugd_optax.lpl(2), optax.sgd(0.5))
      >>> logits_fn = lambda w: x @ w
      >>> loss_fn = lambda w: optax.softmax_cross_entropy_with_integer_labels(logits_fn(w), y).mean()
      >>> @jax.jit
      ... def step(w, state):
      ...     updates, state = tx.update(jax.grad(loss_fn)(w), state, w, logits_fn=logits_fn, labels=y)
      ...     return optax.apply_updates(w, updates), state
      >>> w = jnp.zeros((2, 2))
      >>> state = tx.init(w)
      >>> for _ in range(10):
      ...     w, state = step(w, state)
      >>> print(f"{loss_fn(w):.3f}")
      0.292

    References:
      Li, Su, Wu and Zhang, Logit Perturbation, AAAI 2022; by the same, Class-Level Logit Perturbation, TNNLS 2023,
      https://arxiv.org/abs/2209.05668

    Notes:
      Written from the paper's equations. The authors' code differs: it divides the class gradients by norms over the
      wrong axis, makes two steps per iteration, and lets classes that are not in the batch lower the mean confidence.

      Needs an array of classes x classes. Terms of the loss that are not a function of the logits are lost.
    """
    for name, value in (("eps", eps), ("d_eps", d_eps)):
        check_number(name, value, low=0, schedule=True)
    check_positive("step_size", step_size)
    check_count("warmup_steps", warmup_steps)
    rule = classes.balanced(relative=True) if rule is None else rule
    if isinstance(rule, classes.BatchRule):
        raise TypeError(
            "rule gives offsets, and LPL finds its own from a sign and an extent of each class. "
            "Fix: pugd_optax.lpg(num_classes, rule=rule), or rule=classes.long_tail(counts)."
        )
    bounds = {"eps": eps, "d_eps": d_eps, "cap": jnp.inf, "warmup_steps": warmup_steps}
    strength = signed(functools.partial(classes.strength, rule=rule, **bounds))

    def freeze(logits: jax.Array, members: jax.Array, t: Any):
        delta = class_ascent(logits, members, t, step_size, axis_name=axis_name)
        shift = jnp.matmul(members, delta, precision="highest").astype(logits.dtype)
        return lambda loss, u: jax.grad(loss)(u + shift)

    return through_logits(num_classes, freeze, strength, decay=decay, inner=inner, axis_name=axis_name)


def class_ascent(
    logits: jax.Array,
    labels: Any,
    strength: jax.Array,
    step_size: jax.typing.ArrayLike,
    *,
    axis_name: str | None = None,
) -> jax.Array:
    r"""Ascend (or descend) the cross-entropy of each class by a shift of the logits shared by all its examples.

    Args:
      logits: (..., classes).
      labels: (...) integer class indices, or (..., classes) soft labels in [0, 1].
      strength: (classes,); the sign is the direction and the size the bound: class c makes $\lfloor |t_c| / \alpha
        \rfloor$ steps.
      step_size: $\alpha > 0$.
      axis_name: a mesh axis over which the batch is split.

    Returns:
      $\delta$, (classes, classes): row c is added to the logits of class c. 0 for a class that is not in the batch.
    """
    size, num_classes = jnp.asarray(step_size, jnp.float32), logits.shape[-1]
    members = membership(labels, logits).reshape(-1, num_classes)
    u = logits.astype(jnp.float32).reshape(-1, num_classes)
    total = lambda x: x if axis_name is None else jax.lax.psum(x, axis_name)
    n = total(members.sum(0))
    share = members / jnp.where(n > 0, n, 1)[None, :]
    # A tolerance of a hundredth of a step: 0.45 / 0.15 is below 3 in float32, but means three steps.
    steps = jnp.floor(jnp.abs(strength) / size + 0.01)

    def climb(k, delta):
        p = jax.nn.softmax(u + jnp.matmul(members, delta, precision="highest"))
        mean = total(jnp.matmul(share.T, p, precision="highest")) - jnp.eye(num_classes, dtype=jnp.float32)
        active = (k < steps) & (n > 0)
        return delta + jnp.where(active, jnp.sign(strength) * size, 0)[:, None] * jnp.where(active[:, None], mean, 0)

    # A zero of the type that `climb` returns: inside shard_map, it varies over the mesh as the batch does.
    start = jnp.where(jnp.zeros((), bool), climb(0, jnp.zeros((num_classes, num_classes), jnp.float32)), 0)
    return jax.lax.fori_loop(0, jnp.max(steps).astype(jnp.int32), climb, start)
