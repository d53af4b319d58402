"""A run that is killed again and again, then left alone: `python kill.py FOLDER KILLS SEED [PROCESSES]`.

Every turn is a separate process. It is forked before JAX has started a backend, so that it starts quickly, and killed
with SIGKILL at a random moment: sometimes before it has restored its checkpoint, otherwise after some more epochs, in
the middle of a step, of a line or of a checkpoint. If several processes train together, one is killed and the others
have to end by themselves. Prints one JSON object; the exit status is 1 if the run ends differently from an undisturbed
run.
"""

import json
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

from experiments.cli import main as cli
from experiments.runs import checkpoint, distributed, records
from experiments.training import sweep, trainer  # noqa: F401  imported before the fork, for every turn

EPOCHS, STEPS = 60, 10
OPTIONS = ["--model", "mlp", "--method", "sam", "--label", "short", "--noise", "symmetric:0.2", "--batch", "20"]
OPTIONS += ["--train-size", "200", "--val-size", "100", "--lr", "cosine:0.05:0.0", "--epochs", str(EPOCHS)]
TIMED = dict.fromkeys(("seconds", "images_per_second", "compile_seconds"))


def main(root: Path, kills: int, seed: int, processes: int = 1) -> int:
    """Kill a run `kills` times, let it end, and compare it with an undisturbed run."""
    draw = random.Random(seed)
    folder = root / "killed" / "short" / "seed0"
    lost = []
    _end(_turn("whole", root, 0, processes))
    for _ in range(kills):
        children = _turn("killed", root, 1, processes)
        _wait_for(_lines(folder) + draw.choice([0, 1, 2, 3]), folder, children)
        time.sleep(draw.uniform(0, 0.3))
        os.kill(draw.choice(children), signal.SIGKILL)
        _wait_all(children)
        newest = max(checkpoint.steps(folder), default=0) // STEPS
        lost.append(_lines(folder) - newest)
    before = _lines(folder)
    _end(_turn("killed", root, 1, processes))
    equal = _numbers(root / "whole") == _numbers(root / "killed")
    told = {"processes": processes, "lost": lost, "epochs_before_the_last_turn": before, "equal": equal}
    print(json.dumps(told))
    return 0 if equal else 1


def _numbers(root: Path) -> tuple[list, dict]:
    """Return the metrics and the result of a run, without times."""
    (run,) = records.read(root)
    return [{**line, **TIMED} for line in run.metrics], {**run.result, **TIMED}


def _turn(name: str, root: Path, every: int, processes: int) -> list[int]:
    """Start the processes of one turn; with several processes, their error output is discarded."""
    words = ["train", *OPTIONS, "--out", str(root / name), "--checkpoint-every", str(every), "--resume"]
    if processes == 1:
        return [_fork([*words, "--devices", "1"], {})]
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    joint = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": str(processes)}
    return [_fork([*words, "--distributed"], joint | {"JAX_PROCESS_ID": str(i)}) for i in range(processes)]


def _fork(words: list[str], variables: dict[str, str]) -> int:
    child = os.fork()
    if child == 0:
        os.environ.update(variables)
        sys.stdout = sys.stderr
        if variables:
            distributed.JOINING = distributed.PATIENCE
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a process that ends with its partner prints a C++ stack
        status = cli.main(words)
        sys.stderr.flush()
        os._exit(status)
    return child


def _end(children: list[int]) -> None:
    if any(statuses := _wait_all(children)):
        sys.exit(f"a turn that nothing disturbed ended with status {statuses}")


def _wait_all(children: list[int]) -> list[int]:
    """Return the exit status of every child; all have to end soon after the first one ends."""
    statuses, latest = {}, float("inf")
    while len(statuses) < len(children):
        for child in set(children) - set(statuses):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                statuses[child] = os.waitstatus_to_exitcode(status)
                latest = min(latest, time.monotonic() + distributed.PATIENCE + 60)
        if time.monotonic() > latest:
            sys.exit("the others did not end with the one that was killed")
        time.sleep(0.005)
    return [statuses[child] for child in children]


def _wait_for(lines: int, folder: Path, children: list[int]) -> None:
    while _lines(folder) < lines:
        if any(os.waitpid(child, os.WNOHANG)[0] for child in children):
            sys.exit("a turn ended before it was killed")
        time.sleep(0.005)


def _lines(folder: Path) -> int:
    """Return the number of complete lines of the metrics, one for every epoch that ended."""
    path = folder / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
