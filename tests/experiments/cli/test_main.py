"""The command line from words to run folders and back to tables."""

import io
import json
import struct
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event

import pugd_optax.methods
from experiments.cli.main import COMMANDS, main
from experiments.config.errors import UsageError
from experiments.report import rows, tables
from experiments.runs import records
from experiments.training import experiment

SMALL = ["--model", "mlp", "--train-size", "80", "--val-size", "30", "--batch", "40", "--epochs", "1", "--devices", "1"]
FEW = ("none", "sam", "rts_pugd", "momentum_sam", "noise_injection", "lpg", "pegr")
"""One method of each kind; all other methods together take half a minute."""
NEEDED = {"pegr": ["--method.strength", "0.01"], "sam_on": ["--method.mask", "vectors"]}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PUGD_CACHE_DIR", str(jax.config.jax_compilation_cache_dir))  # pyright: ignore


@pytest.mark.parametrize(
    "method",
    [*FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in pugd_optax.methods.__all__ if name not in FEW)],
)
def test_every_method_trains(method, tmp_path, monkeypatch):
    for figure in ("curves", "course"):
        monkeypatch.setattr(f"experiments.report.{figure}.draw", lambda groups, path: path)
    light = ["--checkpoint-every", "0", "--no-tensorboard"]
    assert main(["train", "--method", method, *NEEDED.get(method, []), *SMALL, *light, "--out", "out"]) == 0
    (run,) = records.read(tmp_path / "out")
    assert run.config["method"] == method
    assert run.metrics[-1]["step"] == 2
    assert 0 <= run.result["test_accuracy"] <= 1


def test_a_run_folder_tells_the_whole_story(tmp_path):
    options = ["--method", "rts_pugd", "--method.when", "after:0.5", "--method.radius=linear:1:0", "--seeds", "2"]
    assert main(["train", *options, *SMALL, "--epochs", "4", "--out", "out", "--label", "RTS"]) == 0
    folder = tmp_path / "out" / "RTS" / "seed1"
    about = json.loads((folder / "run.json").read_text())
    assert about["seed"] == 1
    assert about["config"]["method_options"] == [["when", "after:0.5"], ["radius", "linear:1:0"]]
    assert about["packages"]["jax"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["gradient_evaluations"] for line in lines] == [2, 4, 8, 12]
    assert [line["active"] for line in lines] == [0, 0, 1, 1]
    assert lines[0]["radius"] is None
    assert lines[2]["radius"] == pytest.approx((4 + 3) / 16)
    result = json.loads((folder / "result.json").read_text())
    best = max(lines, key=lambda line: line["val_accuracy"])
    assert (result["best_epoch"], result["val_accuracy"]) == (best["epoch"], best["val_accuracy"])


@pytest.mark.slow
def test_a_report_is_rebuilt_from_the_folders_alone(tmp_path, capsys):
    main(["train", "--method", "pugd", *SMALL, "--out", "out", "--seeds", "2"])
    printed = capsys.readouterr().out
    figures = [tmp_path / "out" / name for name in ("curves.png", "course.png")]
    for figure in figures:
        figure.unlink()
    assert main(["report", "out"]) == 0
    rebuilt = capsys.readouterr().out
    assert "pugd" in rebuilt
    assert printed.endswith(rebuilt)
    assert all(figure.stat().st_size > 10_000 for figure in figures)


def test_rows_are_means_and_deviations_over_seeds():
    def run(title, seed, test, seconds):
        result = {"test_accuracy": test, "last_test_accuracy": test, "gradient_evaluations": 10, "seconds": seconds}
        return records.Run("", title, {}, str(seed), seed, [], result, Path(f"{title}/seed{seed}"))

    found = [run("SGD", 0, 0.9, 1.0), run("SGD", 1, 0.8, 3.0), run("PUGD", 0, 1.0, 5.0)]
    first, second = rows.rows(rows.groups(found)[""])
    # Student's t with one degree of freedom: 12.706 standard errors
    assert first.test == pytest.approx((85.0, 50**0.5, 12.7062 * 5), rel=1e-4)
    assert (second.test, second.ratio, second.seeds) == ((100.0, 0.0, 0.0), 2.5, 1)
    assert np.isnan(second.images_per_second)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers(tmp_path):
    for out in ("one", "two"):
        main(["train", "--method", "sam", *SMALL, "--noise", "symmetric:0.2", "--out", out])
    (one,), (two,) = (records.read(tmp_path / out) for out in ("one", "two"))
    timeless = [{k: v for k, v in run.metrics[0].items() if k != "seconds"} for run in (one, two)]
    assert timeless[0] == timeless[1]
    assert one.result["test_accuracy"] == two.result["test_accuracy"]


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["trian"], "did you mean 'train'"),
        (["train", "--modle", "mlp"], "did you mean '--model'"),
        (["train", "--model", "restnet8"], "did you mean 'resnet8'"),
        (["train", "--method", "pudg"], "did you mean 'pugd'"),
        (["train", "--method", "pugd", "--method.radus", "1"], "did you mean 'radius'"),
        (["train", "--method", "pugd", "--method.radius", "-1"], "radius=-1"),
        (["train", "--method", "pugd", "--method.radius"], "needs a value"),
        (["train", "--dataset", "digit"], "did you mean 'digits'"),
        (["train", "--epochs", "0"], "--epochs 0: expected at least 1"),
        (["train", "--epochs", "many"], "--epochs"),
        (["train", "--norm", "instance"], "--norm"),
        (["train", "--loss", "cross-entropy"], "did you mean 'cross_entropy'"),
        (["train", "--batch", "5000"], "larger than the 900 training examples"),
        (["train", "--noise", "symmetric:2"], r"--noise symmetric:2"),
        (["train", "--momentum", "1"], "--momentum 1.0"),
        (["train", "--checkpoint-every", "-1"], "--checkpoint-every -1: expected a number of epochs, or 0"),
        (["train", "--checkpoint-minutes", "0"], "--checkpoint-minutes 0.0: expected a number > 0"),
        (["train", "--on-nan", "ignore"], "--on-nan"),
        (["train", "--preset", "amas"], "did you mean 'asam'"),
        (["train", "--preset"], "--preset needs a value"),
        (["sweep", "--method", "sam,pudg"], "did you mean 'pugd'"),
        (["train", "--method", "sam_on", "--model", "mlp"], "sam_on found none of the names"),
        (["train", "--method", "pegr", "--method.strength", "0.1", "--norm", "batch"], "BatchNorm"),
        (["report", "nowhere"], "no complete run"),
        (["report"], "usage"),
    ],
)
def test_a_mistake_is_one_line_status_2_and_nothing_written(argv, complaint, capsys, tmp_path):
    one_device = ["--devices", "1"] if argv[0] == "train" else []
    assert main([argv[0], *one_device, *argv[1:]]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert complaint in said
    assert not list(tmp_path.iterdir())


def test_results_are_not_overwritten(capsys):
    assert main(["train", *SMALL, "--out", "out"]) == 0
    assert main(["train", *SMALL, "--out", "out"]) == 2
    assert "contains results already" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["train", *SMALL, "--out", "file/out"]) == 2
    said = capsys.readouterr().err
    assert said == "error: --out file/out: file is not a folder that can be written to; name another\n"


def test_a_folder_that_holds_checkpoints_is_not_overwritten_either(tmp_path, capsys):
    (tmp_path / "out/none/seed0/checkpoints/20").mkdir(parents=True)
    assert main(["train", *SMALL, "--out", "out"]) == 2
    assert "contains checkpoints already; use --resume to continue" in capsys.readouterr().err


def test_scalars_for_tensorboard_are_those_of_the_lines(tmp_path):
    assert main(["train", *SMALL, "--epochs", "2", "--out", "out"]) == 0
    (path,) = (tmp_path / "out/none/seed0").glob("events.out.tfevents.*")
    values = [(event.step, value) for event in events(path) for value in event.summary.value]
    plugins = {value.tag: value.metadata.plugin_data for _, value in values if value.tag.startswith("_hparams_/")}
    shown = {(value.tag, step): value.simple_value for step, value in values if value.tag not in plugins}
    (run,) = records.read(tmp_path / "out")
    assert b"mlp" in plugins["_hparams_/session_start_info"].content
    assert b"result/test_accuracy" in plugins["_hparams_/experiment"].content
    scores = {name: shown.pop((name, step)) for name, step in list(shown) if name.startswith("result/")}
    assert scores["result/test_accuracy"] == pytest.approx(run.result["test_accuracy"])
    for line in run.metrics:
        for name, number in line.items():
            if name != "epoch" and number is not None:
                assert shown[(name, line["epoch"])] == pytest.approx(number)
    assert len(shown) == sum(value is not None for line in run.metrics for value in line.values()) - 2


def events(path):
    """Yield the events of a TensorBoard file; each record holds a length, its checksum, an event and its checksum."""
    raw, at = path.read_bytes(), 0
    while at < len(raw):
        (length,) = struct.unpack_from("<Q", raw, at)
        yield Event.FromString(raw[at + 12 : at + 12 + length])
        at += 12 + length + 4


def test_without_tensorboard_no_events_are_written(tmp_path):
    assert main(["train", *SMALL, "--no-tensorboard", "--out", "out"]) == 0
    assert not list(tmp_path.rglob("events.*"))


def test_on_a_narrow_terminal_the_table_keeps_what_matters(tmp_path):
    assert main(["train", *SMALL, "--label", "a label of some length", "--out", "out"]) == 0
    groups = rows.groups(records.read(tmp_path / "out"))
    for width in (80, 120):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(tables.table("", groups[""], width))
        lines = console.export_text().splitlines()
        assert max(map(len, lines)) <= width
        assert any("a label of some length" in line for line in lines)
        assert ("images/s" in "".join(lines)) == (width == 120)


def test_resume_runs_what_is_missing_and_nothing_else(tmp_path, capsys):
    assert main(["train", *SMALL, "--out", "out", "--seeds", "2"]) == 0
    before = {run.seed: run for run in records.read(tmp_path / "out")}
    (tmp_path / "out/none/seed1/result.json").unlink()
    assert main(["train", *SMALL, "--out", "out", "--seeds", "3", "--resume"]) == 0
    after = {run.seed: run for run in records.read(tmp_path / "out")}
    assert sorted(after) == [0, 1, 2]
    assert after[0] == before[0]
    assert after[2].queued > before[1].queued
    assert after[1].result["test_accuracy"] == before[1].result["test_accuracy"]
    assert main(["train", *SMALL, "--out", "out", "--lr", "0.5", "--resume"]) == 2
    assert "a run with another lr" in capsys.readouterr().err


def test_a_run_is_not_resumed_on_a_file_that_has_changed(tmp_path, capsys):
    def write(level):
        x, y = np.full((60, 4, 4), level, np.uint8), np.arange(60) % 2
        np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x, y_test=y)
        experiment.load.cache_clear()

    argv = ["train", "--dataset", "npz:own.npz", "--data-dir", ".", "--model", "mlp", "--batch", "20", "--epochs", "1"]
    argv += ["--devices", "1", "--no-tensorboard", "--checkpoint-every", "0", "--out", "out"]
    write(level=1)
    assert main(argv) == 0
    write(level=2)
    assert main([*argv, "--seeds", "2", "--resume"]) == 2
    assert "out/none/seed0: holds a run with another data_version; name another folder" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_no_result(capsys, tmp_path):
    assert main(["train", *SMALL, "--lr", "1e30", "--epochs", "3", "--out", "out"]) == 1
    assert "none, seed 0: the loss is" in capsys.readouterr().err
    assert (tmp_path / "out/none/seed0/run.json").exists()
    with pytest.raises(UsageError, match="no complete run"):
        tables.show(tmp_path / "out", Console())


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--help"])
    said = capsys.readouterr().out
    for word in ("--method.radius", "--weight-decay", "Passes over the training examples"):
        assert word in said
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(command in said for command in COMMANDS)
    assert main([]) == 2
