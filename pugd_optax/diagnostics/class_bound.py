r"""A PAC-Bayes bound: what class-level perturbation of the logit gradients may cost in generalisation."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pugd_optax._checks import check_count, check_number
from pugd_optax._class_checks import check_counts, check_positive


class ClassBound(NamedTuple):
    """The result of `class_bound`.

    Attributes:
      distance: an upper bound on the distance of the trained parameters from their start.
      kl: the KL divergence that corresponds to this distance.
      bound: the bound on the risk; above 1 it says nothing.
    """

    distance: jax.Array
    kl: jax.Array
    bound: jax.Array


def class_bound(
    risk: jax.typing.ArrayLike,
    counts: Any,
    strength: jax.typing.ArrayLike,
    *,
    rate_sum: float,
    jacobian: float,
    radius: float,
    num_params: int,
    confidence: float = 0.95,
) -> ClassBound:
    r"""A PAC-Bayes bound on the risk after plain SGD with `pugd_optax.lpg`, from the strengths.

    An example of class c pulls its logits with at most $\sqrt2\, (1 + s_c \epsilon_c)$, so after steps of sizes $h_t$

    $$\|w - w_0\| \le D = \sqrt2\, J \sum_t h_t \sum_c \pi_c\, (1 + s_c \epsilon_c), \qquad
      \mathbb{E}_Q L_{\mathcal D} \le \mathbb{E}_Q L_S + \sqrt{\frac{\mathrm{KL} + \ln(2 \sqrt n / \delta)}{2n}}, \quad
      \mathrm{KL} = \frac{d\, D^2}{2 \rho^2}$$

    with probability `confidence` $= 1 - \delta$. Amplifying a class costs in proportion to its share of the examples:
    little for a rare class, much for a frequent one; a lower training risk must make up for it. Dampening, and the
    bounded targets of `pugd_optax.classes.confusion`, lower the second term.

    Args:
      risk: $\mathbb{E}_Q L_S$, the training risk under Gaussian noise of root mean square length `radius`, of a loss in
        [0, 1] such as the error rate.
      counts: (classes,) numbers above 0, the class counts of the training set, n in sum.
      strength: (classes,) $s_c \epsilon_c \ge -1$, the "strength" in the state of `lpg`, or its mean over the steps.
      rate_sum: $\sum_t h_t$, the sum of the learning rates; with momentum m, divided by 1 - m.
      jacobian: $J$, the largest spectral norm during training of the Jacobian of one example's logits.
      radius: $\rho > 0$.
      num_params: $d \ge 1$.
      confidence: in (0, 1).

    Returns:
      `ClassBound`.

    Raises:
      ValueError, TypeError: if an argument is out of its range, or shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from pugd_optax import diagnostics
      >>> given = {"rate_sum": 1.0, "jacobian": 1.0, "radius": 1.0, "num_params": 10}
      >>> tail, head = jnp.array([0.0, 0.9]), jnp.array([0.9, 0.0])
      >>> for strength in (jnp.zeros(2), tail, head):
      ...     print(f"{diagnostics.class_bound(0.1, [900, 100], strength, **given).bound:.3f}")
      0.193
      0.198
      0.241

    Notes:
      This is a motivation rather than a useful guarantee: for a network at the end of training, D is far above the true
      distance, and the bound is above 1. It can still compare strengths. The shares of the classes must be those of
      every step, or of every epoch if $h_t$ is constant within it. Weight decay in the optimizer only reduces the
      distance; Adam and similar optimizers are not covered, nor are dampened classes under the `additive` edit.

    References:
      Maurer, A Note on the PAC Bayesian Theorem, https://arxiv.org/abs/cs/0411099. The connection of bounds of the
      perturbation and generalisation is announced in the abstract of https://arxiv.org/abs/2605.29494; this is ours.
    """
    n = check_counts(counts)
    check_number("risk", risk, low=0, high=1)
    check_number("rate_sum", rate_sum, low=0)
    check_number("jacobian", jacobian, low=0)
    check_positive("radius", radius)
    check_count("num_params", num_params, low=1)
    check_number("confidence", confidence, low=0, below=1)
    check_positive("confidence", confidence)
    if np.shape(strength) != n.shape:
        raise ValueError(
            f"strength has the shape {np.shape(strength)}: expected {n.shape}, one number for each class. "
            'Fix: the "strength" in the state of lpg.'
        )
    pull = jnp.asarray(n / n.sum(), jnp.float32) @ (1 + jnp.maximum(jnp.asarray(strength, jnp.float32), -1))
    distance = math.sqrt(2) * jacobian * rate_sum * pull
    kl = jnp.asarray(num_params, jnp.float32) * (distance / radius) ** 2 / 2
    log_term = math.log(2 * math.sqrt(n.sum()) / (1 - confidence))
    return ClassBound(distance, kl, jnp.asarray(risk) + jnp.sqrt((kl + log_term) / (2 * n.sum())))
