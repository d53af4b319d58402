"""Equinox: a perturbed `eqx.filter_value_and_grad`. `pugd_optax.equinox` imports Equinox when it is first used."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from pugd_optax import functional
from pugd_optax._parts import Perturb, check_options, holds

try:
    import equinox as eqx
except ModuleNotFoundError as error:
    raise ImportError("pugd_optax.equinox needs Equinox. Fix: pip install 'pugd_optax[equinox]'.") from error


@dataclasses.dataclass(frozen=True)
class PerturbedValueAndGrad:
    """The result of `filter_value_and_grad`: `init` makes the state, a call returns value, gradient and next state."""

    loss_fn: Callable[..., Any]
    tx: optax.GradientTransformationExtraArgs
    has_aux: bool
    aux_reduce: Any = dataclasses.field(hash=False)
    options: tuple[tuple[str, Any], ...]

    def init(self, model: Any) -> optax.OptState:
        """State of the perturbation for this model."""
        return self.tx.init(eqx.filter(model, eqx.is_inexact_array))

    def __call__(
        self,
        model: Any,
        state: optax.OptState,
        *args: Any,
        active: bool | jax.Array | None = None,
        extra_args: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, Any, optax.OptState]:
        """Value at `model`, perturbed gradient and next state; see `filter_value_and_grad`."""
        params, static = eqx.partition(model, eqx.is_inexact_array)

        whole = {i: arg for i, arg in enumerate(args) if holds(arg, eqx.Module | eqx.nn.State)}
        batch = [arg for i, arg in enumerate(args) if i not in whole]

        def loss_fn(params: Any, *batch: Any) -> Any:
            examples = iter(batch)
            again = [whole[i] if i in whole else next(examples) for i in range(len(args))]
            return self.loss_fn(eqx.combine(params, static), *again, **kwargs)

        given = {"has_aux": self.has_aux, "aux_reduce": self.aux_reduce, **dict(self.options)}
        vg = functional.value_and_grad(loss_fn, self.tx, **given)
        return vg(params, state, *batch, active=active, extra_args=extra_args)


def filter_value_and_grad(
    loss_fn: Callable[..., Any],
    tx: optax.GradientTransformation,
    has_aux: bool = False,
    *,
    axis_name: str | None = None,
    perturb: Perturb = "local",
    groups: int = 1,
    second_batch: float = 1.0,
    aux_reduce: Any = None,
) -> PerturbedValueAndGrad:
    r"""`eqx.filter_value_and_grad` with a perturbed gradient.

    $$\epsilon = \epsilon(g, w), \qquad g^* = \nabla L(w + \epsilon), \qquad u = \mathrm{combine}(g, g^*)$$

    Value and auxiliary output are those of the **first** pass, at the unperturbed model, so an `eqx.nn.State` in the
    auxiliary output is updated once per step. Both passes get the same arguments, so with a `key` among them both drop
    the same units.

    Args:
      loss_fn: `loss_fn(model, *args, **kwargs)` returns a scalar, or `(scalar, aux)` with `has_aux`.
      tx: a transformation of this package, or a chain that starts with one, without the optimizer.
      has_aux: whether `loss_fn` returns auxiliary output.
      axis_name: the mesh axis over which the batch is split; this and the following as in `pugd_optax.value_and_grad`.
      perturb: with `axis_name`, whether the gradient of each device's own examples, `"local"`, or of all examples,
        `"global"`, perturbs.
      groups: m, the number of groups, each of which perturbs with its own gradient (m-sharpness). The batch is every
        argument in `*args` without modules and `eqx.nn.State`s.
      second_batch: share in (0, 1] of the batch that is used for the second gradient.
      aux_reduce: how auxiliary output is combined over groups and devices: `"mean"`, `"sum"`, or `"first"`, which suits
        an `eqx.nn.State` with flags. With groups or `axis_name`, auxiliary output may contain only arrays.

    Returns:
      A callable with `init(model) -> state` and

          value, grads, state = vg(model, state, *args, active=None, extra_args=None, **kwargs)

      where `value` is the loss, or `(loss, aux)`, and `grads` is a model of gradients, as Equinox returns it: `None`
      for all leaves that are not floating-point arrays. `active` overrides the gate, `extra_args` are extra arguments
      of `tx.update`.

    Raises:
      ValueError, TypeError: if an argument is out of its range; in a call, if m does not divide the examples.

    Example:
      >>> import equinox as eqx, jax, jax.numpy as jnp, optax, pugd_optax
      >>> model, x = eqx.nn.MLP(1, 1, 8, 1, key=jax.random.key(0)), jnp.linspace(-1.0, 1.0, 8)[:, None]
      >>> loss_fn = lambda model, x: jnp.mean((jax.vmap(model)(x) - 2 * x) ** 2)
      >>> vg, base = pugd_optax.equinox.filter_value_and_grad(loss_fn, pugd_optax.sam(0.05)), optax.sgd(0.1)
      >>> state, opt_state = vg.init(model), base.init(eqx.filter(model, eqx.is_inexact_array))
      >>> @eqx.filter_jit
      ... def step(model, state, opt_state, x):
      ...     loss, grads, state = vg(model, state, x)
      ...     updates, opt_state = base.update(grads, opt_state)
      ...     return eqx.apply_updates(model, updates), state, opt_state, loss
      >>> losses = []
      >>> for _ in range(30):
      ...     model, state, opt_state, loss = step(model, state, opt_state, x)
      ...     losses.append(loss)
      >>> bool(losses[-1] < 0.1 * losses[0])
      True

    References:
      Kidger and Garcia, Equinox: neural networks in JAX via callable PyTrees and filtered transformations,
      https://arxiv.org/abs/2111.00254
    """
    check_options(tx, perturb, groups, second_batch, aux_reduce)
    options = (("axis_name", axis_name), ("perturb", perturb), ("groups", groups), ("second_batch", second_batch))
    return PerturbedValueAndGrad(loss_fn, optax.with_extra_args_support(tx), has_aux, aux_reduce, options)
