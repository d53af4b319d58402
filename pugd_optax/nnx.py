"""Flax NNX: a perturbed `nnx.value_and_grad`. `pugd_optax.nnx` imports Flax when it is first used."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pugd_optax import functional
from pugd_optax._parts import Perturb, check_options, holds

try:
    from flax import nnx
except ModuleNotFoundError as error:
    raise ImportError("pugd_optax.nnx needs Flax. Fix: pip install 'pugd_optax[flax]'.") from error


@dataclasses.dataclass(frozen=True)
class PerturbedValueAndGrad:
    """The result of `value_and_grad`: `init` makes the state, a call returns value, gradient and next state."""

    loss_fn: Callable[..., Any]
    tx: optax.GradientTransformationExtraArgs
    has_aux: bool
    wrt: Callable[[Any, Any], bool]
    aux_reduce: Any = dataclasses.field(hash=False)
    options: tuple[tuple[str, Any], ...]

    def init(self, model: nnx.Module) -> optax.OptState:
        """State of the perturbation for this model."""
        return self.tx.init(nnx.to_pure_dict(nnx.state(model, self.wrt)))

    def __call__(
        self,
        model: nnx.Module,
        state: optax.OptState,
        *args: Any,
        active: bool | jax.Array | None = None,
        extra_args: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, Any, optax.OptState]:
        """Value at `model`, perturbed gradient and next state; see `value_and_grad`."""
        modules = {i: arg for i, arg in enumerate(args) if holds(arg, nnx.Variable | nnx.Object)}
        batch = [arg for i, arg in enumerate(args) if i not in modules]
        live = (model, modules, kwargs)
        graphdef, (params, moving, rest) = _split(live, self._of_model)
        self._check(live, params)

        def loss_fn(params: Any, *batch: Any) -> tuple[Any, Any]:
            copies = nnx.merge(graphdef, nnx.State({0: params}), moving, rest, copy=True)
            examples = iter(batch)
            again = [copies[1][i] if i in modules else next(examples) for i in range(len(args))]
            out = self.loss_fn(copies[0], *again, **copies[2])
            loss, aux = out if self.has_aux else (out, None)
            moved = _changed(_split(copies, self._of_model)[1][1], moving)
            moved = _metrics(jnp.subtract, moved, moving) if self._parts else moved
            return loss, (aux, nnx.split_state(moved, nnx.metrics.MetricState, _is_float, ...))

        reduce = (self.aux_reduce, ("sum", "mean", "first"))
        vg = functional.value_and_grad(loss_fn, self.tx, has_aux=True, aux_reduce=reduce, **dict(self.options))
        pure = nnx.to_pure_dict(params[0])
        (loss, (aux, moved)), grads, state = vg(pure, state, *batch, active=active, extra_args=extra_args)
        moved = nnx.merge_state(*moved)
        nnx.update(live, _metrics(jnp.add, moved, moving) if self._parts else moved)
        grads = jax.tree.unflatten(jax.tree.structure(params[0]), jax.tree.leaves(grads))
        return (loss, aux) if self.has_aux else loss, grads, state

    @property
    def _parts(self) -> str:
        """The option by which the loss sees only a part of the batch at a time, if any."""
        given = dict(self.options)
        devices = f"axis_name={given['axis_name']!r}" if given["axis_name"] else ""
        return f"groups={given['groups']}" if given["groups"] > 1 else devices

    def _check(self, live: Any, params: Any) -> None:
        """Refuse a filter that selects nothing, and metrics of parts of the batch that cannot be added up."""
        if not params:
            raise ValueError(
                f"argnums selects no variable of the model, {type(live[0]).__name__}, so there is no gradient. "
                "Fix: argnums=nnx.DiffState(0, nnx.Param)."
            )
        if self._parts and any(isinstance(node, nnx.metrics.Welford) for _, node in nnx.iter_graph(live)):
            raise ValueError(
                f"The metric Welford cannot be added up over parts of the batch, {self._parts}. "
                "Fix: update it outside of loss_fn."
            )

    def _of_model(self, path: tuple[Any, ...], value: Any) -> bool:
        return path[0] == 0 and self.wrt(path[1:], value)


def value_and_grad(
    loss_fn: Callable[..., Any],
    tx: optax.GradientTransformation,
    has_aux: bool = False,
    *,
    argnums: int | nnx.DiffState = 0,
    axis_name: str | None = None,
    perturb: Perturb = "local",
    groups: int = 1,
    second_batch: float = 1.0,
    aux_reduce: Any = None,
) -> PerturbedValueAndGrad:
    r"""`nnx.value_and_grad` with a perturbed gradient.

    $$\epsilon = \epsilon(g, w), \qquad g^* = \nabla L(w + \epsilon;\ \text{same batch, same random counters}), \qquad
      u = \mathrm{combine}(g, g^*)$$

    Both passes start from the variables as they were before the step, those of the model and those of an `nnx.Rngs` or
    another module among the further arguments. So both passes drop the same units, and variables changed by the loss
    (BatchNorm statistics, random counters, metrics) are changed once per step, by the **first** pass.

    Args:
      loss_fn: `loss_fn(model, *args, **kwargs)` returns a scalar, or `(scalar, aux)` with `has_aux`.
      tx: a transformation of this package, or a chain that starts with one. The optimizer stays in `nnx.Optimizer`.
      has_aux: whether `loss_fn` returns auxiliary output.
      argnums: 0, or `nnx.DiffState(0, filter)` for the variables to differentiate. Default: `nnx.Param`. Pass the same
        filter to `nnx.Optimizer` as `wrt`.
      axis_name: the mesh axis over which the batch is split; this and the following as in `pugd_optax.value_and_grad`.
      perturb: with `axis_name`, whether the gradient of each device's own examples, `"local"`, or of all examples,
        `"global"`, perturbs.
      groups: m, the number of groups, each of which perturbs with its own gradient (m-sharpness). The batch is every
        argument in `*args` without variables. Of the variables changed by the loss, floats are then averaged, metrics
        are added up, which `nnx.metrics.Welford` does not allow, and random counters and other integers, which are the
        same in all groups, change once.
      second_batch: share in (0, 1] of the batch that is used for the second gradient.
      aux_reduce: how auxiliary output is combined over groups and devices: `"mean"`, `"sum"` or `"first"`.

    Returns:
      A callable with `init(model) -> state` and

          value, grads, state = vg(model, state, *args, active=None, extra_args=None, **kwargs)

      where `value` is the loss at the unperturbed parameters, or `(loss, aux)`, and `grads` is an `nnx.State`, as
      `nnx.value_and_grad` returns it. `active` overrides the gate, `extra_args` are extra arguments of `tx.update`.

    Raises:
      ValueError, TypeError: if `argnums` is not 0, or an argument is out of its range; in a call, if the filter selects
        nothing.

    Example:
      >>> import jax.numpy as jnp, optax, pugd_optax
      >>> from flax import nnx
      >>> model, x = nnx.Linear(1, 1, rngs=nnx.Rngs(0)), jnp.linspace(-1.0, 1.0, 8)[:, None]
      >>> loss_fn = lambda model, x: jnp.mean((model(x) - 2 * x) ** 2)
      >>> vg = pugd_optax.nnx.value_and_grad(loss_fn, pugd_optax.sam(radius=0.05))
      >>> optimizer, state = nnx.Optimizer(model, optax.sgd(0.2), wrt=nnx.Param), vg.init(model)
      >>> @nnx.jit
      ... def step(model, optimizer, state, x):
      ...     loss, grads, state = vg(model, state, x)
      ...     optimizer.update(model, grads)
      ...     return loss, state
      >>> for _ in range(30):
      ...     loss, state = step(model, optimizer, state, x)
      >>> print(f"{model.kernel[0, 0]:.1f}")
      2.0

    References:
      Flax NNX, https://flax.readthedocs.io/en/latest/api_reference/flax.nnx/transforms.html
    """
    argnum, wrt = (argnums.argnum, argnums.filter) if isinstance(argnums, nnx.DiffState) else (argnums, nnx.Param)
    if argnum != 0:
        raise ValueError(f"argnums={argnums}: expected the model to come first. Fix: loss_fn(model, *args), argnums=0.")
    check_options(tx, perturb, groups, second_batch, aux_reduce)
    options = (("axis_name", axis_name), ("perturb", perturb), ("groups", groups), ("second_batch", second_batch))
    predicate = nnx.filterlib.to_predicate(wrt)
    return PerturbedValueAndGrad(loss_fn, optax.with_extra_args_support(tx), has_aux, predicate, aux_reduce, options)


def _split(live: Any, of_model: Callable[..., bool]) -> tuple[Any, tuple[Any, Any, Any]]:
    """The graph, and the states of the parameters, of all other variables, and of arrays."""
    graphdef, params, moving, rest = nnx.split(live, of_model, nnx.Variable, ...)
    return graphdef, (params, moving, rest)


def _is_variable(x: Any) -> bool:
    return isinstance(x, nnx.Variable)


def _is_float(path: tuple[Any, ...], variable: Any) -> bool:
    del path
    return all(jnp.issubdtype(jnp.result_type(x), jnp.inexact) for x in jax.tree.leaves(variable))


def _changed(moved: Any, before: Any) -> Any:
    """The variables that the loss has changed or created: the others need not be combined over parts of the batch."""
    known = dict(nnx.to_flat_state(before))
    arrays = lambda variable: [id(x) for x in jax.tree.leaves(variable)]
    same = lambda path, variable: path in known and arrays(variable) == arrays(known[path])
    return nnx.from_flat_state([(p, x) for p, x in nnx.to_flat_state(moved) if not same(p, x)])


def _metrics(move: Callable[..., Any], moved: Any, before: Any) -> Any:
    """The totals of metrics minus those before the step, or with those before the step added again.

    Variables that the loss has created, such as intermediate values, have nothing before.
    """
    known = dict(nnx.to_flat_state(before))

    def each(path: tuple[Any, ...], x: Any) -> Any:
        old = known.get(tuple(key.key for key in path))
        return jax.tree.map(move, x, old) if isinstance(x, nnx.metrics.MetricState) and old is not None else x

    return jax.tree.map_with_path(each, moved, is_leaf=_is_variable)
