"""The grammar of textual options: a number, a word, or `name:argument:key=value`.

Text is parsed once, when the settings are created (`Config.parts`). From then on an option is a number, a word or a
`Spec`, and the part of the program that knows the names turns a `Spec` into an object with `build`:

| text | parsed |
|---|---|
| `0.05`, `true`, `none`, `unit` | `0.05`, `True`, `None`, `"unit"` |
| `cosine:2.0:0.0` | `Spec` of name `cosine` with arguments 2.0 and 0.0 |
| `every:5:offset=2` | `Spec` of name `every` with argument 5 and option `offset` 2 |

If a function takes a number of steps (annotated `int`), a fraction such as 0.5 means that share of the run. A last
argument annotated `str` takes the rest of the text including colons, as needed for file names.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from experiments.config.errors import UsageError, did_you_mean, first_line, unknown

Literal = bool | int | float | str | None
Functions = Mapping[str, Callable[..., Any]]
_WORDS = {"true": True, "false": False, "none": None}
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Spec(NamedTuple):
    """A name with its arguments.

    Attributes:
      text: the original text.
      option: the option it was given for, such as `--lr`; for messages.
      name: the name of the function to call.
      arguments: values by position.
      options: values by name; values given as `--method.NAME` may be specs themselves.
    """

    text: str
    option: str
    name: str
    arguments: tuple[Literal, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        """The option and its text, for messages."""
        return f"{self.option} {self.text}".strip()

    @property
    def values(self) -> list[Any]:
        """Every argument, by position or by name."""
        return [*self.arguments, *(value for _, value in self.options)]

    def build(
        self,
        kind: str,
        known: Functions,
        *,
        steps: int | None = None,
        fills: Mapping[str, Any] = _NOTHING,
        read: Callable[[str, Any], Any] = lambda name, value: value,
    ) -> Any:
        """Call the function with this name and the arguments.

        Args:
          kind: what is built, for messages: `schedule`, `loss`.
          known: functions by name.
          steps: length of the run, for fractions.
          fills: values for parameters that are not part of the text; positional arguments skip them.
          read: `(parameter, value) -> value`, applied to every argument.

        Raises:
          UsageError: with the mistake, the usage, and the nearest name.
        """
        if self.name not in known:
            raise UsageError(unknown(kind, self.name, known, lambda close: self._usage(close, known, fills)))
        function = known[self.name]
        usage = f"expected {self._usage(self.name, known, fills)}"
        parameters = inspect.signature(function).parameters
        given = _bind(self, parameters, fills, usage)
        for name, value in given.items():
            given[name] = read(name, _typed(self, parameters[name], value, steps))
        arguments = {**{k: v for k, v in fills.items() if k in parameters}, **given}
        missing = [k for k, p in parameters.items() if _required(p) and k not in arguments]
        if missing:
            raise UsageError(f"{self}: needs {', '.join(missing)}; {usage}")
        try:
            return function(**arguments)
        except UsageError:
            raise
        except (ValueError, TypeError) as error:  # the function's own checks
            raise UsageError(f"{self}: {first_line(error)}") from error
        except Exception as error:  # Optax checks little, and a word in place of a number fails in many ways
            raise UsageError(f"{self}: {type(error).__name__}: {first_line(error)}; {usage}") from error

    def _usage(self, name: str, known: Functions, fills: Mapping[str, Any]) -> str:
        if self.option in ("--method", "--optimizer"):
            return dotted_usage(self.option, name, known[name], fills)
        return colon_usage(name, known[name], fills)


def spec(text: str, option: str = "") -> Spec:
    """`name`, `name:argument` or `name:key=value` as a `Spec`.

    Example:
      >>> made = spec("every:5:offset=2")
      >>> made.name, made.arguments, made.options
      ('every', (5,), (('offset', 2),))
    """
    name, *parts = text.split(":")
    pairs = [part.rpartition("=") for part in parts]
    named = [(key, literal(content)) for key, equals, content in pairs if equals]
    return Spec(text, option, name, tuple(literal(content) for _, equals, content in pairs if not equals), tuple(named))


def value(text: str, option: str = "") -> Literal | Spec:
    """A `Spec` if the text contains a colon, otherwise a number or a word."""
    return spec(text, option) if ":" in text else literal(text)


def dotted(option: str, name: str, options: Iterable[tuple[str, str]]) -> Spec:
    """The `Spec` for a name whose options are given separately, such as `--method.radius 0.1`."""
    read = tuple((key, value(text, f"{option}.{key}")) for key, text in options)
    return Spec(name, option, name, (), read)


def named(x: Literal | Spec, option: str) -> Spec:
    """The `Spec` itself, or one for a plain name such as `low_variance`."""
    return x if isinstance(x, Spec) else Spec(str(x), option, str(x))


def literal(text: str) -> Literal:
    """The number, bool or None that the text represents, or the text itself.

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


def colon_usage(name: str, function: Callable[..., Any], fills: Mapping[str, Any] = _NOTHING) -> str:
    """The usage of a function, written with colons.

    Example:
      >>> colon_usage("rise", lambda low, high, steps, cycles=1: 0, {"steps": 100})
      'rise:low:high[:cycles=1]'
    """
    words = (f":{k}" if _required(p) else f"[:{k}={_word(p.default)}]" for k, p in _open(function, fills))
    return name + "".join(words)


def dotted_usage(option: str, name: str, function: Callable[..., Any], fills: Mapping[str, Any] = _NOTHING) -> str:
    """The usage of a function, written with one option per argument.

    Example:
      >>> dotted_usage("--method", "sam", lambda radius, when=None: 0)
      '--method sam --method.radius RADIUS [--method.when none]'
    """
    words = [
        f"{option}.{k} {k.upper()}" if _required(p) else f"[{option}.{k} {_word(p.default)}]"
        for k, p in _open(function, fills)
    ]
    return " ".join([f"{option} {name}", *words])


def _open(function: Callable[..., Any], fills: Mapping[str, Any]) -> list[tuple[str, inspect.Parameter]]:
    """The parameters that the text must provide."""
    return [(k, p) for k, p in inspect.signature(function).parameters.items() if k not in fills]


def _word(default: Any) -> str:
    if callable(default):
        return getattr(default, "__name__", "...")
    return str(default).lower() if default is None or isinstance(default, bool) else str(default)


def _required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty


def _bind(made: Spec, parameters: Mapping[str, Any], fills: Mapping[str, Any], usage: str) -> dict[str, Any]:
    """The arguments by parameter name."""
    open_names = [k for k in parameters if k not in fills]
    given = dict(zip(open_names, made.arguments, strict=False))
    if open_names and parameters[open_names[-1]].annotation is str and len(made.text.split(":")) > len(open_names):
        return given | {open_names[-1]: made.text.split(":", len(open_names))[-1]}
    if len(made.arguments) > len(open_names):
        raise UsageError(f"{made}: too many arguments; {usage}")
    for name, content in made.options:
        if name not in parameters:
            raise UsageError(f"{made}: no option {name!r}{did_you_mean(name, parameters)}; {usage}")
        given[name] = content
    return given


def _typed(made: Spec, parameter: inspect.Parameter, content: Any, steps: int | None) -> Any:
    """The value, with a fraction converted if it means steps of the run."""
    if parameter.annotation is bool and not isinstance(content, bool):
        raise UsageError(f"{made}: {parameter.name} is {content!r}; expected true or false")
    if parameter.annotation is not int or not isinstance(content, float):
        return content
    if steps is None:
        raise UsageError(f"{made}: {parameter.name} is {content}; expected a whole number")
    if not 0 <= content <= 1:
        what = f"{parameter.name} is {content}, a fraction of training"
        raise UsageError(f"{made}: {what}; expected 0 to 1, or a whole number of steps")
    return round(content * steps)
