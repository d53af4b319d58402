"""Broken records: each is reported in one line, and other runs can still be read."""

import json

import pytest

from experiments.config.errors import UsageError
from experiments.runs import records, run_dir
from experiments.runs.records import Unreadable
from tests.experiments.runs.test_run_dir import BASE, made, without

BROKEN = {
    "cut": lambda raw: raw[: len(raw) // 2],
    "empty": lambda raw: b"",
    "zeros, as a loss of power leaves": lambda raw: bytes(len(raw)),
    "no text": lambda raw: b"\xff\xfe" + raw,
    "a list": lambda raw: b"[]",
    "an empty object": lambda raw: b"{}",
    "a number": lambda raw: b"7",
    "null for all": lambda raw: b'{"config": null, "title": null, "epoch": null}',
    "deep": lambda raw: b"[" * 100_000,
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("name", ["run.json", "result.json", "metrics.jsonl"])
def test_a_broken_record_is_one_line_and_the_other_seed_is_read(name, how, tmp_path):
    made(tmp_path, BASE, 0)
    folder = made(tmp_path, BASE, 1)
    (folder / name).write_bytes(BROKEN[how]((folder / name).read_bytes()))
    assert [run.seed for run in records.read(tmp_path)] == [0]
    (line,) = records.unfinished(tmp_path)
    assert line.startswith(f"{folder}: not a readable run (")
    assert "\n" not in line
    with pytest.raises(UsageError, match="not a readable run"):
        records.read(folder)


@pytest.mark.parametrize("how", BROKEN)
def test_broken_settings_stop_their_own_seed_alone(how, tmp_path):
    made(tmp_path, BASE, 0)
    folder = made(tmp_path, BASE, 1)
    (folder / "run.json").write_bytes(BROKEN[how]((folder / "run.json").read_bytes()))
    assert run_dir.complete(run_dir.folder_of(tmp_path, BASE, 0), BASE)
    with pytest.raises(Unreadable, match="seed1: not a readable run"):
        run_dir.complete(folder, BASE)


def test_a_result_without_its_settings_is_not_overwritten(tmp_path):
    folder = made(tmp_path, BASE, 0)
    (folder / "run.json").unlink()
    with pytest.raises(Unreadable, match=r"run\.json"):
        run_dir.complete(folder, BASE)
    with pytest.raises(UsageError, match="contains a run already; use --resume"):
        run_dir.start(folder, BASE, 0)


def test_a_run_that_failed_before_its_settings_were_written_is_listed(tmp_path):
    made(tmp_path, BASE, 0)
    run_dir.fail(run_dir.folder_of(tmp_path, BASE, 1), UsageError("no example of class 4"))
    assert records.unfinished(tmp_path) == ["none/seed1: no example of class 4"]


@pytest.mark.parametrize(
    ("name", "lost"), [("result.json", "test_accuracy"), ("metrics.jsonl", "val_accuracy"), ("metrics.jsonl", "epoch")]
)
def test_a_record_without_a_number_of_the_report_is_one_line(name, lost, tmp_path):
    made(tmp_path, BASE, 0)
    folder = made(tmp_path, BASE, 1)
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace(f'"{lost}"', '"another"'))
    assert [run.seed for run in records.read(tmp_path)] == [0]
    (line,) = records.unfinished(tmp_path)
    assert line.startswith(f"{folder}: not a readable run (")


def test_a_run_that_is_older_than_a_setting_has_its_default(tmp_path):
    folder = made(tmp_path, BASE, 0)
    without(folder, "imbalance")
    (run,) = records.read(tmp_path)
    assert run.config["imbalance"] == "none"


@pytest.mark.parametrize("line", [b'{"epoch": 2, "val', b"\0\0\0\0", b"\xff", b"[2]", b'{"epoch": 3}', b""])
def test_a_line_that_the_checkpoint_covers_is_checked_before_training(line, tmp_path):
    folder = made(tmp_path, BASE, 0)
    first, _ = (folder / "metrics.jsonl").read_bytes().splitlines()
    (folder / "metrics.jsonl").write_bytes(first + b"\n" + line)
    assert records.epochs(folder, 1) == [json.loads(first)]
    with pytest.raises(Unreadable, match=r"metrics\.jsonl does not contain its epochs 1 to 2"):
        run_dir.resume(folder, 2)
    run_dir.resume(folder, 1)
    assert (folder / "metrics.jsonl").read_bytes() == first + b"\n"
