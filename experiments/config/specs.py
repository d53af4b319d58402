"""Numbers, schedules, gates and masks written as text: `name:argument:argument:key=value`.

| text | meaning, in a run of T steps |
|---|---|
| `0.05` | a number |
| `cosine:2.0:0.0` | `pugd_optax.schedules.half_cosine(2, 0, T)` |
| `linear:0:1` | `optax.linear_schedule(0, 1, T)` |
| `quarter:sin:2:0.01` | `pugd_optax.schedules.quarter_wave("sin", 2, 0.01, T)` |
| `drops:0.1:0.1:0.5:0.75` | 0.1, a tenth of it from half of T on, and again from three quarters on |
| `warmup_cosine_decay:0:0.1:0.05` | Optax's schedule of that name, warm-up over 5 % of T |
| `after:0.5`, `after:100` | gate `pugd_optax.timing.after`, from half of T, from step 100 |
| `between:0:0.5`, `every:10`, `bernoulli:0.5`, `low_variance` | any other gate of `pugd_optax.timing` |
| `matrices`, `vectors` | mask: parameters with at least two axes, with less than two |

Where a step count is meant, a number with a point is a fraction of T. Lengths that are left out are the run's.
"""

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from experiments.config.errors import UsageError, nearest, pick
from pugd_optax import schedules, timing

Number = bool | int | float | None
_WORDS = {"true": True, "false": False, "none": None}
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
    """`value`, multiplied by `factor` at each of up to three steps; before them `warmup` steps of a linear rise."""
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


def literal(text: str) -> Number | str:
    """The number, truth value or None that the text spells, or else the text.

    Example:
      >>> literal("10"), literal("1e-3"), literal("true"), literal("unit")
      (10, 0.001, True, 'unit')
    """
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return _WORDS.get(text.lower(), text)


def value(text: str, steps: int) -> Number | str | optax.Schedule:
    """A number, a word, or, where the text has a colon, a schedule over `steps` steps.

    Example:
      >>> radius = value("cosine:2.0:0.0", steps=100)
      >>> [round(float(radius(t)), 3) for t in (0, 50, 100)]
      [2.0, 1.0, 0.0]
    """
    if ":" not in text:
        return literal(text)
    return spell("schedule", text, SCHEDULES, steps, dict.fromkeys(_LENGTHS, steps))


def schedule(text: str, steps: int) -> float | optax.Schedule:
    """A number or a schedule; words are refused."""
    made = value(text, steps)
    if made is None or isinstance(made, str | bool):
        raise UsageError(f"{text!r} is neither a number nor a schedule such as cosine:0.1:0.0")
    return made


def rate(text: str, steps: int) -> float | optax.Schedule:
    """A learning rate: a schedule, or a number, that no negative or infinite number is part of."""
    numbers = [literal(part.rpartition("=")[2]) for part in text.split(":")]
    wrong = [x for x in numbers if isinstance(x, int | float) and not 0 <= x < float("inf")]
    if wrong:
        raise UsageError(f"--lr {text}: {wrong[0]} in a learning rate; expected finite numbers >= 0")
    return schedule(text, steps)


def gate(text: str, steps: int, steps_per_epoch: int = 1) -> Any:
    """A gate of `pugd_optax.timing`; `low_variance` and its like take a tenth of the run as reference.

    Example:
      >>> half = gate("after:0.5", steps=100)
      >>> bool(half(49)), bool(half(50))
      (False, True)
    """
    return spell("gate", text, GATES, steps, {"warmup": max(2, steps // 10), "every": steps_per_epoch})


def mask(text: str) -> Callable[[optax.Params], Any]:
    """A mask of parameters by name."""
    return pick("mask", text, MASKS)


def call(what: str, function: Callable[..., Any], options: Mapping[str, Any], fills: Mapping[str, Any]) -> Any:
    """Call by signature: `options` as given, and of `fills` what the function takes and the options leave open."""
    parameters = inspect.signature(function).parameters
    for name in options:
        if name not in parameters:
            known = ", ".join(parameters) or "no options"
            raise UsageError(f"{what} has no option {name!r}{nearest(name, parameters)} it takes: {known}")
        if parameters[name].annotation is bool and not isinstance(options[name], bool):
            raise UsageError(f"{what}: {name} is {options[name]!r}; expected true or false")
    arguments = {**{k: v for k, v in fills.items() if k in parameters}, **options}
    missing = [k for k, p in parameters.items() if p.default is p.empty and k not in arguments]
    if missing:
        raise UsageError(f"{what} needs {', '.join(missing)}")
    return function(**arguments)


def spell(
    kind: str,
    text: str,
    known: Mapping[str, Callable[..., Any]],
    steps: int,
    fills: Mapping[str, Any] = types.MappingProxyType({}),
) -> Any:
    """Call what `name:argument:key=value` spells, the name from `known`; positions skip what `fills` gives."""
    name, *parts = text.split(":")
    function = pick(kind, name, known)
    parameters = inspect.signature(function).parameters
    open_names = [k for k in parameters if k not in fills]
    given: dict[str, Any] = {}
    for position, part in enumerate(parts):
        key, equals, content = part.rpartition("=")
        if not equals and position >= len(open_names):
            raise UsageError(f"{kind} {text!r} has too many arguments; {name} takes {', '.join(open_names)}")
        key = key if equals else open_names[position]
        given[key] = literal(content)
        if key in parameters and parameters[key].annotation is int and isinstance(given[key], float):
            given[key] = _fraction(text, given[key], steps)
    return call(f"{kind} {text!r}", function, given, fills)


def _fraction(text: str, share: float, steps: int) -> int:
    if not 0 <= share <= 1:
        raise UsageError(f"{text!r}: {share} is meant as a fraction of training; expected 0 to 1, or a whole number")
    return round(share * steps)
