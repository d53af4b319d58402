"""Run folders: which runs belong together, and which are refused."""

import dataclasses
import json
import shutil

import jax
import pytest

from experiments.config.errors import UsageError
from experiments.config.schema import Config
from experiments.report import rows
from experiments.runs import records, run_dir

BASE = Config(model="mlp", epochs=2)
RESULT = {"test_accuracy": 0.5, "last_test_accuracy": 0.5, "gradient_evaluations": 8, "seconds": 1.0}


def made(root, config, seed, epochs=(1, 2)):
    """Write a complete run with made-up numbers and return its folder."""
    folder = run_dir.folder_of(root, config, seed)
    run_dir.start(folder, config, seed)
    for epoch in epochs:
        run_dir.append(folder, {"epoch": epoch, "gradient_evaluations": 4 * epoch, "val_accuracy": 0.5 + seed / 10})
    run_dir.finish(folder, RESULT)
    return folder


def test_runs_of_one_row_that_differ_in_more_than_their_seed_are_refused(tmp_path):
    first = made(tmp_path, BASE, 0)
    second = made(tmp_path, dataclasses.replace(BASE, lr="0.9", weight_decay=0.0, first_seed=1), 1)
    with pytest.raises(UsageError) as refused:
        rows.groups(records.read(tmp_path))
    assert str(refused.value).startswith(f"{second}: has another lr, weight_decay than {first}, in one row")


def test_runs_that_differ_in_what_no_result_depends_on_share_a_row(tmp_path):
    made(tmp_path, BASE, 0)
    made(tmp_path, dataclasses.replace(BASE, label="none", first_seed=1, checkpoint_every=0, devices=1), 1)
    (row,) = rows.groups(records.read(tmp_path))[""].values()
    assert [run.seed for run in row] == [0, 1]


def test_a_run_is_refused_beside_another_seed_with_other_settings(tmp_path):
    made(tmp_path, BASE, 0)
    asked = dataclasses.replace(BASE, lr="0.9")
    with pytest.raises(UsageError, match="none/seed0: holds a run with another lr; name another folder"):
        run_dir.complete(run_dir.folder_of(tmp_path, asked, 1), asked)
    assert not run_dir.complete(run_dir.folder_of(tmp_path, BASE, 1), BASE)


def test_devices_that_perturb_by_themselves_are_counted(tmp_path):
    config = dataclasses.replace(BASE, parallel="shard_map")
    folder = made(tmp_path, config, 0)
    every = jax.device_count()
    assert run_dir.complete(folder, dataclasses.replace(config, devices=every))
    with pytest.raises(UsageError, match="another devices"):
        run_dir.complete(folder, dataclasses.replace(config, devices=every // 2))


@pytest.mark.parametrize("newer", [0, 1])
def test_a_setting_that_only_a_newer_version_knows_keeps_runs_apart(newer, tmp_path):
    folders = [made(tmp_path, BASE, seed) for seed in (0, 1)]
    about = json.loads((folders[newer] / "run.json").read_text())
    about["config"]["novelty"] = 0.5
    (folders[newer] / "run.json").write_text(json.dumps(about))
    with pytest.raises(UsageError, match=r"seed1: has another novelty than .*seed0"):
        rows.groups(records.read(tmp_path))


def test_a_run_on_another_version_of_its_data_is_refused(tmp_path):
    folder = run_dir.folder_of(tmp_path, BASE, 0)
    run_dir.start(folder, BASE, 0, data_version="1")
    assert not run_dir.complete(folder, BASE, "1")
    with pytest.raises(UsageError, match="another data_version"):
        run_dir.complete(folder, BASE, "2")
    without(folder, "data_version")  # an older run did not record it
    assert not run_dir.complete(folder, BASE, "2")


def test_a_copy_of_a_run_is_not_counted_as_another_seed(tmp_path):
    folder = made(tmp_path, BASE, 0)
    copy = shutil.copytree(folder, folder.parent / "seed0 before the crash")
    with pytest.raises(UsageError, match="is seed 0 of 'none' again"):
        rows.groups(records.read(tmp_path))
    shutil.move(copy, tmp_path / "elsewhere" / "none" / "seed0")
    assert len(rows.groups(records.read(tmp_path))) == 2


def without(folder, setting):
    """Remove a setting from the record of a run, as if the run were older than the setting."""
    about = json.loads((folder / "run.json").read_text())
    del about["config"][setting]
    (folder / "run.json").write_text(json.dumps(about))


def test_an_older_run_that_did_not_count_its_devices_is_complete(tmp_path):
    config = dataclasses.replace(BASE, parallel="shard_map")
    folder = made(tmp_path, config, 0)
    without(folder, "devices")
    assert run_dir.complete(folder, dataclasses.replace(config, devices=2))


def test_a_setting_that_is_newer_than_a_run_had_its_default(tmp_path):
    folder = made(tmp_path, BASE, 0)
    without(folder, "mixup")
    assert run_dir.complete(folder, BASE)
    with pytest.raises(UsageError, match="another mixup"):
        run_dir.complete(folder, dataclasses.replace(BASE, mixup=0.2))


def test_under_jit_the_number_of_devices_is_no_setting(tmp_path):
    folder = made(tmp_path, dataclasses.replace(BASE, devices=1), 0)
    assert run_dir.complete(folder, dataclasses.replace(BASE, devices=2))


@pytest.mark.parametrize("epochs", [(1,), (1, 2, 2), (1, 1, 2, 2), (2, 1), (1, 2, 3)])
def test_lines_that_are_not_the_epochs_of_a_run_are_refused(epochs, tmp_path):
    made(tmp_path, BASE, 0, epochs)
    with pytest.raises(
        UsageError, match=r"none/seed0: not a readable run.*its epochs 1 to \d+, once each and in order"
    ):
        records.read(tmp_path)


def test_runs_of_a_title_are_removed_and_others_kept(tmp_path):
    other = made(tmp_path, dataclasses.replace(BASE, label="other"), 0)
    gone = [made(tmp_path, BASE, seed) for seed in (0, 7)]
    run_dir.remove(tmp_path, BASE)
    assert other.exists()
    assert not any(folder.exists() for folder in gone)


@pytest.mark.parametrize(
    "label", ["a/../../b", "/etc", "..a", "a..", "../x", "C:\\x", "a" * 300, "é" * 200, "日" * 99, "a b"]
)
def test_a_run_is_two_folders_below_its_root_whatever_its_label(label, tmp_path):
    folder = run_dir.folder_of(tmp_path, dataclasses.replace(BASE, label=label), 0)
    assert folder.resolve().parent.parent == tmp_path.resolve()
    assert not folder.parent.name.startswith(".")
    folder.mkdir(parents=True)
    assert len(folder.parent.name.encode()) < 255


def test_long_labels_keep_apart(tmp_path):
    one, two = (run_dir.folder_of(tmp_path, dataclasses.replace(BASE, label="a" * 300 + end), 0) for end in "xy")
    assert one != two


@pytest.mark.parametrize("label", [".", "..", " ", "___", "/", "a\nb", "a\x1b[31m", "a\udcff", "a\0"])
def test_a_label_that_names_nothing_is_refused(label):
    with pytest.raises(UsageError, match=r"--label .*expected printable characters, a letter or a digit") as refused:
        dataclasses.replace(BASE, label=label)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("other", ["a|b", "a_b"])
def test_labels_that_share_a_folder_do_not_share_runs(other, tmp_path):
    folder = made(tmp_path, dataclasses.replace(BASE, label="a b"), 0)
    asked = dataclasses.replace(BASE, label=other)
    assert run_dir.folder_of(tmp_path, asked, 0) == folder
    with pytest.raises(UsageError, match="holds the run 'a b', not"):
        run_dir.complete(folder, asked)


def test_where_case_does_not_matter_labels_that_differ_in_it_do_not_share_runs(tmp_path):
    folder = made(tmp_path, dataclasses.replace(BASE, label="sam"), 0)
    (tmp_path / "SAM").symlink_to(folder.parent)  # as a file system that ignores case finds it
    with pytest.raises(UsageError, match="holds the run 'sam', not 'SAM'"):
        run_dir.complete(tmp_path / "SAM" / "seed0", dataclasses.replace(BASE, label="SAM"))


def test_a_finished_run_is_never_started_over(tmp_path):
    folder = made(tmp_path, BASE, 0)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UsageError, match="contains a run already; use --resume to continue"):
        run_dir.start(folder, BASE, 0)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_run_with_a_checkpoint_is_never_started_over(tmp_path):
    folder = made(tmp_path, BASE, 0)
    (folder / "result.json").unlink()
    (folder / "checkpoints" / "4").mkdir(parents=True)
    with pytest.raises(UsageError, match="contains a run already; use --resume to continue"):
        run_dir.start(folder, BASE, 0)
    assert (folder / "metrics.jsonl").exists()


def test_lines_without_a_checkpoint_are_reported_and_removed(tmp_path, capsys):
    folder = made(tmp_path, BASE, 0)
    (folder / "result.json").unlink()
    run_dir.start(folder, BASE, 0)
    assert capsys.readouterr().err == f"warning: {folder}: 2 epochs but no checkpoint; starting again from the first\n"
    assert not (folder / "metrics.jsonl").exists()


def test_another_number_of_epochs_says_that_the_run_starts_anew(tmp_path):
    folder = made(tmp_path, BASE, 0)
    with pytest.raises(UsageError, match=r"another epochs; its schedules span its epochs.*starts anew"):
        run_dir.complete(folder, dataclasses.replace(BASE, epochs=3))


def test_steps_of_a_call_change_the_last_digits_and_so_the_run(tmp_path):
    folder = made(tmp_path, BASE, 0)
    with pytest.raises(UsageError, match="another steps_per_call"):
        run_dir.complete(folder, dataclasses.replace(BASE, steps_per_call=3))


def test_what_has_changed_since_a_run_began_is_told_once_and_noted(tmp_path, capsys, monkeypatch):
    folder = made(tmp_path, BASE, 0)
    run_dir.resume(folder, 1)
    assert "resumed" not in json.loads((folder / "run.json").read_text())
    assert capsys.readouterr().err == ""
    now = run_dir.environment()
    newer = {**now, "commit": "fffff", "packages": {**now["packages"], "jax": "9.9.9"}, "xla_flags": "--xla_new"}
    monkeypatch.setattr(run_dir, "environment", lambda: newer)
    for _ in range(2):
        run_dir.resume(folder, 1)
    said = capsys.readouterr().err
    assert said.startswith(
        f"warning: {folder}: continues after epoch 1 with another jax {now['packages']['jax']} -> 9.9.9"
    )
    assert f"commit {now['commit']} -> fffff" in said
    assert f"xla_flags {now['xla_flags']} -> --xla_new" in said
    assert said.count("\n") == 1
    (turn,) = json.loads((folder / "run.json").read_text())["resumed"]
    assert (turn["epoch"], turn["commit"]) == (1, "fffff")


def test_an_epoch_is_on_the_disk_when_its_line_is_written(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", lambda number: synced.append((tmp_path / "metrics.jsonl").read_text()))
    run_dir.append(tmp_path, {"epoch": 1})
    assert synced == ['{"epoch": 1}\n']
