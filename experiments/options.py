"""Words of the command line to settings; every mistake is a `UsageError`."""

import contextlib
import dataclasses
import datetime
import importlib
import inspect
import io
import os
import pkgutil
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import tyro

from experiments import configs
from experiments.config import Config
from experiments.names import UsageError, nearest, pick

T = TypeVar("T")


class Word(NamedTuple):
    """An option of the command line and its value, None where it has none."""

    name: str
    value: str | None

    @property
    def argv(self) -> list[str]:
        """As it is written."""
        return [self.name] if self.value is None else [self.name, self.value]


def words(argv: Sequence[str]) -> list[Word]:
    """`--name value`, `--name=value` and `--name` taken apart.

    Example:
      >>> [tuple(word) for word in words(["--lr", "-1", "--resume", "--out=here"])]
      [('--lr', '-1'), ('--resume', None), ('--out', 'here')]
    """
    found, rest = [], list(argv)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if equals:
            found.append(Word(name, value))
        else:
            found.append(Word(name, rest.pop(0) if rest and not rest[0].startswith("--") else None))
    return found


def train_config(argv: Sequence[str], command: str = "train", about: str | None = None) -> Config:
    """Settings from the options of `train`, on top of those of the preset, with the folders filled in.

    Another command that takes them has its own name and words in the help.
    """
    given = words(argv)
    start = preset(next((_value(word) for word in reversed(given) if word.name == "--preset"), "none"))
    plain = [text for word in given if not _owner(word) for text in word.argv]
    intro, _, more = inspect.cleandoc(Config.__doc__ or "").partition("\n\n")
    about = f"{about or intro}\n\n{more}"
    config = parse(Config, plain, command, start, about=about, also=("--method.OPTION", "--optimizer.OPTION"))
    folder = os.environ.get("PUGD_DATA_DIR")
    time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return dataclasses.replace(
        config,
        method_options=_options("method", given, start, config),
        optimizer_options=_options("optimizer", given, start, config),
        data_dir=config.data_dir or (Path(folder) if folder else None),
        out=config.out or Path("runs") / f"{time}-{config.dataset}-{config.model}-{config.method}",
    )


def parse(
    kind: type[T],
    argv: Sequence[str],
    command: str,
    default: T | None = None,
    *,
    about: str | None = None,
    also: Sequence[str] = (),
) -> T:
    """Settings of that kind; an unknown option or a bad value is a `UsageError`.

    Args:
      kind: a dataclass.
      argv: the options.
      command: what stands before them.
      default: where the settings start from; those of the class if None.
      about: what the help begins with; the docstring of the class if None.
      also: options that are read elsewhere, to be suggested with the others.
    """
    said = io.StringIO()
    words: dict[str, Any] = {"prog": f"python -m experiments {command}".rstrip(), "description": about}
    start: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(said):
            made, unknown = tyro.cli(kind, args=list(argv), return_unknown_args=True, **words, **start)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UsageError(_one_line(said.getvalue())) from None
    if unknown:
        known = ["--" + f.name.replace("_", "-") for f in dataclasses.fields(kind) if not f.name.endswith("_options")]  # pyright: ignore
        raise UsageError(f"unknown option {unknown[0]!r}{nearest(unknown[0], [*known, *also])} --help lists them all")
    return made


def presets() -> dict[str, str]:
    """The names of the papers' recipes, and the note that goes with each."""
    found = sorted(module.name for module in pkgutil.iter_modules(configs.__path__))
    return {name: (_module(name).__doc__ or "").strip() for name in found}


def preset(name: str) -> Config:
    """The settings of that name; `none` are the defaults."""
    if name == "none":
        return Config()
    pick("preset", name, {"none": "", **presets()})
    return dataclasses.replace(_module(name).CONFIG, preset=name)


def _module(name: str) -> Any:
    return importlib.import_module(f"{configs.__name__}.{name}")


def _owner(word: Word) -> str | None:
    """`method` of `--method.radius`."""
    owner, dot, _ = word.name.removeprefix("--").partition(".")
    return owner if dot and owner in ("method", "optimizer") else None


def _value(word: Word) -> str:
    if word.value is None:
        raise UsageError(f"{word.name} needs a value")
    return word.value


def _options(owner: str, given: list[Word], start: Config, config: Config) -> tuple[tuple[str, str], ...]:
    """Those given, on top of those of the preset where it has the same method (or optimizer)."""
    same = getattr(start, owner) == getattr(config, owner)
    options = dict(getattr(start, f"{owner}_options") if same else ())
    for word in given:
        if _owner(word) == owner:
            options[word.name.partition(".")[2].replace("-", "_")] = _value(word)
    return tuple(options.items())


def _one_line(box: str) -> str:
    """The sentences of the parser's box, without its frame."""
    lines = [line.strip("│╭╰╮╯─ \n") for line in box.splitlines()]
    text = " ".join(line for line in lines[1:] if line.strip("-"))  # the frame where the output is ASCII
    return re.split(r"Argument helptext:|For full helptext", text)[0].strip()
