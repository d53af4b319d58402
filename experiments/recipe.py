"""From names and options to an Optax chain, and what the chain will do: when it perturbs and what a step costs."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pugd_optax.methods
from experiments import values
from experiments.config import Config, Options
from experiments.names import UsageError, pick
from experiments.step import is_reevaluation, reevaluations
from pugd_optax import classes, logits, per_example

METHODS: dict[str, Callable[..., Any]] = {
    "none": optax.identity,
    **{name: getattr(pugd_optax, name) for name in pugd_optax.methods.__all__},
}
RULES = {"balanced": classes.balanced, "long_tail": classes.long_tail, "noisy": classes.noisy}
EDITS = {"multiplicative": logits.multiplicative, "additive": logits.additive}
PENALTIES = {"ghost": lambda: per_example.ghost, "signs": per_example.signs, "reference": lambda: per_example.reference}
UNFIT = {
    **dict.fromkeys(("lbfgs", "sophia"), "needs the loss as a function, which a step does not hand it"),
    **dict.fromkeys(
        ("schedule_free", "schedule_free_adamw", "schedule_free_sgd"),
        "has other parameters for evaluation than for training, of which only the latter are kept",
    ),
}


class Recipe(NamedTuple):
    """The chain of one experiment.

    Attributes:
      method: the perturbation.
      base: weight decay and base optimizer.
      lr: step -> learning rate.
      plan: bool [steps], whether the gradient is evaluated again on a step; None where it is not known ahead.
      cost: gradient evaluations of an idle and of an active step.
    """

    method: optax.GradientTransformation
    base: optax.GradientTransformation
    lr: Callable[[int], Any]
    plan: np.ndarray | None
    cost: tuple[int, int]

    @property
    def tx(self) -> optax.GradientTransformationExtraArgs:
        """Both in one."""
        return optax.chain(self.method, self.base)


def build(config: Config, *, steps_per_epoch: int, num_classes: int, axis_name: str | None = None) -> Recipe:
    """The chain that the settings describe, for a run of `config.epochs * steps_per_epoch` steps.

    With `axis_name` the step will run side by side on several devices, each with its part of the batch.
    """
    steps = config.epochs * steps_per_epoch
    make = functools.partial(_method, config, steps, steps_per_epoch, num_classes)
    lr, alone = values.rate(config.lr, steps), make(None)
    rate = lr if callable(lr) else lambda step: lr
    known = plan(alone, steps, num_classes), cost(alone, num_classes)
    return Recipe(make(axis_name), _base(config, lr, steps), rate, *known)


def _method(config: Config, steps: int, steps_per_epoch: int, num_classes: int, axis_name: str | None) -> Any:
    function = pick("method", config.method, METHODS)
    fills = {"total_steps": steps, "num_classes": num_classes, "key": 0, "axis_name": axis_name}
    readers = {
        "when": lambda text: values.gate(text, steps, steps_per_epoch),
        "mask": values.mask,
        "rule": lambda text: values.spell("rule", text, RULES, steps),
        "edit": lambda text: pick("edit", text, EDITS),
        "penalty": lambda text: values.spell("penalty", text, PENALTIES, steps, fills),
        "inner": lambda text: values.spell("method", text, METHODS, steps, fills),
    }
    return _call(f"method {config.method}", function, config.method_options, fills, readers, steps)


def _base(config: Config, lr: optax.ScalarOrSchedule, steps: int) -> optax.GradientTransformation:
    known = {**_optimizers(optax.contrib), **_optimizers(optax)}
    function = pick("optimizer", config.optimizer, known)
    if config.optimizer in UNFIT:
        reason = UNFIT[config.optimizer]
        raise UsageError(f"--optimizer {config.optimizer}: {reason}; choose another, such as sgd or adamw")
    for name, text in config.optimizer_options:
        if name == "learning_rate":
            raise UsageError(f"--optimizer.learning_rate {text}: use --lr {text}")
    fills = {"learning_rate": lr, "momentum": config.momentum, "weight_decay": config.weight_decay}
    base = _call(f"optimizer {config.optimizer}", function, config.optimizer_options, fills, {}, steps)
    if "weight_decay" in inspect.signature(function).parameters:
        return base
    return optax.chain(optax.add_decayed_weights(config.weight_decay), base)


def _optimizers(module: Any) -> dict[str, Callable[..., Any]]:
    return {
        name: f
        for name, f in vars(module).items()
        if inspect.isfunction(f) and "learning_rate" in inspect.signature(f).parameters
    }


def _call(
    what: str, function: Callable, options: Options, fills: Mapping[str, Any], readers: Mapping[str, Any], steps: int
) -> Any:
    read = {k: readers.get(k, lambda text: values.value(text, steps))(text) for k, text in options}
    return values.call(what, function, read, fills)


class _Probe:
    """A small classification problem on which to see ahead what a transformation does.

    Two hidden layers: to go back through a gradient costs something only where there is depth.
    """

    def __init__(self, num_classes: int, width: int):
        self.params = {
            "hidden": {"kernel": jnp.ones((width, width)), "scale": jnp.ones((1, width))},
            "second": {"kernel": jnp.ones((width, width))},
            "head": {"kernel": jnp.ones((width, num_classes))},
        }
        self.labels = jnp.arange(256) % num_classes
        self.inputs = jnp.ones((256, width))

    def logits(self, params: Any) -> jax.Array:
        hidden = jnp.tanh(self.inputs @ params["hidden"]["kernel"] * params["hidden"]["scale"])
        return jnp.tanh(hidden @ params["second"]["kernel"]) @ params["head"]["kernel"]

    def losses(self, params: Any) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(self.logits(params), self.labels)

    def gradient(self, params: Any) -> Any:
        return jax.grad(lambda p: self.losses(p).mean())(params)

    def update(self, tx: optax.GradientTransformation, state: optax.OptState, active: bool | None = None):
        zero = jnp.zeros(())
        extra = {"grad_fn": self.gradient, "losses_fn": self.losses, "logits_fn": self.logits, "labels": self.labels}
        extra |= {"train_loss": zero, "val_loss": zero}
        tx = optax.with_extra_args_support(tx)
        return tx.update(self.gradient(self.params), state, self.params, active=active, **extra)


def plan(tx: optax.GradientTransformation, steps: int, num_classes: int = 2) -> np.ndarray | None:
    """Whether each step is active, for gates that follow from the step count alone.

    The transformation is asked ahead on a small problem, every step by itself; its state tells when it is active. A
    gate with memory depends on the real gradients, so None; without a re-evaluation no step is active.
    """
    probe = _Probe(num_classes, width=1)
    start = tx.init(probe.params)
    found = reevaluations(start)
    if not found:
        return np.zeros(steps, bool)
    if len(found) > 1 or jax.tree.leaves(found[0].gate):
        return None

    def active(step: jax.Array) -> jax.Array:
        at = jax.tree.map(lambda x: x._replace(step=step) if is_reevaluation(x) else x, start, is_leaf=is_reevaluation)
        return reevaluations(probe.update(tx, at)[1])[0].active

    return np.asarray(jax.jit(jax.vmap(active))(jnp.arange(steps)))


def cost(tx: optax.GradientTransformation, num_classes: int = 2) -> tuple[int, int]:
    """Gradient evaluations of an idle and an active step, from the operations of a small problem.

    Counting calls would be wrong for methods that never read the first gradient: it is dropped as dead code.
    """
    probe = _Probe(num_classes, width=256)  # so wide that little but the network counts
    one = _flops(probe.gradient, probe.params)
    state = tx.init(probe.params)
    idle, active = (round(_flops(lambda s, a=a: probe.update(tx, s, a), state) / one) for a in (False, True))
    return idle, active


def _flops(function: Callable, *args: Any) -> float:
    analysis = jax.jit(function).lower(*args).cost_analysis()
    assert analysis is not None
    return analysis["flops"]
