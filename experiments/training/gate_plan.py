"""Properties of a chain known before training: when it perturbs and what a step costs."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pugd_optax
import pugd_optax.methods
from experiments.config.errors import UsageError


def reevaluations(state: optax.OptState) -> list[pugd_optax.ReevaluateState]:
    """The states of all re-evaluating transformations in a chain."""
    return [x for x in jax.tree.leaves(state, is_leaf=is_reevaluation) if is_reevaluation(x)]


def is_reevaluation(x: object) -> bool:
    """Whether this part of a state belongs to `pugd_optax.reevaluate`."""
    return isinstance(x, pugd_optax.ReevaluateState)


class _Probe:
    """A small classification problem for finding out in advance what a transformation does.

    It has two hidden layers, because differentiating a gradient costs something only in a deep network.
    """

    def __init__(self, num_classes: int, width: int):
        self.params = {
            "hidden": {"kernel": _ones(width, width), "scale": _ones(1, width)},
            "second": {"kernel": _ones(width, width)},
            "head": {"kernel": _ones(width, num_classes)},
        }
        self.labels = jax.device_put(np.arange(256, dtype=np.int32) % num_classes)
        self.inputs = _ones(256, width)
        self.second = self.gradient

    def logits(self, params: Any) -> jax.Array:
        hidden = jnp.tanh(self.inputs @ params["hidden"]["kernel"] * params["hidden"]["scale"])
        return jnp.tanh(hidden @ params["second"]["kernel"]) @ params["head"]["kernel"]

    def losses(self, params: Any) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(self.logits(params), self.labels)

    def gradient(self, params: Any) -> Any:
        return jax.grad(lambda p: self.losses(p).mean())(params)

    def update(self, tx: optax.GradientTransformation, state: optax.OptState, active: bool | None = None):
        zero = np.zeros((), np.float32)
        extra = {"grad_fn": self.second, "losses_fn": self.losses, "logits_fn": self.logits, "labels": self.labels}
        extra |= {"train_loss": zero, "val_loss": zero}
        tx = optax.with_extra_args_support(tx)
        return tx.update(self.gradient(self.params), state, self.params, active=active, **extra)


def _ones(*shape: int) -> Any:
    """Ones, created by NumPy and not by `jnp`, which would compile a program for each shape."""
    return jax.device_put(np.ones(shape, np.float32))


def plan(tx: optax.GradientTransformation, steps: int, num_classes: int = 2) -> np.ndarray | None:
    """Whether each step is active, for gates that depend only on the step count.

    The transformation is evaluated in advance on a small problem for every step; its state says whether it is active.
    For a gate with memory, which depends on the real gradients, the result is None; without a second gradient no step
    is active.
    """
    probe = _Probe(num_classes, width=1)
    found = reevaluations(jax.eval_shape(tx.init, probe.params))
    if not found:
        return np.zeros(steps, bool)
    if len(found) > 1 or jax.tree.leaves(found[0].gate):
        return None

    def active(step: jax.Array) -> jax.Array:
        start = tx.init(probe.params)
        at = jax.tree.map(lambda x: x._replace(step=step) if is_reevaluation(x) else x, start, is_leaf=is_reevaluation)
        return reevaluations(probe.update(tx, at)[1])[0].active

    return np.asarray(jax.jit(jax.vmap(active))(np.arange(steps, dtype=np.int32)))


def cost(tx: optax.GradientTransformation, num_classes: int = 2, second: float = 1.0) -> tuple[float, float]:
    """Gradient evaluations of an idle and an active step, from the operations on a small problem.

    Counting calls would be wrong for methods that do not use the first gradient, which is removed as dead code.

    Args:
      tx: the method.
      num_classes: number of classes.
      second: cost of a second gradient, in gradients of the whole batch.
    """
    # Wide, so that the network dominates. Large tables of classes, whose cost does not depend on the width, are
    # subtracted by means of a narrow network.
    probes = [_Probe(num_classes, width) for width in ((256, 128) if num_classes > 100 else (256,))]
    one = _less_rest(_flops(probe.gradient, probe.params) for probe in probes)
    counted = lambda active: round(_less_rest(_of_step(probe, tx, active) for probe in probes) / one)
    idle, active = counted(False), counted(True)
    if second == 1:
        return idle, active
    for probe in probes:
        probe.second = lambda params: jax.tree.map(jnp.ones_like, params)
    alone = counted(True)
    return idle, alone + second * (active - alone)


def _less_rest(numbers: Iterable[float]) -> float:
    """The first number, minus the second one if there is one."""
    first, *rest = numbers
    return first - sum(rest)


def _of_step(probe: _Probe, tx: optax.GradientTransformation, active: bool) -> float:
    """Operations of a step of the method."""
    return _flops(lambda state: probe.update(tx, state, active), jax.eval_shape(tx.init, probe.params))


def _flops(function: Callable, *args: Any) -> float:
    """Operations of a function, counted for the CPU, because other backends only count those of compiled programs."""
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        what = "must include cpu, where the cost of a method is counted, such as JAX_PLATFORMS=cuda,cpu"
        raise UsageError(f"JAX_PLATFORMS {what} ({error})") from error
    with jax.default_device(cpu):
        analysis = jax.jit(function).lower(*args).cost_analysis()
    assert analysis is not None
    return analysis["flops"]
