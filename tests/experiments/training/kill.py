"""A run that is killed again and again, then left alone: `python kill.py FOLDER KILLS SEED`.

Every turn is a process of its own, forked before JAX has started a backend, so that it is quick to begin. It is killed
with SIGKILL at a random moment: now and then before it has restored its checkpoint, else after some more epochs, in the
middle of a step, of a line or of a checkpoint. Prints one JSON object.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from experiments.cli import main as cli
from experiments.runs import checkpoint
from experiments.training import sweep, trainer  # noqa: F401  what a turn would import

EPOCHS, STEPS = 60, 10
OPTIONS = ["--model", "mlp", "--method", "sam", "--label", "short", "--noise", "symmetric:0.2", "--devices", "1"]
OPTIONS += [
    "--train-size",
    "200",
    "--val-size",
    "100",
    "--lr",
    "cosine:0.05:0.0",
    "--batch",
    "20",
    "--epochs",
    str(EPOCHS),
]


def main(root: Path, kills: int, seed: int) -> None:
    """Kill the run that many times, then let it end; beside it, one that nothing disturbs."""
    draw = random.Random(seed)
    folder = root / "killed" / "short" / "seed0"
    lost = []
    _end(_turn("whole", root, every=0))
    for _ in range(kills):
        child = _turn("killed", root, every=1)
        _wait_for(_lines(folder) + draw.choice([0, 1, 2, 3]), folder, child)
        time.sleep(draw.uniform(0, 0.3))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        newest = max(checkpoint.steps(folder), default=0) // STEPS
        lost.append(_lines(folder) - newest)
    before = _lines(folder)
    _end(_turn("killed", root, every=1))
    print(json.dumps({"lost": lost, "epochs_before_the_last_turn": before}))


def _turn(name: str, root: Path, every: int) -> int:
    child = os.fork()
    if child == 0:
        sys.stdout = sys.stderr
        status = cli.main(["train", *OPTIONS, "--out", str(root / name), "--checkpoint-every", str(every), "--resume"])
        sys.stderr.flush()
        os._exit(status)
    return child


def _end(child: int) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        sys.exit(f"a turn that nothing disturbed ended with status {status}")


def _wait_for(lines: int, folder: Path, child: int) -> None:
    while _lines(folder) < lines:
        if os.waitpid(child, os.WNOHANG)[0]:
            sys.exit("a turn ended before it was killed")
        time.sleep(0.005)


def _lines(folder: Path) -> int:
    """Whole lines of the metrics: epochs that ended."""
    path = folder / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
