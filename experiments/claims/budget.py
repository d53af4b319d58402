"""A time budget: when it is used up, runs stop at their next step, and the same command continues from there."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

from experiments.config.errors import Stopped
from experiments.runs.signals import graceful_shutdown


@contextlib.contextmanager
def within(minutes: float | None) -> Iterator[Callable[[], bool]]:
    """A function that says whether the budget is used up; at that time the process also receives a first SIGTERM.

    Work without steps is not interrupted. If another signal came during such work, the function raises `Stopped`.

    Example:
      >>> with within(None) as used_up:
      ...     used_up()
      False
    """
    if minutes is None:
        yield lambda: False
        return
    over = threading.Event()

    def end() -> None:
        over.set()
        if not signals:  # another signal has stopped the work already; a second one would kill it
            os.kill(os.getpid(), signal.SIGTERM)

    def used_up() -> bool:
        if signals and not over.is_set():
            raise Stopped(f"{signals[0].name}; the same command continues from there", signals[0])
        return over.is_set()

    timer = threading.Timer(60 * minutes, end)
    timer.daemon = True
    with graceful_shutdown() as signals:
        timer.start()
        try:
            yield used_up
        finally:
            timer.cancel()
