"""SIGTERM and Ctrl-C as a request to stop at a point where the work can be resumed."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def graceful_shutdown() -> Iterator[list[signal.Signals]]:
    """A list, empty until the first signal arrives. A second one has its usual effect.

    Signals reach the main thread alone; elsewhere the list stays empty.
    """
    signals: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, frame: object) -> None:
        signals.append(signal.Signals(number))
        _restore(before)

    for number in before:
        signal.signal(number, note)
    try:
        yield signals
    finally:
        _restore(before)


def _restore(handlers: dict) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
