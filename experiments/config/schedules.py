"""Schedules, gates and masks of the library, by the names used in options.

| text | meaning, in a run of T steps |
|---|---|
| `0.05` | a number |
| `cosine:2.0:0.0` | `pugd_optax.schedules.half_cosine(2, 0, T)` |
| `linear:0:1` | `optax.linear_schedule(0, 1, T)` |
| `quarter:sin:2:0.01` | `pugd_optax.schedules.quarter_wave("sin", 2, 0.01, T)` |
| `drops:0.1:0.1:0.5:0.75` | 0.1, multiplied by 0.1 at half of T and again at three quarters |
| `warmup_cosine_decay:0:0.1:0.05` | Optax's schedule of that name, warm-up over 5 % of T |
| `after:0.5`, `after:100` | gate `pugd_optax.timing.after`, from half of T, from step 100 |
| `tail:0.1` | gate `pugd_optax.timing.tail`, in the last tenth of the decay of the learning rate |
| `between:0:0.5`, `every:10`, `bernoulli:0.5`, `low_variance` | any other gate of `pugd_optax.timing` |
| `matrices`, `vectors` | mask: parameters with at least two axes, with fewer than two |

Lengths that are not given are those of the run.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import optax

from experiments.config.errors import UsageError, pick
from experiments.config.specs import Literal, Spec, named
from pugd_optax import schedules, timing

_NEVER = 2**31 - 1
_LENGTHS = ("steps", "total_steps", "decay_steps", "transition_steps")


def _functions_of(module: Any) -> dict[str, Callable[..., Any]]:
    return {
        name: f
        for name, f in vars(module).items()
        if inspect.isfunction(f) and f.__module__.startswith(module.__name__) and not name.startswith("_")
    }


def drops(
    value: float, factor: float, first: int, second: int = _NEVER, third: int = _NEVER, *, warmup: int = 0
) -> optax.Schedule:
    """`value`, multiplied by `factor` at each of up to three steps, after a linear warm-up of `warmup` steps."""
    falls = {step: factor for step in (first, second, third) if step != _NEVER}
    after = optax.piecewise_constant_schedule(value, falls)
    rise = optax.linear_schedule(0.0, 1.0, warmup) if warmup else optax.constant_schedule(1.0)
    return lambda step: rise(step) * after(step)


SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
    **{
        name.removesuffix("_schedule"): f
        for name, f in vars(optax.schedules).items()
        if inspect.isfunction(f) and (name.endswith("_schedule") or name == "exponential_decay")
    },
    **_functions_of(schedules),
    "cosine": schedules.half_cosine,
    "quarter": schedules.quarter_wave,
    "drops": drops,
}
GATES = _functions_of(timing)
MASKS: dict[str, Callable[[optax.Params], Any]] = {
    "matrices": lambda params: jax.tree.map(lambda w: w.ndim > 1, params),
    "vectors": lambda params: jax.tree.map(lambda w: w.ndim <= 1, params),
}


def number(x: Literal | Spec, steps: int) -> Literal | optax.Schedule:
    """A number or word unchanged; a `Spec` as a schedule over `steps` steps.

    Example:
      >>> from experiments.config.specs import value
      >>> radius = number(value("cosine:2.0:0.0"), steps=100)
      >>> [round(float(radius(t)), 3) for t in (0, 50, 100)]
      [2.0, 1.0, 0.0]
    """
    return (
        x.build("schedule", SCHEDULES, steps=steps, fills=dict.fromkeys(_LENGTHS, steps)) if isinstance(x, Spec) else x
    )


def rate(x: Literal | Spec, steps: int) -> float | optax.Schedule:
    """A learning rate: a number or a schedule without negative or infinite numbers.

    Raises:
      UsageError: if it is anything else.
    """
    text, values = (x.text, x.values) if isinstance(x, Spec) else (x, [x])
    if x is None or isinstance(x, str | bool):
        raise UsageError(f"--lr {text}: neither a number nor a schedule such as cosine:0.1:0.0")
    for part in values:
        if isinstance(part, int | float) and not 0 <= part < float("inf"):
            raise UsageError(f"--lr {text}: {part} in a learning rate; expected finite numbers >= 0")
    return number(x, steps)  # pyright: ignore[reportReturnType]


def gate(x: Literal | Spec, steps: int, steps_per_epoch: int = 1, lr: float | optax.Schedule | None = None) -> Any:
    """A gate of `pugd_optax.timing`; triggers check once per epoch, with a tenth of the run or an epoch as reference.

    Example:
      >>> from experiments.config.specs import spec
      >>> half = gate(spec("after:0.5"), steps=100)
      >>> bool(half(49)), bool(half(50))
      (False, True)
    """
    warmup = max(2, steps // 10, steps_per_epoch)
    fills = {"warmup": warmup, "every": steps_per_epoch, "schedule": lr, "steps": steps}
    return named(x, "--method.when").build("gate", GATES, steps=steps, fills=fills)


def mask(x: Literal | Spec) -> Callable[[optax.Params], Any]:
    """A mask of parameters by name."""
    return pick("mask", str(x), MASKS)
