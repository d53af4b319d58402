"""Finds every `raise` of a package, and the one that a call ends in."""

import ast
import functools
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[1]


class Case(NamedTuple):
    """A call that fails, and what the message must contain: the argument, its value and the fix."""

    call: Callable[..., Any]
    argument: str
    value: str
    fix: str


class Site(NamedTuple):
    """A `raise` in the source."""

    path: str
    first: int
    last: int

    def __str__(self) -> str:
        """The location as `path:line`, which editors can open."""
        return f"{self.path}:{self.first}"


@functools.cache
def sites(package: str) -> list[Site]:
    """All `raise` statements of a package that create an error, without bare ones that re-raise."""
    return [
        Site(str(path.relative_to(ROOT)), node.lineno, node.end_lineno or node.lineno)
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Raise) and node.exc is not None
    ]


def meet(case: Case, error: type[Exception] | tuple[type[Exception], ...], *args: Any) -> Site:
    """Runs the call, checks its error message, and returns the `raise` that it came from."""
    with pytest.raises(error) as caught:
        case.call(*args)
    message = str(caught.value)
    for what in ("argument", "value", "fix"):
        assert getattr(case, what) in message, f"the {what} {getattr(case, what)!r} is not in: {message}"
    assert "\n" not in message
    assert "Traceback" not in message
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    found = [s for s in _at(frame.filename) if s.first <= (frame.lineno or 0) <= s.last]
    assert found, f"raised by {frame.filename}, not by this project: {message}"
    return found[0]


def _at(filename: str) -> list[Site]:
    path = Path(filename).resolve()
    if not path.is_relative_to(ROOT):
        return []
    here = str(path.relative_to(ROOT))
    return [s for s in sites(Path(here).parts[0]) if s.path == here]
