"""Errors for users: what is wrong with a request, and the nearest valid name."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class UsageError(Exception):
    """The request cannot be carried out: a one-line reason, exit status 2."""


class Diverged(Exception):
    """The loss of a run is no longer finite: one line with the step, exit status 1."""


class Stopped(Exception):
    """A signal has stopped the work at a point from which it can be resumed: one line, exit status of the signal."""

    def __init__(self, line: str, number: int):
        super().__init__(line)
        self.status = 128 + number


def first_line(error: BaseException) -> str:
    """The first line of an error message, shortened; the name of the error if the message is empty."""
    line = str(error).partition("\n")[0].strip() or type(error).__name__
    return line if len(line) <= 300 else f"{line[:300]} ..."


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out: of the machine, for a new thread, or on a device."""
    return isinstance(error, MemoryError) or any(
        text in str(error) for text in ("RESOURCE_EXHAUSTED", "can't start new thread")
    )


def pick(kind: str, name: str, known: Mapping[str, T]) -> T:
    """The entry with this name; if there is none, a `UsageError` that suggests the nearest one.

    Example:
      >>> pick("model", "restnet8", {"resnet8": 1, "mlp": 2})
      Traceback (most recent call last):
      experiments.config.errors.UsageError: unknown model 'restnet8'; did you mean 'resnet8'? Known: mlp, resnet8
    """
    if name in known:
        return known[name]
    raise UsageError(unknown(kind, name, known))


def unknown(kind: str, name: str, known: Iterable[str], usage: Callable[[str], str] | None = None) -> str:
    """The message for an unknown name: the nearest name, its usage, and all names."""
    close = nearest(name, known)
    meant = f"; did you mean {close!r}?" if close else "."
    written = f" Usage: {usage(close)}." if close and usage else ""
    return f"unknown {kind} {name!r}{meant}{written} Known: {', '.join(sorted(known))}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A clause that suggests the nearest name; empty if there is none."""
    close = nearest(name, known)
    return f"; did you mean {close!r}?" if close else ""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name with the most similar spelling, ignoring case.

    Example:
      >>> nearest("SAM", ["sam", "wsam", "pugd"])
      'sam'
    """
    by_lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[close[0]] if close else None
