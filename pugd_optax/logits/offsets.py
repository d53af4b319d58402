r"""Two offsets per class: class-level perturbations of the logit gradient in closed form.

$$\tilde g_i = \mathrm{softmax}(u_i + a_{y_i}) - \mathrm{softmax}(u_i + b_{y_i})$$

$a_c$ and $b_c$ are rows of numbers over classes, one row for each label. $a$ shifts the prediction, $b$ the target.
With $b_{cc} = 0$ and $b_{ck} = -\infty$ elsewhere the second softmax is the one-hot label. Special cases:

| $a$ | $b$ | |
|---|---|---|
| 0 | $-\infty$ | cross-entropy |
| $\tau \log \pi$ | $-\infty$ | logit adjustment |
| $a_{cc} = -m_c$ | $-\infty$ | LDAM at scale 1 |
| $\delta_c$ | $-\infty$ | LPL |
| 0 | in $[-B, 0]$ | bounded targets: a label is trusted less if its class is confused with others |
"""

from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from pugd_optax._norms import widen


class Offsets(NamedTuple):
    """Two offsets per class, created by `offsets`.

    Attributes:
      a: (classes,) or (classes, classes), added to the logits of the prediction; None for 0.
      b: (classes, classes), added to the logits of the target, at most 0; None for the one-hot target.
    """

    a: jax.Array | None
    b: jax.Array | None


def offsets(a: Any = None, b: Any = None) -> Offsets:
    r"""A perturbation by two offsets, to be passed as `strength` to `perturb` and `linear_surrogate`.

    $$\tilde g_i = g_i + r_i\, \delta_i, \qquad
      \delta_i = [\mathrm{softmax}(u_i + a_y) - \mathrm{softmax}(u_i)] + [e_y - \mathrm{softmax}(u_i + b_y)]$$

    $r_i$ is the weight that the loss gives to the example, computed from its gradient: $1/n$ for the mean cross-entropy
    of n examples, so that $\tilde g_i = \frac1n [\mathrm{softmax}(u_i + a_y) - \mathrm{softmax}(u_i + b_y)]$, and
    $p_y^q / n$ for the mean of `pugd_optax.losses.gce`. So the reduction and the scale of the loss do not matter.

    Args:
      a: $a$: (classes, classes), row c for label c; or (classes,), the same for every label. Default: 0.
      b: $b \le 0$ with a diagonal of 0, (classes, classes), row c for label c; entries may be $-\infty$. Default:
        $-\infty$ off the diagonal, the one-hot target.

    Returns:
      `Offsets`.

    Raises:
      ValueError, TypeError: if shapes do not fit, or an untraced `b` is above 0 or not 0 on the diagonal.

    Example:
      Labels of class 0 are trusted up to odds of $e^2$, labels of class 1 fully:

      >>> import jax, jax.numpy as jnp, optax
      >>> from pugd_optax import logits
      >>> bounded = logits.offsets(b=jnp.array([[0.0, -2.0], [-jnp.inf, 0.0]]))
      >>> y = jnp.array([0, 1])
      >>> loss = lambda u: optax.softmax_cross_entropy_with_integer_labels(u, y).sum()
      >>> g = jax.grad(lambda u: loss(logits.perturb(u, y, bounded)))(jnp.zeros((2, 2)))
      >>> print(jnp.array_str(g, precision=2))
      [[-0.38  0.38]
       [ 0.5  -0.5 ]]

    Notes:
      Half the sum of $|\tilde g_{ik}|$ over k, at most 1 for cross-entropy, is at most $\tanh(\mathrm{osc}_c / 4)$,
      where $\mathrm{osc}_c$ is the largest minus the smallest entry of $a_c - b_c$: see `largest_pull`. With the offset
      $b = -B$ off the diagonal and $a = 0$ it is $\tanh(B / 4)$, so the bound B is the strength; $B \to \infty$ is
      cross-entropy, and B = 0 no gradient at all.

      Offsets are added to the logits inside the softmax: if a loss scales logits by 30, as LDAM does, perturb the
      scaled logits.
    """
    a, b = (None if x is None else jnp.asarray(x) for x in (a, b))
    for name, x, shapes in (("a", a, "(classes,) or (classes, classes)"), ("b", b, "(classes, classes)")):
        if x is None:
            continue
        square = x.ndim == 2 and x.shape[0] == x.shape[1]
        if not (square or (name == "a" and x.ndim == 1)):
            raise ValueError(f"{name} has the shape {x.shape}: expected {shapes}. Fix: one row for each label.")
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(
                f"{name} has the dtype {x.dtype}: expected floating point. Fix: {name}.astype(jnp.float32)."
            )
    if a is not None and not isinstance(a, jax.core.Tracer) and not np.isfinite(np.asarray(a)).all():
        raise ValueError("a holds an inf or a NaN: expected finite numbers. Fix: -20 in place of -inf.")
    if b is not None and not isinstance(b, jax.core.Tracer):
        found = np.asarray(b)
        if not (np.all(found <= 0) and np.all(np.diagonal(found) == 0)):
            raise ValueError(
                f"b holds {found.max():g} and {np.diagonal(found).min():g} on the diagonal: expected entries <= 0 and "
                "a diagonal of 0. Fix: b - jnp.diagonal(b)[:, None], clipped at 0."
            )
    return Offsets(a, b)


def perturb_by_offsets(cotangent: jax.Array, logits: jax.Array, members: jax.Array, strength: Offsets) -> jax.Array:
    r"""$g + r\, \delta$; `members` are soft labels, all 0 for a row that belongs to no class and is not changed."""
    for name, x in strength._asdict().items():
        if x is not None and x.shape[-1] != logits.shape[-1]:
            raise ValueError(
                f"{name} of {x.shape} does not fit logits of {logits.shape[-1]} classes. Fix: a row and a column for "
                "each class."
            )
    u, g = widen(logits), widen(cotangent)
    y = members.astype(u.dtype)
    p = jax.nn.softmax(u)
    # Over the other classes, where p - y is precise even if p_y is near 1; over all classes for soft labels.
    slope = jnp.where(y == 1, 0, p - y)
    size = jnp.sum(slope * slope, -1, keepdims=True)
    fits = size < 1e-30
    weight = jnp.where(fits, 0, jnp.sum(g * slope, -1, keepdims=True) / jnp.where(fits, 1, size))
    return (g + weight * _delta(u, p, y, strength)).astype(cotangent.dtype)


def largest_pull(strength: Offsets, num_classes: int) -> jax.Array:
    r"""The largest gradient that one example of each class can have, relative to that of cross-entropy.

    $$\sup_u \tfrac12 \|\tilde g\|_1 \le \tanh(\mathrm{osc}(a_c - b_c) / 4)$$

    Args:
      strength: the offsets.
      num_classes: number of classes.

    Returns:
      (classes,) in [0, 1]; 1 for a one-hot target.

    Example:
      >>> import jax.numpy as jnp
      >>> bounded = offsets(b=-2.0 * (1 - jnp.eye(2)))
      >>> print(jnp.array_str(largest_pull(bounded, 2), precision=3))
      [0.462 0.462]
    """
    if strength.b is None:
        return jnp.ones((num_classes,), jnp.float32)
    gap = -strength.b if strength.a is None else jnp.broadcast_to(strength.a, strength.b.shape) - strength.b
    gap = gap.astype(jnp.float32)
    return jnp.tanh((gap.max(-1) - gap.min(-1)) / 4)


def _delta(u: jax.Array, p: jax.Array, y: jax.Array, strength: Offsets) -> jax.Array:
    r"""$\delta$, linear in the labels: for soft labels the mean over the classes, weighted by their shares."""
    total = jnp.zeros_like(p)
    if strength.a is not None:
        total += _moved(u, y, strength.a.astype(u.dtype)) - y.sum(-1, keepdims=True) * p
    if strength.b is not None:
        total += y - _moved(u, y, strength.b.astype(u.dtype))
    return total


def _moved(u: jax.Array, y: jax.Array, rows: jax.Array) -> jax.Array:
    r"""$\sum_c y_{ic}\, \mathrm{softmax}(u_i + \mathrm{rows}_c)$ without an array of examples x classes x classes."""
    if rows.ndim == 1:
        return y.sum(-1, keepdims=True) * jax.nn.softmax(u + jnp.broadcast_to(rows, u.shape))
    raised = jnp.exp(rows - rows.max(-1, keepdims=True))
    e = jnp.exp(u - u.max(-1, keepdims=True))
    norms = jnp.matmul(e, raised.T, precision="highest")
    # If a row of -inf leaves only entries of the softmax that underflow, the label itself is used; also if they are
    # subnormal, which a GPU does not round to 0 and whose reciprocal is inf.
    normal = norms >= jnp.finfo(norms.dtype).tiny
    share = jnp.where(normal, y / jnp.where(normal, norms, 1), 0)
    return e * jnp.matmul(share, raised, precision="highest") + jnp.where(normal, 0, y)
