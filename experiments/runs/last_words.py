"""Messages for a process that ends without one: killed, or aborted in C++, for example when memory runs out."""

import atexit
import subprocess
import sys

KILLED = (
    "stopped: this process was killed, perhaps because memory ran out; the same command with --resume and the "
    "--out of this run continues from the last checkpoint"
)


def last_words(line: str) -> None:
    """Let another process print the line if this one is killed or aborted, but not after an exit or an error."""
    say = f"import sys; sys.stdin.read(1) or print({line!r}, file=sys.stderr)"
    watcher = subprocess.Popen([sys.executable, "-c", say], stdin=subprocess.PIPE, start_new_session=True)
    atexit.register(watcher.communicate, b"x")
