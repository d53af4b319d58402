"""What is said of a process that ends before it can speak: killed, or aborted in C++, as where memory ends."""

import atexit
import subprocess
import sys

KILLED = (
    "stopped: this process was killed, perhaps because memory ended; the same command with --resume goes on from the "
    "last checkpoint"
)


def last_words(line: str) -> None:
    """Have another process print the line if this one is killed or aborted; an exit and an error are not told."""
    say = f"import sys; sys.stdin.read(1) or print({line!r}, file=sys.stderr)"
    watcher = subprocess.Popen([sys.executable, "-c", say], stdin=subprocess.PIPE, start_new_session=True)
    atexit.register(watcher.communicate, b"x")
