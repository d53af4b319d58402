r"""What a transformation does to the gradient: $g$ becomes $g + \delta$; the unified view of the field as a table."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pugd_optax import methods as _methods
from pugd_optax._norms import inverse, norm, widen
from pugd_optax.ascents import normalize
from pugd_optax.combines import cosine
from pugd_optax.diagnostics._counting import Tally, counted


class DeltaReport(NamedTuple):
    r"""One step of one transformation.

    Attributes:
      delta_norm: $\|\delta\|$ of $\delta = u - g$.
      relative: $\|\delta\| / \|g\|$, 0 where $g$ is 0.
      cosine: $\cos(g, u)$, 0 where one of them is 0.
      radius: the radius the state reports, the largest if several do; None if none does.
      gradient_evaluations: gradients actually computed in this step, including the one at $w$.
      cost: floating-point operations of the compiled step divided by those of one gradient, as counted by XLA; None if
        the backend does not count. The body of a loop counts once.
    """

    delta_norm: float
    relative: float
    cosine: float
    radius: float | None
    gradient_evaluations: int
    cost: float | None


def delta_report(
    tx: optax.GradientTransformation,
    loss_fn: Callable[[optax.Params], jax.Array],
    params: optax.Params,
    *,
    state: optax.OptState | None = None,
    **extra_args: Any,
) -> DeltaReport:
    r"""What one step of a transformation does to the gradient, and what it costs.

    Evaluations are counted while the **compiled** step runs, by a callback in every gradient. So a branch that is not
    taken counts nothing, and neither does a gradient at $w$ that is not used.

    Args:
      tx: any transformation of gradients, of this package or of Optax. Leave the base optimizer out: with a learning
        rate in it, $u$ is an update and no longer a gradient.
      loss_fn: `params -> loss`, a scalar.
      params: $w$.
      state: the state to start from. Default: a new one; a method with memory then shows its first step.
      extra_args: further arguments of `tx.update`; `grad_fn` is given already.

    Returns:
      A `DeltaReport`. A Hessian-vector product counts as two evaluations, which is about its cost. Evaluations that
      bypass `grad_fn`, of per-example losses or logits, are not counted; the cost includes them.

    Example:
      >>> import jax.numpy as jnp, pugd_optax
      >>> report = delta_report(pugd_optax.sam(radius=0.1), lambda w: jnp.sum(w**2), jnp.array([3.0, 4.0]))
      >>> report.gradient_evaluations, round(report.delta_norm, 3), round(report.cosine, 3)
      (2, 0.2, 1.0)
    """
    return _report(tx, _Problem(loss_fn, params), state, extra_args)


def delta_table(
    loss_fn: Callable[[optax.Params], jax.Array],
    params: optax.Params,
    methods: Mapping[str, optax.GradientTransformation] | None = None,
    **extra_args: Any,
) -> str:
    r"""`delta_report` of many methods on one model, as a plain-text table: the whole family, if none are named.

    The family is the gradient itself, `normalize`, and every method of the package at its defaults (`total_steps` 1000,
    `strength` .01, the classes of `logits_fn`), on an active step. If a method cannot run on this model, its error
    message is shown below the table. Every method is compiled once, which takes about a second each.

    Args:
      loss_fn: `params -> loss`, a scalar.
      params: $w$.
      methods: transformations by name. Default: the family, cheapest first.
      extra_args: further arguments of every `update`: with `logits_fn`, `labels` and `losses_fn` (see `pugd_optax.lpg`
        and `pugd_optax.pegr`) the family is complete.

    Returns:
      The table, one line per method. `gradients` counts the gradients computed by `grad_fn`, `-` if there are none;
      `cost` is in units of one gradient, by floating-point operations.

    Example:
      >>> import jax.numpy as jnp, optax, pugd_optax
      >>> methods = {"sgd": optax.identity(), "sam": pugd_optax.sam(0.1), "ngd": pugd_optax.normalize()}
      >>> table = delta_table(lambda w: jnp.sum(w**2), jnp.array([3.0, 4.0]), methods)
      >>> print(table)  # doctest: +ELLIPSIS
      method  |delta|  |delta|/|g|  cos(g, u)  radius  gradients   cost
      sgd           0            0          1       -          1 ...
      sam         0.2         0.02          1     0.1          2 ...
      ngd           9          0.9          1       -          1 ...
    """
    problem = _Problem(loss_fn, params)
    if methods is None:
        found, lacking = _family(problem, extra_args)
    else:
        found, lacking = {name: _report(tx, problem, None, extra_args) for name, tx in methods.items()}, {}
    rows: list[tuple[str, ...]] = [
        ("method", "|delta|", "|delta|/|g|", "cos(g, u)", "radius", "gradients", "cost"),
        *((name, *_shown(report)) for name, report in found.items()),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    align = lambda row: "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
    return "\n".join([*map(align, rows), *(f"{name}: {message}" for name, message in lacking.items())])


def _shown(report: DeltaReport) -> list[str]:
    values = (*report[:4], report.gradient_evaluations or None, report.cost)
    return ["-" if value is None else f"{value:.4g}" for value in values]


class _Problem:
    """A loss at one point, its gradient there, and the number of operations of that gradient."""

    def __init__(self, loss_fn: Callable[[optax.Params], jax.Array], params: optax.Params) -> None:
        self.params = params
        self.gradient = lambda p: jax.tree.map(jnp.conj, jax.grad(loss_fn)(p))
        # With the counter, because the steps include it too.
        compiled = jax.jit(counted(self.gradient, Tally())).lower(params).compile()
        self.g, self.operations = compiled(params), _operations(compiled)


def _report(
    tx: optax.GradientTransformation, problem: _Problem, state: optax.OptState | None, extra_args: Mapping[str, Any]
) -> DeltaReport:
    tally, tx = Tally(), optax.with_extra_args_support(tx)
    grad_fn = counted(problem.gradient, tally)
    step = lambda params, state: tx.update(grad_fn(params), state, params, grad_fn=grad_fn, **extra_args)
    state = tx.init(problem.params) if state is None else state
    compiled = jax.jit(step).lower(problem.params, state).compile()
    u, new_state = jax.block_until_ready(compiled(problem.params, state))
    radii = [float(value) for _, value in optax.tree.get_all_with_path(new_state, "radius")]
    operations = _operations(compiled)
    return DeltaReport(
        *map(float, _compare(problem.g, u)),
        radius=max(radii, default=None),
        gradient_evaluations=tally.count,
        cost=operations / problem.operations if operations and problem.operations else None,
    )


def _operations(compiled: Any) -> float | None:
    analysis = compiled.cost_analysis()
    return analysis.get("flops") if isinstance(analysis, Mapping) else None


def _family(problem: _Problem, extra_args: dict[str, Any]) -> tuple[dict[str, DeltaReport], dict[str, str]]:
    """Reports of all methods, cheapest first, and the reason for each method that cannot run here."""
    classes = 2
    if extra_args.get("logits_fn") is not None:
        classes = jax.eval_shape(extra_args["logits_fn"], problem.params).shape[-1]
    counts = range(classes, 0, -1)  # some long tail: the report knows one batch, not the training set
    given: dict[str, Any] = {"total_steps": 1000, "strength": 0.01, "num_classes": classes, "counts": counts}
    extra_args = {"active": True, **extra_args}
    makers: dict[str, Callable[[], optax.GradientTransformation]] = {"gradient": optax.identity, "normalize": normalize}
    makers |= {name: functools.partial(_default, name, given) for name in _methods.__all__}
    found, lacking = {}, {}
    for name, make in makers.items():
        try:
            found[name] = _report(make(), problem, None, extra_args)
        except (TypeError, ValueError) as error:
            lacking[name] = str(error).splitlines()[0]
    return dict(sorted(found.items(), key=lambda item: item[1].cost or 0)), lacking


def _default(name: str, given: Mapping[str, Any]) -> optax.GradientTransformation:
    method = getattr(_methods, name)
    needed = [k for k, p in inspect.signature(method).parameters.items() if p.default is p.empty]
    return method(**{k: given[k] for k in needed if k in given})


@jax.jit
def _compare(g: optax.Updates, u: optax.Updates) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Norm of `u - g`, the same divided by the norm of `g`, and the cosine."""
    delta = norm(jax.tree.map(lambda a, b: widen(a) - widen(b), u, g))
    return delta, delta * inverse(norm(g)), cosine(g, u)
