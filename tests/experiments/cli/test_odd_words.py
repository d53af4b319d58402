"""Labels that look like markup or formulas, terminals that cannot show them, and errors of the runtime."""

import io

import pytest
from rich.console import Console

from experiments.cli.main import main
from experiments.report import course, curves, tables
from experiments.runs import progress
from experiments.runs.distributed import PARTNER_LOST
from experiments.runs.records import Run

ODD = ["[/red]", "[bold]x", "$\\foo$", "$", "_hidden", "x\\", "é"]


def runs(label, folder):
    line = {"epoch": 1, "val_accuracy": 0.5, "gradient_evaluations": 1}
    result = {"test_accuracy": 0.5, "last_test_accuracy": 0.5, "gradient_evaluations": 8, "seconds": 1.0}
    config = {"dataset": "[/red]$\\foo$", "model": "mlp", "train_size": None, "noise": "none", "imbalance": "none"}
    return {"": {label: [Run("", label, config, "now", 0, [line], result, folder)]}}


@pytest.mark.parametrize("label", ODD)
def test_labels_are_shown_as_they_are(label, tmp_path):
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(tables.table("", runs(label, tmp_path)[""], 140))
    for terminal in (False, True):
        with progress.reporter(Console(force_terminal=terminal, file=io.StringIO(), width=140), 1) as report:
            report(label, 1, "1.0")
    assert label in console.export_text()
    for figure in (curves, course):
        assert figure.draw(runs(label, tmp_path), tmp_path / "figure.png").exists()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 16. GiB"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory\n x"),
        RuntimeError("can't start new thread"),
    ],
    ids=repr,
)
def test_memory_that_ends_is_one_line(error, monkeypatch, capsys):
    def fails(argv, console):
        raise error

    monkeypatch.setattr("experiments.cli.main._dispatch", fails)
    later = "; with more memory, --resume continues from the last checkpoint"
    for command, end in (("train", f"device{later}\n"), ("bench", "device\n")):
        assert main([command]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: out of memory (")
        assert said.endswith(f"Fix: a smaller --batch, or --accumulate; --stream on keeps images off the {end}")
        assert said.count("\n") == 1


def test_other_errors_of_the_runtime_are_not_hidden(monkeypatch):
    def fails(argv, console):
        raise RuntimeError("INTERNAL: a bug")

    monkeypatch.setattr("experiments.cli.main._dispatch", fails)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["train"])


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("INTERNAL: NCCL operation failed"), True),
        (ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer [127.0.0.1]:8071\n x"), True),
        (ValueError("a bug"), False),
    ],
    ids=repr,
)
def test_a_collective_that_fails_says_that_a_partner_has_died(error, told, monkeypatch, capsys):
    def fails(argv, console):
        raise error

    monkeypatch.setattr("experiments.cli.main._dispatch", fails)
    monkeypatch.setattr("jax.process_count", lambda: 2)
    if not told:
        with pytest.raises(ValueError, match="a bug"):
            main(["train"])
        return
    assert main(["train"]) == 1
    line = str(error).splitlines()[0]
    assert capsys.readouterr().err == f"{PARTNER_LOST} ({line})\n"


def test_bytes_that_are_no_text_are_shown_by_their_number(capsys):
    assert main(["claims", "gr.bias", "--scale", "--:\udcff"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("error: invalid choice")
