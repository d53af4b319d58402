"""SAM-ON: SAM on the normalization layers only."""

import jax
import optax

from pugd_optax._typing import Mask
from pugd_optax.methods.sam import sam
from pugd_optax.schedules import Radius
from pugd_optax.timing import When


def sam_on(
    radius: Radius = 0.5,
    *,
    when: When = None,
    mask: Mask | None = None,
    report: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""SAM-ON: SAM that perturbs the gains and shifts of normalization layers, and nothing else.

    $$\epsilon_N = \rho\,\frac{g_N}{\|g_N\|}, \qquad \epsilon = 0 \text{ elsewhere}, \qquad u = \nabla L(w + \epsilon)$$

    where $N$ are the parameters of normalization layers. The norm is over **$N$ only**, so all of $\rho$ is used for
    them, often less than a thousandth of the parameters. $u$ covers all parameters. Two gradient evaluations per step.

    Args:
      radius: $\rho \ge 0$; a number or a schedule. The best values are larger than SAM's; 0.5, half of the initial
        value of a gain, is our choice.
      when: the gate (see `pugd_optax.timing`). Default: every step. On other steps $g$ is passed on unchanged.
      mask: the parameters to perturb, a tree of bools or a function of the parameters. Default: every parameter named
        `scale`, `gamma` or `gain`, and its siblings named `bias`, `offset` or `beta`: the normalization layers of Flax
        and Haiku. See the notes for Keras and Equinox.
      report: also store norms, cosine and distance of active steps in the state (see `pugd_optax.reevaluate`).

    Returns:
      An `optax.GradientTransformationExtraArgs`; `update` needs `params` and `grad_fn` (or `value_fn`), see
      `pugd_optax.reevaluate`.

    Raises:
      ValueError: in `update`, if no parameter has one of these names.

    Example:
      >>> import jax, jax.numpy as jnp, pugd_optax
      >>> params = {"Dense_0": {"kernel": jnp.ones((2, 2))}, "LayerNorm_0": {"scale": jnp.ones(2), "bias": jnp.ones(2)}}
      >>> loss = lambda p: sum(jnp.sum(x**2) for x in jax.tree.leaves(p))
      >>> tx = pugd_optax.sam_on(radius=0.5)
      >>> u, state = tx.update(jax.grad(loss)(params), tx.init(params), params, grad_fn=jax.grad(loss))
      >>> u["Dense_0"]["kernel"].tolist(), u["LayerNorm_0"]["bias"].tolist()
      ([[2.0, 2.0], [2.0, 2.0]], [2.5, 2.5])

    References:
      Müller, Vlaar, Rolnick and Hein, Normalization Layers Are All That Sharpness-Aware Minimization Needs, NeurIPS
      2023, https://arxiv.org/abs/2306.04226

    Notes:
      For the authors' elementwise ASAM on these layers, pass `mask=` to `pugd_optax.asam` in the same way.

      The parameters of a Keras model are a list without names: `mask=[v.name in ("gamma", "beta") for v in
      model.trainable_variables]`. In Equinox all layers have a `weight` and a `bias`: the page "Training details" of
      the documentation selects layers by their type.
    """
    return sam(radius, when=when, mask=_norm_layers if mask is None else mask, report=report)


_GAINS, _SHIFTS = ("scale", "gamma", "gain"), ("bias", "offset", "beta")


def _norm_layers(params: optax.Params):
    """True for the gains, and for the shifts next to a gain."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    names = [_names(path) for path, _ in leaves]
    layers = {name[:-1] for name in names if name and name[-1] in _GAINS}
    if not layers:
        found = ", ".join("/".join(name) for name in names[:5])
        raise ValueError(
            f"sam_on found none of the names {', '.join(_GAINS)} among {found}, ... Fix: say which to perturb, "
            "mask=lambda params: jax.tree.map(lambda w: w.ndim == 1, params)."
        )
    chosen = {(*layer, part) for layer in layers for part in _GAINS + _SHIFTS}
    return jax.tree.unflatten(structure, [name in chosen for name in names])


def _names(path: jax.tree_util.KeyPath) -> tuple[str, ...]:
    """The path as names, without the `value` at the end of a boxed variable."""
    names = tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
    return names[:-1] if names[-1:] == ("value",) else names
