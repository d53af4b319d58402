"""Progress of long jobs: a live bar on a terminal, plain lines in a log."""

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10
WIDE = 110
"""Width of a terminal that can also show the bar."""


class Reporter(Protocol):
    """Called after every epoch: `what` is running, the `work` done since the last call, and a line of numbers.

    `left_out` is work that will not be done, that of a run that has failed.
    """

    def __call__(self, what: str, work: int, numbers: str, left_out: int = 0) -> None:
        """Show it."""
        ...


def silent(what: str, work: int, numbers: str, left_out: int = 0) -> None:
    """Show nothing."""


@contextlib.contextmanager
def reporter(console: Console, total: int) -> Iterator[Reporter]:
    """A bar for `total` units of work until the block ends, or a line every ten seconds.

    A log that cannot be written to, or a terminal that closes, does not end the work.
    """
    if not console.is_terminal:
        yield _lines(console, total)
        return
    wide = console.width >= WIDE
    columns = (
        TextColumn("[bold]{task.description:<28}" if wide else "[bold]{task.description}"),
        *((BarColumn(),) if wide else ()),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}"),
        *((TimeElapsedColumn(),) if wide else ()),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    # Rich forgets epochs that ended more than half a minute ago, and could not tell when longer ones will end.
    bar = Progress(*columns, console=console, speed_estimate_period=math.inf)
    task = bar.add_task("compiling", total=total, numbers="")

    def show(what: str, work: int, numbers: str, left_out: int = 0) -> None:
        nonlocal total
        total -= left_out
        bar.update(task, description=escape(what), advance=work, numbers=numbers, total=total)

    bar.start()
    try:
        yield show
    finally:
        try:
            bar.stop()
        except OSError:  # the terminal has closed; tables are still to be written to files
            console.quiet = True


def _lines(console: Console, total: int) -> Reporter:
    begun, last, done = time.monotonic(), -float("inf"), 0

    def show(what: str, work: int, numbers: str, left_out: int = 0) -> None:
        nonlocal last, done, total
        now, done, total = time.monotonic(), done + work, total - left_out
        if now - last < SECONDS_BETWEEN_LINES and done < total:
            return
        last = now
        left = f"{(now - begun) * (total - done) / done:4.0f} s left" if done else ""
        line = f"{done}/{total} epochs  {what}  {numbers}  {left}"
        with contextlib.suppress(OSError, SystemExit):  # Rich exits if nobody reads the log any more, as after `| head`
            console.print(line, highlight=False, soft_wrap=True, markup=False)

    return show
