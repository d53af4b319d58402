"""SIGTERM, Ctrl-C and a closed terminal as a request to stop at a point where the work can be resumed."""

import contextlib
import signal
import threading
from collections.abc import Iterator

HANGUP = getattr(signal, "SIGHUP", signal.SIGTERM)
"""The signal of a terminal that closes; Windows has none."""
_open: list[list[signal.Signals]] = []
"""The list of the block in the main thread, if there is one."""


@contextlib.contextmanager
def graceful_shutdown() -> Iterator[list[signal.Signals]]:
    """A list that is empty until the first signal arrives. A second SIGTERM or Ctrl-C has its usual effect.

    A terminal that closes sends SIGHUP, which counts too unless it is ignored, as by nohup. Shell and system both send
    it, also next to SIGTERM, so it never has its usual effect here, however often it arrives.

    A block inside another one, or in another thread, shares the list of the outer block. Signals are delivered only to
    the main thread: without a block there, the list of a thread stays empty.
    """
    if _open:
        yield _open[-1]
        return
    signals: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    every = before | ({HANGUP: signal.getsignal(HANGUP)} if signal.getsignal(HANGUP) != signal.SIG_IGN else {})

    def note(number: int, frame: object) -> None:
        signals.append(signal.Signals(number))
        if number in before:
            _restore(before)

    for number in every:
        signal.signal(number, note)
    _open.append(signals)
    try:
        yield signals
    finally:
        _open.remove(signals)
        _restore(every)


def _restore(handlers: dict) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
