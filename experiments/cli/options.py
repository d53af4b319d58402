"""From words of the command line to settings; every mistake is a `UsageError`."""

import dataclasses
import datetime
import inspect
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.config import presets
from experiments.config.errors import UsageError
from experiments.config.parse import parse
from experiments.config.schema import Config


class Word(NamedTuple):
    """An option of the command line and its value, or None if it has none."""

    name: str
    value: str | None

    @property
    def argv(self) -> list[str]:
        """As it is written."""
        return [self.name] if self.value is None else [self.name, self.value]


def words(argv: Sequence[str]) -> list[Word]:
    """Splits `--name value`, `--name=value` and `--name` into name and value.

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

    Another command with the same options can set its own name and text for the help.
    """
    given = words(argv)
    start = presets.load(next((_value(word) for word in reversed(given) if word.name == "--preset"), "none"))
    plain = [text for word in given if not _owner(word) for text in word.argv]
    intro, _, more = inspect.cleandoc(Config.__doc__ or "").partition("\n\n")
    about = f"{about or intro}\n\n{more}"
    if {"-h", "--help"} & set(argv):
        from experiments.cli.names import listing

        about += f"\n\nNames, with the arguments that they take:\n\n{listing()}"
    config = parse(Config, plain, command, start, about=about, also=("--method.OPTION", "--optimizer.OPTION"))
    if config.resume and config.out is None:  # the default folder is always a new one
        raise UsageError("--resume: name the folder of the run, --out FOLDER")
    folder = os.environ.get("PUGD_DATA_DIR")
    name = f"{config.dataset}-{config.model}-{config.method}"
    time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return dataclasses.replace(
        config,
        method_options=_options("method", given, start, config),
        optimizer_options=_options("optimizer", given, start, config),
        data_dir=config.data_dir or (Path(folder) if folder else None),
        out=config.out or Path("runs") / re.sub(r"[^\w.=+-]+", "_", f"{time}-{name}"),  # a data set may be a path
    )


def _owner(word: Word) -> str | None:
    """`method` of `--method.radius`."""
    owner, dot, _ = word.name.removeprefix("--").partition(".")
    return owner if dot and owner in ("method", "optimizer") else None


def _value(word: Word) -> str:
    if word.value is None:
        raise UsageError(f"{word.name} needs a value")
    return word.value


def _options(owner: str, given: list[Word], start: Config, config: Config) -> tuple[tuple[str, str], ...]:
    """The given options, added to those of the preset if it has the same method (or optimizer)."""
    same = getattr(start, owner) == getattr(config, owner)
    options = dict(getattr(start, f"{owner}_options") if same else ())
    for word in given:
        if _owner(word) == owner:
            options[word.name.partition(".")[2].replace("-", "_")] = _value(word)
    return tuple(options.items())
