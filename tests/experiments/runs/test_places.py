"""A run resumes after its folder was copied, moved, linked or renamed, and whatever the clock says."""

import json
import shutil
import time
from pathlib import Path

import pytest

from experiments.cli.main import main
from experiments.runs import checkpoint

TRAIN = ["train", "--model", "mlp", "--method", "pugd", "--lr", "0.1", "--train-size", "80", "--val-size", "30"]
TRAIN += [
    "--batch",
    "40",
    "--epochs",
    "3",
    "--no-tensorboard",
    "--checkpoint-every",
    "1",
    "--devices",
    "1",
    "--label",
    "läuft 日本",
]


def numbers(out: Path) -> list[dict]:
    """Return the metrics of every epoch and the result, without times."""
    (folder,) = out.glob("*/seed0")
    texts = [*(folder / "metrics.jsonl").read_text().splitlines(), (folder / "result.json").read_text()]
    timed = ("seconds", "images_per_second", "compile_seconds")
    return [{k: v for k, v in json.loads(text).items() if k not in timed} for text in texts]


def interrupt(out: Path) -> None:
    """Leave the folder as if the run had been killed in its last epoch."""
    (folder,) = out.glob("*/seed0")
    (folder / "result.json").unlink()
    shutil.rmtree(folder / "checkpoints" / str(checkpoint.steps(folder)[-1]))
    assert checkpoint.steps(folder) == [4]


@pytest.fixture
def clock(monkeypatch):
    """Return a function that shifts `time.time`; the clocks that measure intervals are unchanged."""
    return lambda ahead: monkeypatch.setattr(time, "time", lambda now=time.time: now() + ahead)


@pytest.mark.slow
def test_a_run_goes_on_wherever_it_is_and_whatever_the_time(tmp_path, monkeypatch, clock, capsys):
    monkeypatch.chdir(tmp_path)
    first = Path("ein Lauf, äöü 日本")
    assert main([*TRAIN, "--out", str(first)]) == 0
    whole = numbers(first)
    interrupt(first)
    shutil.copytree(first, "copied, clock set back")
    Path("moved away").mkdir()
    first.rename(Path("moved away") / "[link] $HOME 'x'")
    Path("behind a link").symlink_to(Path("moved away") / "[link] $HOME 'x'")
    for out in ("behind a link", "copied, clock set back"):
        clock(-1e8 if "set back" in out else 0)
        assert main([*TRAIN, "--out", out, "--resume"]) == 0
        assert numbers(Path(out)) == whole
        assert "warning" not in capsys.readouterr().err
    assert main(["report", "moved away"]) == 0
