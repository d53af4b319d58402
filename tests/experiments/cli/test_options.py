"""The help of the command line, and its error messages where no box can be drawn."""

import contextlib
import io
from pathlib import Path

import pytest

from experiments.cli.main import main
from experiments.cli.options import train_config
from experiments.config.errors import UsageError
from experiments.config.parse import parse
from experiments.config.schema import Config

INTRODUCTIONS = {
    "demo": "Train SGD, SAM, PUGD and RTS-PUGD on handwritten digits",
    "train": "Train one model with one method",
    "sweep": "with several values separated by commas",
    "presets": "the papers' recipes",
    "report": "rebuild tables",
    "profile": "Profile an epoch",
    "claims": "Run a claim of the papers",
    "reproduce": "Measure a number of the README again",
    "bench": "Measure step costs, active fractions, growth",
}


@pytest.mark.parametrize("word", ["-h", "--help"])
@pytest.mark.parametrize("command", INTRODUCTIONS)
def test_help_names_its_command_and_introduces_it(command, word, capsys):
    with contextlib.suppress(SystemExit):
        main([command, word])
    said = capsys.readouterr()
    assert said.out.startswith(f"usage: python -m experiments {command} ")
    assert INTRODUCTIONS[command] in " ".join(said.out.split())
    assert ("Train one model" in said.out) == (command == "train")
    assert not said.err


def test_an_error_has_no_frame_where_it_would_be_of_dashes():
    with contextlib.redirect_stdout(io.StringIO()), pytest.raises(UsageError, match=r"^[^-].*--epochs.*[^-]$"):
        parse(Config, ["--epochs", "many"], "train")


@pytest.mark.parametrize("dataset", ["npz:../../mine.npz", "npz:/tmp/a b.npz", "tfds:imagenet_resized/64x64"])
def test_the_default_folder_is_in_runs_whatever_the_data_set_is_called(dataset):
    out = train_config(["--dataset", dataset]).out
    assert out is not None
    assert out.parent == Path("runs")
    assert out.resolve().parent == Path("runs").resolve()
    assert ":" not in out.name


@pytest.mark.parametrize("command", ["train", "sweep", "demo", "claims"])
def test_on_a_narrow_terminal_help_is_wrapped_between_words(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    with contextlib.suppress(SystemExit):
        main([command, "--help"])
    _, *lines = capsys.readouterr().out.splitlines()  # the first one shows the usage
    assert all(len(line) <= 60 or len(line.split()) == 1 for line in lines)
