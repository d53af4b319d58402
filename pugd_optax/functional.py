"""Any of our transformations as a drop-in for `jax.value_and_grad`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pugd_optax._frameworks import explained, refuse_model


@dataclasses.dataclass(frozen=True)
class PerturbedValueAndGrad:
    """What `value_and_grad` returns: `init` makes the state, a call gives value, gradient and next state."""

    loss_fn: Callable[..., Any]
    tx: optax.GradientTransformationExtraArgs
    has_aux: bool
    axis_name: str | None

    def init(self, params: optax.Params) -> optax.OptState:
        """State of the perturbation for these parameters."""
        refuse_model(params)
        return self.tx.init(params)

    def __call__(
        self,
        params: optax.Params,
        state: optax.OptState,
        *args: Any,
        active: bool | jax.Array | None = None,
        extra_args: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, optax.Updates, optax.OptState]:
        """Value at `params`, perturbed gradient and next state; see `value_and_grad`."""
        refuse_model(params)
        local = params
        if self.axis_name is not None:
            local, state = _varying((params, state), self.axis_name)

        def gradient(p: optax.Params) -> optax.Updates:
            g = jax.grad(self.loss_fn, has_aux=self.has_aux)(p, *args, **kwargs)
            return jax.tree.map(jnp.conj, g[0] if self.has_aux else g)

        first = jax.value_and_grad(self.loss_fn, has_aux=self.has_aux)
        value, g = explained("loss_fn", first, local, *args, **kwargs)
        grads, state = self.tx.update(
            jax.tree.map(jnp.conj, g), state, local, grad_fn=gradient, active=active, **(extra_args or {})
        )
        grads = jax.tree.map(jnp.conj, grads)
        if self.axis_name is not None:
            value, grads, state = _mean_of_floats((value, grads, state), self.axis_name)
        return value, grads, state


def value_and_grad(
    loss_fn: Callable[..., Any],
    tx: optax.GradientTransformation,
    has_aux: bool = False,
    *,
    axis_name: str | None = None,
) -> PerturbedValueAndGrad:
    r"""`jax.value_and_grad` with a perturbed gradient.

    Use it where the transformation cannot be the first of an Optax chain: with `optax.masked`, `partition`, `flatten`
    or `lookahead`, with Flax's `TrainState`, with BatchNorm, or with any training step that wants a gradient and no
    `grad_fn`. The loss and the auxiliary output are those of the **first** pass, at the parameters themselves, so the
    logged loss is the clean one and running statistics that travel in the auxiliary output move once a step.

    Args:
      loss_fn: `loss_fn(params, *args, **kwargs)` returns a scalar, or `(scalar, aux)` with `has_aux`.
      tx: a transformation of this package, or a chain that starts with one.
      has_aux: whether `loss_fn` returns auxiliary output.
      axis_name: inside `shard_map` or `pmap`, the mesh axis over which the batch is split. Each device then perturbs
        with the gradient of **its own** examples (m-sharpness), and value, gradient and the float numbers of the state
        are averaged afterwards, in one all-reduce. Without it, `loss_fn` decides: one that averages over the axis
        gives the global perturbation. A gate that reads the gradient would decide device by device: not supported.

    Returns:
      A callable with `init(params) -> state` and

          value, grads, state = vg(params, state, *args, active=None, extra_args=None, **kwargs)

      where `value` is the loss, or `(loss, aux)`, `active` is the override of the gate and `extra_args` are extra
      arguments of `tx.update`. Gradients of complex parameters follow `jax.grad`.

    Example:
      >>> import jax, jax.numpy as jnp, optax, pugd_optax
      >>> def loss_fn(w, x):
      ...     return jnp.sum((x * w - 1.0) ** 2), {"first": w[0]}
      >>> vg = pugd_optax.value_and_grad(loss_fn, pugd_optax.pugd(radius=0.1), has_aux=True)
      >>> base = optax.sgd(0.1)
      >>> w, x = jnp.array([0.5, 2.0]), jnp.array([1.0, 1.0])
      >>> state, opt_state = vg.init(w), base.init(w)
      >>> (loss, aux), grads, state = jax.jit(vg)(w, state, x)
      >>> updates, opt_state = base.update(grads, opt_state, w)
      >>> print(f"{loss:.2f} {jnp.linalg.norm(grads):.2f} {aux['first']:.1f}")
      1.25 1.00 0.5
    """
    return PerturbedValueAndGrad(loss_fn, optax.with_extra_args_support(tx), has_aux, axis_name)


def _varying(tree: Any, axis_name: str) -> Any:
    """Type float leaves as varying over the axis: the gradient of such parameters stays local, not summed over it."""
    return jax.tree.map(lambda x: jax.lax.pcast(x, axis_name, to="varying") if _is_float(x) else x, tree)


def _mean_of_floats(tree: Any, axis_name: str) -> Any:
    """Average the float leaves over the axis in one collective; counts, flags and keys are replicated already."""
    leaves, structure = jax.tree.flatten(tree)
    floats = [i for i, x in enumerate(leaves) if _is_float(x)]
    for i, mean in zip(floats, jax.lax.pmean([leaves[i] for i in floats], axis_name), strict=True):
        leaves[i] = mean
    return jax.tree.unflatten(structure, leaves)


def _is_float(x: jax.typing.ArrayLike) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)
