"""Which cases of a test `make test` runs; `make test-all` and bare `pytest` run every case."""

from collections.abc import Container, Iterable
from typing import Any

import pytest

FEW = ("sgd", "sam", "pugd", "none")
"""Methods that stand for all of them where each takes long."""


def slow_but(few: Container[Any], cases: Iterable[Any]) -> list[Any]:
    """The cases, all but a few of them marked slow."""
    return [case if case in few else pytest.param(case, marks=pytest.mark.slow) for case in cases]
