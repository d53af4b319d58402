"""Independent work in threads: JAX releases Python's lock while a program runs, so that every core is busy."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from experiments.config.errors import Stopped

T = TypeVar("T")
SECONDS_BETWEEN_LOOKS = 0.2
"""Seconds after which the main thread wakes up to handle signals that were delivered to another thread."""


def each(function: Callable[[Any], T], turns: Sequence[Any], workers: int, signals: list[signal.Signals]) -> list[T]:
    """The results of the function for every turn, up to `workers` at a time, started in order.

    The first error ends everything: turns that have not started are dropped, and running turns are notified by
    `signals`, as if the process had received SIGTERM.

    Example:
      >>> each(lambda n: n * n, [1, 2, 3], workers=2, signals=[])
      [1, 4, 9]
    """
    if workers == 1:
        return [function(turn) for turn in turns]
    failed = threading.Event()

    def one(turn: Any) -> Any:
        if failed.is_set():
            return None  # not used, because the error is raised below
        with _told(failed, signals):
            return function(turn)

    with ThreadPoolExecutor(workers) as pool, _told(failed, signals):
        futures = [pool.submit(one, turn) for turn in turns]
        while wait(futures, SECONDS_BETWEEN_LOOKS).not_done:
            pass
    min(futures, key=_rank).result()  # raises if one has failed
    return [future.result() for future in futures]


@contextlib.contextmanager
def _told(failed: threading.Event, signals: list[signal.Signals]) -> Iterator[None]:
    """Notifies all turns of an error in the block, including a thread that cannot be started."""
    try:
        yield
    except BaseException:
        failed.set()
        if not signals:
            signals.append(signal.SIGTERM)
        raise


def _rank(future: Future) -> int:
    """The error that stopped others comes before those that were stopped, and errors before results."""
    error = future.exception()
    return 2 if error is None else int(isinstance(error, Stopped))


def one_at_a_time(function: Callable[..., T]) -> Callable[..., T]:
    """The function, which is never run by two threads at once."""
    lock = threading.Lock()

    def guarded(*args: Any) -> T:
        with lock:
            return function(*args)

    return guarded


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
