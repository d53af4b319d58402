"""The profile of an epoch: numbers and a trace."""

import json

import pytest

from experiments.cli.main import main


def test_a_profile_says_how_fast_and_holds_a_trace(tmp_path, capsys):
    options = ["--model", "mlp", "--train-size", "64", "--val-size", "40", "--batch", "16", "--devices", "1"]
    assert main(["profile", *options, "--out", str(tmp_path)]) == 0
    assert "images/s" in capsys.readouterr().out
    assert list(tmp_path.rglob("*.xplane.pb"))
    assert list(tmp_path.rglob("perfetto_trace.json.gz"))
    found = json.loads((tmp_path / "profile.json").read_text())
    assert found["steps"] == 4
    assert found["images_per_second"] == pytest.approx(64 / found["seconds"])


def test_a_folder_that_cannot_be_written_to_is_told_before_anything_is_compiled(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("experiments.training.profile.prepare", lambda config: pytest.fail("prepared"))
    assert main(["profile", "--model", "mlp", "--devices", "1", "--out", str(tmp_path / "file" / "out")]) == 2
    assert "is not a folder that can be written to" in capsys.readouterr().err
