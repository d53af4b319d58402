r"""Gradients from more than one point, used as $g^*$ where a single evaluation is not enough."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import is_traced
from pugd_optax._gradient_source import gradient_function
from pugd_optax._norms import vdot, widen
from pugd_optax._typing import GradFn, ValueFn
from pugd_optax.ascents import offset

Evaluation = Callable[[GradFn, optax.Updates, optax.Params, optax.Params], optax.Updates]
r"""`(gradient, g, w, w_star) -> g_star`: how to compute $g^*$ with the gradient function and $w^* = w + \epsilon$."""


def evaluate_by(
    evaluation: Evaluation, method: optax.GradientTransformationExtraArgs
) -> optax.GradientTransformationExtraArgs:
    r"""Replace the gradient at $w + \epsilon$ in a re-evaluating method by another $g^*$.

    Args:
      evaluation: `(gradient, g, w, w_star) -> g_star`, one of `two_sided_mean`, `two_sided_difference` or your own.
      method: a transformation built on `pugd_optax.reevaluate`; its gate, radius and combine work as before.

    Returns:
      A transformation with the state and the `update` of `method`.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> from pugd_optax import reevaluate
      >>> tx = evaluate_by(two_sided_mean, reevaluate(optax.identity()))
      >>> w = jnp.array([1.0])
      >>> cubic = jax.grad(lambda w: jnp.sum(w**3))
      >>> tx.update(jnp.array([0.5]), tx.init(w), w, grad_fn=cubic)[0]  # 3 (1.5^2 + 0.5^2) / 2
      Array([3.75], dtype=float32)
    """

    def update(
        updates,
        state: Any,
        params: Any = None,
        *,
        grad_fn: GradFn | None = None,
        value_fn: ValueFn | None = None,
        **extra_args: Any,
    ):
        updates, params = jax.tree.map(jnp.asarray, (updates, params))
        gradient = gradient_function(grad_fn, value_fn, extra_args, like=updates)
        substitute = lambda w_star: evaluation(gradient, updates, params, w_star)
        return method.update(updates, state, params, grad_fn=substitute, **extra_args)

    return optax.GradientTransformationExtraArgs(method.init, update)


def two_sided_mean(gradient: GradFn, g: optax.Updates, w: optax.Params, w_star: optax.Params) -> optax.Updates:
    r"""$\tfrac12 \big(\nabla L(w + \epsilon) + \nabla L(w - \epsilon)\big)$: terms odd in $\epsilon$ cancel."""
    del g
    return jax.tree.map(lambda a, b: 0.5 * a + 0.5 * b, gradient(w_star), gradient(_mirrored(w, w_star)))


def two_sided_difference(gradient: GradFn, g: optax.Updates, w: optax.Params, w_star: optax.Params) -> optax.Updates:
    r"""$\tfrac12 \big(\nabla L(w + \epsilon) - \nabla L(w - \epsilon)\big)$, about $H \epsilon$."""
    del g
    return jax.tree.map(lambda a, b: 0.5 * a - 0.5 * b, gradient(w_star), gradient(_mirrored(w, w_star)))


def hessian_vector_product(gradient: GradFn, w: optax.Params, v: optax.Updates) -> optax.Updates:
    r"""$H v$: the directional derivative of the gradient, by forward-over-reverse differentiation.

    If the loss contains a `jax.custom_vjp`, which has no forward mode, it is computed as the gradient of $\langle
    \nabla L, v \rangle$.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> hessian_vector_product(jax.grad(lambda w: jnp.sum(w**3)), jnp.array([2.0]), jnp.array([1.0]))
      Array([12.], dtype=float32)
    """
    tangent = jax.tree.map(lambda x, y: y.astype(x.dtype), w, v)
    forward = lambda w, v: jax.jvp(gradient, (w,), (v,))[1]
    traced = any(map(is_traced, jax.tree.leaves((w, v))))
    try:
        product = _if_forward(forward, w, tangent) if traced else forward(w, tangent)
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        product = None
    if product is not None:
        return product
    along = lambda p: vdot(gradient(p), v)
    return jax.tree.map(lambda x, y: jnp.conj(x).astype(y.dtype), jax.grad(along)(w), w)


def _if_forward(product: Callable[..., optax.Updates], *args: Any) -> optax.Updates | None:
    """The product, or None for a `jax.custom_vjp`: under jit, JAX raises its TypeError only when it compiles."""
    from jax.extend.core import jaxpr_as_fun  # here, because jax.extend takes long to import

    closed, like = jax.make_jaxpr(product, return_shape=True)(*args)
    if _lacks_forward_mode(closed.jaxpr):
        return None
    return jax.tree.unflatten(jax.tree.structure(like), jaxpr_as_fun(closed)(*jax.tree.leaves(args)))


def _lacks_forward_mode(jaxpr: Any) -> bool:
    """Whether the tangent of a `jax.custom_vjp` is asked for, here or in a nested program."""
    nested = lambda equation: (x for x in jax.tree.leaves(equation.params) if hasattr(x, "eqns"))
    return any(x.primitive.name == "custom_lin" or any(map(_lacks_forward_mode, nested(x))) for x in jaxpr.eqns)


def _mirrored(w: optax.Params, w_star: optax.Params) -> optax.Params:
    """The point opposite to `w_star`, at its actual distance from `w` after rounding."""
    return offset(w, jax.tree.map(lambda x, y: widen(x) - widen(y), w, w_star))
