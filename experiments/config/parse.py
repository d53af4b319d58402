"""From words of the command line to a dataclass of settings; every mistake is a `UsageError`."""

import contextlib
import dataclasses
import inspect
import io
import re
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from experiments.config.errors import UsageError, did_you_mean

T = TypeVar("T")


def parse(
    kind: type[T],
    argv: Sequence[str],
    command: str,
    default: T | None = None,
    *,
    about: str | None = None,
    also: Sequence[str] = (),
) -> T:
    """Settings of the given kind; an unknown option or a bad value is a `UsageError`.

    Args:
      kind: a dataclass.
      argv: the options.
      command: the words before the options.
      default: the default settings; those of the class if None.
      about: the beginning of the help; the docstring of the class if None.
      also: options that are read elsewhere, for suggestions.
    """
    said = io.StringIO()
    about = _wrapped(inspect.cleandoc(kind.__doc__ or "") if about is None else about)
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
        raise UsageError(
            f"unknown option {unknown[0]!r}{did_you_mean(unknown[0], [*known, *also])}; --help lists them all"
        )
    return made


def _wrapped(about: str) -> str:
    """The beginning of the help, wrapped between words, which the parser does for options alone.

    It joins lines that begin with a letter to the one before, but not those that are indented.
    """
    width = max(40, shutil.get_terminal_size().columns)
    joined = re.sub(r"(?<=\S)\n(?=[^\W\d_]|`|--[\w.]+ )", " ", about)  # a list has a line for each `--option:`
    wrap = textwrap.TextWrapper(width, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
    return "\n".join(map(wrap.fill, joined.split("\n")))


def _one_line(box: str) -> str:
    """The sentences in the parser's box, without its frame."""
    lines = [line.strip("│╭╰╮╯─ \n") for line in box.splitlines()]
    text = " ".join(line for line in lines[1:] if line.strip("-"))  # the frame where the output is ASCII
    return re.split(r"Argument helptext:|For full helptext", text)[0].strip()
