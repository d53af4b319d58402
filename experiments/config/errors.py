"""Errors that are answers: what is wrong with a request, and the right name nearest to a wrong one."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class UsageError(Exception):
    """What the user asked for cannot be done: one line that says why, exit status 2."""


class Diverged(Exception):
    """The loss of a run is no longer finite: one line that says where, exit status 1."""


class Stopped(Exception):
    """A signal has ended the work where it can go on later: one line, and the exit status of that signal."""

    def __init__(self, line: str, number: int):
        super().__init__(line)
        self.status = 128 + number


def pick(kind: str, name: str, known: Mapping[str, T]) -> T:
    """The entry of that name; otherwise a `UsageError` that suggests the nearest one.

    Example:
      >>> pick("model", "restnet8", {"resnet8": 1, "mlp": 2})
      Traceback (most recent call last):
      experiments.config.errors.UsageError: unknown model 'restnet8'; did you mean 'resnet8'? known: mlp, resnet8
    """
    if name in known:
        return known[name]
    raise UsageError(f"unknown {kind} {name!r}{nearest(name, known)} known: {', '.join(sorted(known))}")


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause that suggests the nearest name, or a mere semicolon when none is near."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ";"
