"""SIGTERM and Ctrl-C as a wish that the work stops where it can go on later."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def interrupts() -> Iterator[list[signal.Signals]]:
    """A list, empty until the first signal arrives. A second one acts as if this were not here.

    Signals reach the main thread alone; elsewhere the list stays empty.
    """
    asked: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, frame: object) -> None:
        asked.append(signal.Signals(number))
        _put_back(before)

    for number in before:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        _put_back(before)


def _put_back(handlers: dict) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
