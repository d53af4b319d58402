"""From settings to an Optax chain: the method, weight decay, and the base optimizer."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import pugd_optax.methods
from experiments.config import schedules
from experiments.config.errors import UsageError, pick
from experiments.config.schema import Config
from experiments.config.specs import Functions, Literal, Spec, named
from experiments.runs.state import State
from experiments.training.gate_plan import cost, plan
from experiments.training.microbatches import part_by_part
from experiments.training.rates import Tabulated, table, tabulated
from experiments.training.second_batch import SecondBatch, second_batch
from pugd_optax import classes, logits, per_example

METHODS: dict[str, Callable[..., Any]] = {
    "none": optax.identity,
    **{name: getattr(pugd_optax, name) for name in pugd_optax.methods.__all__},
}
RULES = {f.__name__: f for f in (classes.balanced, classes.long_tail, classes.confusion, classes.prior)}
EDITS = {"multiplicative": logits.multiplicative, "additive": logits.additive}
GHOST = part_by_part(per_example.ghost)
PENALTIES = {"ghost": lambda: GHOST, "signs": per_example.signs, "reference": lambda: per_example.reference}
UNFIT = {
    **dict.fromkeys(("lbfgs", "sophia"), "needs the loss as a function, which the trainer does not pass"),
    **dict.fromkeys(
        ("schedule_free", "schedule_free_adamw", "schedule_free_sgd"),
        "uses different parameters for evaluation than for training, and only the latter are saved",
    ),
}


NUMBERS_ALONE = ("rprop", "sm3")
"""Optimizers whose learning rate cannot be a schedule."""


def _optimizers(module: Any) -> dict[str, Callable[..., Any]]:
    """The public functions of a module that take a learning rate, without parts, which may lack the sign of a step."""
    return {
        name: f
        for name, f in vars(module).items()
        if inspect.isfunction(f)
        and not name.startswith(("_", "scale_by_"))
        and "learning_rate" in inspect.signature(f).parameters
    }


OPTIMIZERS = {**_optimizers(optax.contrib), **_optimizers(optax)}


class Optimizer(NamedTuple):
    """The chain of one experiment.

    Attributes:
      method: the perturbation.
      base: weight decay and base optimizer.
      lr: learning rate of each step, [steps].
      plan: bool [steps], whether a second gradient is evaluated on a step; None if this is not known in advance.
      cost: gradient evaluations of an idle and of an active step.
      weight_decay: for optimizers without their own weight decay.
      second: the examples used for the second gradient; None for the whole batch.
      data: the settings that the compiled step reads from its state, so that one program works for all their values.
    """

    method: optax.GradientTransformation
    base: optax.GradientTransformation
    lr: np.ndarray
    plan: np.ndarray | None
    cost: tuple[float, float]
    weight_decay: float
    second: SecondBatch | None = None
    data: tuple[str, ...] = ()

    @property
    def tx(self) -> optax.GradientTransformationExtraArgs:
        """Method and base optimizer as one transformation."""
        return optax.chain(self.method, self.base)

    def own(self, state: State) -> State:
        """An initial state, created by the program of another optimizer, with the numbers of this one."""
        method, base = state.opt_state
        if isinstance(base, Tabulated):
            base = base._replace(rates=table(self.lr), weight_decay=jax.device_put(np.float32(self.weight_decay)))
        return state._replace(opt_state=(method, base))


def build(
    config: Config, *, steps_per_epoch: int, num_classes: int, counts: Any = None, axis_name: str | None = None
) -> Optimizer:
    """The chain given by the settings, for a run of `config.epochs * steps_per_epoch` steps.

    `counts` are the numbers of training examples of each class, equal by default. With `axis_name` the step runs on
    several devices, each with its part of the batch.
    """
    steps = config.epochs * steps_per_epoch
    counts = np.ones(num_classes) if counts is None else counts
    lr = schedules.rate(config.parts.lr, steps)
    followed, watched = _watched(lr)
    make = functools.partial(_method, config, steps, steps_per_epoch, counts, watched)
    alone = make(None)
    rates = np.asarray(jax.jit(jax.vmap(lr))(np.arange(steps))) if callable(lr) else np.full(steps, lr)
    second = second_batch(config.parts.second_batch)
    spent = cost(alone, num_classes, 1.0 if second is None else second.cost)
    if second is not None and spent == cost(alone, num_classes):
        raise UsageError(
            f"--second-batch {config.second_batch}: --method {config.method} evaluates no second gradient; "
            "name a method that does, such as sam or pugd"
        )
    planned, base = plan(alone, steps, num_classes), _base(config, lr, rates, steps)
    data = _data(config, callable(lr), bool(followed))
    return Optimizer(make(axis_name), base, rates, planned, spent, config.weight_decay, second, data)


def _watched(lr: float | optax.Schedule) -> tuple[list[bool], float | optax.Schedule]:
    """The schedule, and a list that is not empty once a method has called the schedule."""
    followed: list[bool] = []

    def schedule(step: Any) -> Any:
        followed.append(True)
        return lr(step)  # pyright: ignore[reportCallIssue]

    return followed, schedule if callable(lr) else lr


def _data(config: Config, scheduled: bool, followed: bool) -> tuple[str, ...]:
    """See `Optimizer.data`: a rate that a gate also follows, and a decay inside the optimizer, are compiled in."""
    if not scheduled:
        return ()
    lr = () if followed else ("lr",)
    decay = () if _decays(config) else ("weight_decay",)
    return lr + decay + (("epochs",) if _knows_no_length(config) else ())


def _knows_no_length(config: Config) -> bool:
    """Whether only the learning rate depends on the length of the run, which is certain for plain training."""
    parts = config.method, config.reweight, config.flooding, config.parts.loss.name
    return parts == ("none", "none", "none", "cross_entropy") and not config.optimizer_options


def _decays(config: Config) -> bool:
    """Whether the base optimizer has its own weight decay."""
    return "weight_decay" in inspect.signature(OPTIMIZERS[config.parts.optimizer.name]).parameters


def _method(
    config: Config,
    steps: int,
    steps_per_epoch: int,
    counts: np.ndarray,
    lr: float | optax.Schedule,
    axis_name: str | None,
) -> Any:
    fills = {"total_steps": steps, "num_classes": len(counts), "key": 0, "axis_name": axis_name, "report": True}
    fills |= {"penalty": GHOST} if config.accumulate > 1 else {}
    fills |= {"counts": counts}
    build = functools.partial(_build, steps=steps, fills=fills)
    readers = {
        "when": lambda x: schedules.gate(x, steps, steps_per_epoch, lr),
        "mask": schedules.mask,
        "rule": lambda x: build(x, "rule", RULES),
        "edit": lambda x: pick("edit", str(x), EDITS),
        "penalty": lambda x: build(x, "penalty", PENALTIES),
        "inner": lambda x: build(x, "method", METHODS),
    }
    read = lambda name, x: readers.get(name, lambda x: schedules.number(x, steps))(_open(name, x))
    return config.parts.method.build("method", METHODS, steps=steps, fills=fills, read=read)


def _build(x: Literal | Spec, kind: str, known: Functions, *, steps: int, fills: Mapping[str, Any]) -> Any:
    return named(x, f"--method.{kind}").build(kind, known, steps=steps, fills=fills, read=_open)


def _open(name: str, x: Any) -> Any:
    """The value of an option that users may give."""
    if name == "axis_name":
        raise UsageError(f"axis_name {x}: the trainer sets it itself; leave it out")
    return x


def _base(config: Config, lr: float | optax.Schedule, rates: np.ndarray, steps: int) -> optax.GradientTransformation:
    _refuse_unfit(config)
    read = lambda name, x: schedules.number(x, steps)

    def made(lr: float | optax.Schedule, weight_decay: Any) -> optax.GradientTransformation:
        fills = {"learning_rate": lr, "momentum": config.momentum, "weight_decay": config.weight_decay}
        base = config.parts.optimizer.build("optimizer", OPTIMIZERS, steps=steps, fills=fills, read=read)
        return base if _decays(config) else optax.chain(optax.add_decayed_weights(weight_decay), base)

    plain = made(lr, config.weight_decay)  # raises errors in the options
    return tabulated(made, rates, config.weight_decay) if callable(lr) else plain


def _refuse_unfit(config: Config) -> None:
    optimizer = config.parts.optimizer
    if optimizer.name in UNFIT:
        raise UsageError(f"{optimizer}: {UNFIT[optimizer.name]}; choose another, such as sgd or adamw")
    if optimizer.name in NUMBERS_ALONE and isinstance(config.parts.lr, Spec):
        raise UsageError(f"{optimizer}: takes no schedule, such as --lr {config.lr}; give a number, such as --lr 0.01")
    for name, text in config.optimizer_options:
        if name == "learning_rate":
            raise UsageError(f"--optimizer.learning_rate {text}: use --lr {text}")
