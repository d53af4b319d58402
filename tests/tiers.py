"""Which cases of a test `make test` runs; `make test-all` and bare `pytest` run every case."""

from collections.abc import Container, Iterable
from typing import Any

import pytest

FEW = ("sgd", "sam", "pugd", "none")
"""Methods that represent all others in tests that take long for each method."""


def slow_but(few: Container[Any], cases: Iterable[Any]) -> list[Any]:
    """The cases as parameters, with all but a few marked slow."""
    return [case if case in few else pytest.param(case, marks=pytest.mark.slow) for case in cases]
