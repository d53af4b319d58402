"""Every error of the library, read as a user would: it names the argument, its value and the fix.

A new `raise` in the package needs a case here. Which case meets which `raise` is read off the traceback.
"""

import functools

import pytest

from tests.messages.arguments import ARGUMENTS
from tests.messages.data import DATA
from tests.messages.frameworks import FRAMEWORKS
from tests.messages.ghost import GHOST
from tests.messages.updates import UPDATES
from tests.raises import meet, sites

CASES = ARGUMENTS + UPDATES + DATA + GHOST + FRAMEWORKS


@functools.cache
def place(case):
    return meet(case, (ValueError, TypeError, ImportError, AttributeError))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.argument}-{case.value}")
def test_message_names_argument_value_and_fix(case):
    assert place(case).path.startswith("pugd_optax")


def test_every_raise_is_read():
    read = {place(case) for case in CASES}
    assert [str(site) for site in sites("pugd_optax") if site not in read] == []
