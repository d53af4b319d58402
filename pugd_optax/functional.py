"""Any of our transformations as a drop-in replacement for `jax.value_and_grad`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pugd_optax._checks import difference
from pugd_optax._frameworks import explained, refuse_model
from pugd_optax._parts import (
    Perturb,
    averaged,
    check_options,
    over_axis,
    over_groups,
    refusal,
    share_of,
    split,
    varying,
    ways,
)


@dataclasses.dataclass(frozen=True)
class PerturbedValueAndGrad:
    """The result of `value_and_grad`: `init` makes the state, a call returns value, gradient and next state."""

    loss_fn: Callable[..., Any]
    tx: optax.GradientTransformationExtraArgs
    has_aux: bool = False
    axis_name: str | None = None
    perturb: Perturb = "local"
    groups: int = 1
    second_batch: float = 1.0
    aux_reduce: Any = dataclasses.field(default=None, hash=False)

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
        alone = self.axis_name is None or self.perturb == "global"
        if not alone:
            params, state = varying((params, state), self.axis_name)
        extra = self._of_the_batch(_further(extra_args)) | {"active": active}
        try:
            results = [self._step(params, state, part, kwargs, extra) for part in split(args, self.groups)]
        except Exception as error:
            _check_state(state, jax.eval_shape(self.tx.init, params), error)
            raise
        if self.groups == 1 and self.axis_name is None:
            return results[0]
        how = ways(*results[0], has_aux=self.has_aux, aux_reduce=self.aux_reduce)
        value, grads, state = over_groups(results, how) if self.groups > 1 else results[0]
        if alone:  # the gradient and the state are already the same on every device
            return self._reduced(value, how[0]), grads, state
        return self._reduced((value, grads, state), how)

    @property
    def _together(self) -> bool:
        """Whether every gradient is averaged over the devices."""
        return self.axis_name is not None and self.perturb == "global"

    def _step(self, params, state, args, kwargs, extra):
        """One group of examples on one device."""
        second = share_of(args, self.second_batch)
        value, g = explained("loss_fn", self._value_and_gradient, params, *args, **kwargs)
        grad_fn = lambda p: self._value_and_gradient(p, *second, **kwargs)[1]
        loss = value[0] if self.has_aux else value
        extra = {"value": jax.lax.pmean(loss, self.axis_name) if self._together else loss} | extra
        u, state = self.tx.update(g, state, params, grad_fn=grad_fn, **extra)
        return value, jax.tree.map(jnp.conj, u), state

    def _value_and_gradient(self, params, *args, **kwargs):
        """Loss of this device's examples, and their gradient or the mean over devices, in Optax's convention."""
        first = jax.value_and_grad(self.loss_fn, has_aux=self.has_aux)
        value, g = first(varying(params, self.axis_name) if self._together else params, *args, **kwargs)
        return value, jax.tree.map(jnp.conj, jax.lax.pmean(g, self.axis_name) if self._together else g)

    def _of_the_batch(self, extra: dict[str, Any]) -> dict[str, Any]:
        """`extra_args`, whose functions of the batch cover all devices if `loss_fn` does; a part is not possible."""
        parts = [f"{k}={v}" for k, v in (("groups", self.groups), ("second_batch", self.second_batch)) if v != 1]
        apart = ["perturb='global'"] if self._together else []
        for name in ("logits_fn", "losses_fn"):
            function = extra.get(name)
            if function is None or not parts + apart:
                continue
            everywhere = lambda p, function=function: function(averaged(p, self.axis_name))
            mean_will_do = name == "logits_fn" and not parts
            extra |= {name: everywhere if mean_will_do else refusal(name, (parts + apart)[0]), "logits_vjp": None}
        return extra

    def _reduced(self, tree, how):
        return tree if self.axis_name is None else over_axis(tree, how, self.axis_name)


def value_and_grad(
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
    r"""`jax.value_and_grad` with a perturbed gradient.

    Use it if the transformation cannot be the first of an Optax chain: with `optax.masked`, `partition`, `flatten` or
    `lookahead`, with Flax's `TrainState`, with BatchNorm, or with any training step that takes a gradient but no
    `grad_fn`. The loss and the auxiliary output are those of the **first** pass, at the unperturbed parameters, so the
    logged loss is the usual one, and running statistics in the auxiliary output are updated once per step.

    Args:
      loss_fn: `loss_fn(params, *args, **kwargs)` returns a scalar, or `(scalar, aux)` with `has_aux`. It averages over
        the examples it is given.
      tx: a transformation of this package, or a chain that starts with one, without the optimizer.
      has_aux: whether `loss_fn` returns auxiliary output.
      axis_name: inside `shard_map` or `pmap`, the mesh axis over which the batch is split. Value, gradient and state
        are averaged over it and equal on every device. Gates that read the gradient are not supported with
        `perturb="local"` or `groups`, because each device or group would decide by itself.
      perturb: with `axis_name`, the gradient used for the perturbation: `"local"`, that of each device's **own**
        examples (m-sharpness), with one all-reduce per step; or `"global"`, the mean over devices, with one all-reduce
        per gradient.
      groups: m; `args` are split along their first axis into m groups, each of which perturbs with its own gradient
        before the mean is taken: m-sharpness on one device. m must divide the first axis of the arrays in `args`;
        scalars and keys of `jax.random.key` go to every group; `kwargs`, and thus a key of `jax.random.PRNGKey` passed
        by keyword, are not split. The step is compiled once per group.
      second_batch: share in (0, 1] of the examples used for the second gradient: at 0.25 a step costs about 1.25
        gradients. Of N examples in `args` these are n, the share of N rounded but at least 1: every k-th with k = N / n
        rounded down, so above 1/2 the first ones. The first gradient, the loss and the running statistics use all
        examples.
      aux_reduce: how auxiliary output is combined over groups and devices: `"mean"`, `"sum"`, `"first"` for values that
        are the same in all of them, or a tree of these for the leading part of its structure. Default: floats are
        averaged, integers and bools are summed. Outputs of single examples, such as logits, are not collected but
        averaged too: compute metrics inside `loss_fn`.

    Returns:
      A callable with `init(params) -> state` and

          value, grads, state = vg(params, state, *args, active=None, extra_args=None, **kwargs)

      where `value` is the loss, or `(loss, aux)`, `active` overrides the gate and `extra_args` are extra arguments of
      `tx.update`; a `logits_fn` among them is that of this device's examples, whatever `perturb` is. Gradients of
      complex parameters follow `jax.grad`.

    Raises:
      ValueError, TypeError: if an argument is out of its range; in a call, if `state` is not that of the method, if m
        does not divide the examples or there are none among `args`, or if a method reads a `logits_fn` or `losses_fn`
        of the whole batch where a part of it is asked for.

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

    References:
      m-sharpness: Foret et al., https://arxiv.org/abs/2010.01412, section 4.1
    """
    check_options(tx, perturb, groups, second_batch, aux_reduce)
    return PerturbedValueAndGrad(
        loss_fn, optax.with_extra_args_support(tx), has_aux, axis_name, perturb, groups, second_batch, aux_reduce
    )


def _further(extra_args: Mapping[str, Any] | None) -> dict[str, Any]:
    """`extra_args`, if none of them is an argument that `value_and_grad` passes itself."""
    extra = dict(extra_args or {})
    for name, remedy in (
        ("active", f"active={extra.get('active')}, an argument of its own"),
        ("grad_fn", "leave it out, the second gradient is that of loss_fn"),
    ):
        if name in extra:
            raise TypeError(f"extra_args has {name!r}: expected further arguments of tx.update. Fix: {remedy}.")
    return extra


def _check_state(state: Any, expected: Any, error: Exception) -> None:
    """Attribute an error to `state` if that is not the state of the method."""
    if jax.tree.structure(state) != jax.tree.structure(expected):
        raise ValueError(
            f"state {difference(state, 'the result of init', expected)}. Fix: pass it second, value, grads, state = "
            "vg(params, state, *args), with state = vg.init(...) before the first step."
        ) from error
