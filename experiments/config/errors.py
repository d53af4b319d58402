"""Errors for users: what is wrong with a request, and the nearest correct name."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class UsageError(Exception):
    """The request cannot be carried out: one line that says why, exit status 2."""


class Diverged(Exception):
    """The loss of a run is no longer finite: one line that says where, exit status 1."""


class Stopped(Exception):
    """A signal has stopped the work where it can be resumed: one line, and the exit status of that signal."""

    def __init__(self, line: str, number: int):
        super().__init__(line)
        self.status = 128 + number


def first_line(error: BaseException) -> str:
    """The first line of what an error says, as far as one reads it; its name where it says nothing."""
    line = str(error).partition("\n")[0].strip() or type(error).__name__
    return line if len(line) <= 300 else f"{line[:300]} ..."


def out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory has ended: that of the machine, the stack of one more thread, or that of a device."""
    return isinstance(error, MemoryError) or any(
        text in str(error) for text in ("RESOURCE_EXHAUSTED", "can't start new thread")
    )


def pick(kind: str, name: str, known: Mapping[str, T]) -> T:
    """The entry of that name; otherwise a `UsageError` that suggests the nearest one.

    Example:
      >>> pick("model", "restnet8", {"resnet8": 1, "mlp": 2})
      Traceback (most recent call last):
      experiments.config.errors.UsageError: unknown model 'restnet8'; did you mean 'resnet8'? Known: mlp, resnet8
    """
    if name in known:
        return known[name]
    raise UsageError(unknown(kind, name, known))


def unknown(kind: str, name: str, known: Iterable[str], usage: Callable[[str], str] | None = None) -> str:
    """The line about an unknown name: the nearest one, how that one is written, and the names of all."""
    close = nearest(name, known)
    meant = f"; did you mean {close!r}?" if close else "."
    written = f" It is written {usage(close)}." if close and usage else ""
    return f"unknown {kind} {name!r}{meant}{written} Known: {', '.join(sorted(known))}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A clause that suggests the nearest name; empty if none is near."""
    close = nearest(name, known)
    return f"; did you mean {close!r}?" if close else ""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is spelled most alike, whatever its case.

    Example:
      >>> nearest("SAM", ["sam", "wsam", "pugd"])
      'sam'
    """
    by_lower = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[close[0]] if close else None
