"""ESAM: SAM on a random subset of the weights."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import check_number
from pugd_optax._norms import widen
from pugd_optax._typing import Mask
from pugd_optax.ascents import normalize, restrict
from pugd_optax.combines import replace
from pugd_optax.noise import check_key, draw
from pugd_optax.reevaluate import reevaluate
from pugd_optax.schedules import Radius
from pugd_optax.timing import When


def esam(
    radius: Radius = 0.05,
    beta: float = 0.6,
    key: jax.Array | int = 0,
    *,
    when: When = None,
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Efficient SAM's stochastic weight perturbation: each weight is perturbed with some probability.

    $$\epsilon = \frac{\rho}{\beta}\, m \odot \frac{g}{\|g\|}, \quad m_i \sim \mathrm{Bernoulli}(\beta), \qquad
      u = \nabla L(w + \epsilon)$$

    The mean of $\epsilon$ is that of SAM, its norm about $\rho / \sqrt{\beta}$. Two gradient evaluations per step;
    $\beta = 1$ is SAM.

    Args:
      radius: $\rho \ge 0$; a number or a schedule.
      beta: $\beta$ in (0, 1], the probability; 0.5 or 0.6 in the authors' script.
      key: a PRNG key or an integer seed; the subset of step t is drawn from `fold_in(key, t)`.
      when: the gate (see `pugd_optax.timing`). Default: every step. On other steps $g$ is passed on unchanged.
      mask: the parameters to perturb, a tree of bools or a function of the parameters; the norm is over these only.
        Default: all.
      report: also store norms, cosine and distance of active steps in the state (see `pugd_optax.reevaluate`).

    Returns:
      An `optax.GradientTransformationExtraArgs`; `update` needs `params` and `grad_fn` (or `value_fn`), see
      `pugd_optax.reevaluate`.

    Raises:
      ValueError, TypeError: if an argument is out of its range.

    Example:
      >>> import optax, pugd_optax
      >>> tx = optax.chain(pugd_optax.esam(beta=0.5, key=0), optax.sgd(0.1))

    References:
      Du et al., Efficient Sharpness-aware Minimization for Improved Training of Neural Networks, ICLR 2022,
      https://arxiv.org/abs/2110.03141

    Notes:
      This is the paper's formula, for every single weight. The authors' code, https://github.com/dydjw9/Efficient_SAM,
      keeps or drops whole tensors and takes the norm over those kept.

      The subset of weights alone saves no time under XLA. The other half of the paper does: the second gradient uses
      only the examples whose loss the perturbation increased most. It belongs in `grad_fn`, because only that knows the
      batch. The page "Methods in a few lines" of the documentation shows how; in the trainer it is `--second-batch
      raised:0.5`.
    """
    check_number("beta", beta, low=0, high=1)
    if isinstance(beta, int | float) and beta == 0:
        raise ValueError("beta=0: no weight would be perturbed. Fix: beta in (0, 1].")
    check_key(key)
    ascent = restrict(optax.chain(normalize(), _keep_at_random(beta, key)), mask)
    return reevaluate(ascent, replace, radius=radius, when=when, report=report)


def _keep_at_random(beta: float, key: jax.Array | int) -> optax.GradientTransformationExtraArgs:
    def update(updates, state, params=None, *, step: Any = 0, **extra_args: Any):
        del params, extra_args
        size = lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32)
        coins = draw(key, step, jax.tree.map(size, updates), jax.random.uniform)
        scaled = jax.tree.map(lambda u, x: jnp.where(u < beta, widen(x) / beta, 0).astype(x.dtype), coins, updates)
        return scaled, state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
