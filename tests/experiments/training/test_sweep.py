"""Sweeps: values separated by commas, runs skipped when done, failures noted, tables from the folders."""

import csv
import dataclasses
import json
import re
import signal
import threading
from pathlib import Path

import jax
import pytest
from rich.console import Console

from experiments.cli import sweep_options
from experiments.cli.main import main
from experiments.config.errors import Stopped, UsageError
from experiments.config.schema import Config
from experiments.runs import progress, records, run_dir
from experiments.training import sweep, trainer
from experiments.training.experiment import prepare, steps_per_call

SMALL = ["--model", "mlp", "--train-size", "80", "--val-size", "30", "--batch", "40", "--epochs", "1", "--devices", "1"]
SETTINGS = Config(model="mlp", train_size=80, val_size=30, batch=40, epochs=1, devices=1)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PUGD_CACHE_DIR", str(jax.config.jax_compilation_cache_dir))  # pyright: ignore


def labels(*argv):
    return [config.label for _, config in sweep_options.settings(argv)]


def test_every_comma_is_a_choice():
    assert labels("--method", "sam,pugd", "--lr", "cosine:0.1:0.0,0.05") == [
        "sam, lr=cosine:0.1:0.0",
        "sam, lr=0.05",
        "pugd, lr=cosine:0.1:0.0",
        "pugd, lr=0.05",
    ]


def test_an_option_goes_to_the_methods_that_take_it():
    assert labels("--method=none,sam,pugd", "--method.radius", "0.05,0.1") == [
        "none",
        "sam(radius=0.05)",
        "sam(radius=0.1)",
        "pugd(radius=0.05)",
        "pugd(radius=0.1)",
    ]


def test_an_option_of_one_method_comes_before_that_of_all():
    assert labels("--method", "sam,pugd", "--pugd.radius", "1", "--method.radius", "0.1") == [
        "sam(radius=0.1)",
        "pugd(radius=1)",
    ]


def test_options_of_the_optimizer_are_choices_too():
    assert labels("--method", "sam", "--optimizer.nesterov", "true,false") == [
        "sam, optimizer_options=(nesterov=true)",
        "sam, optimizer_options=(nesterov=false)",
    ]


def test_other_problems_are_other_tables():
    made = sweep_options.settings(["--noise", "none,symmetric:0.2", "--out", "out", "--method", "none,sam"])
    assert [str(folder) for folder, _ in made] == ["out/noise=none", "out/noise=symmetric_0.2"] * 2
    assert [config.label for _, config in made] == ["none", "none", "sam", "sam"]


def test_presets_are_choices():
    made = sweep_options.settings(["--preset", "asam,gnp", "--method.radius", "0.1", "--epochs", "1"])
    assert [config.label for _, config in made] == [
        "asam, asam(radius=0.1, eta=0.01)",
        "gnp, gnp(radius=0.1, alpha=0.8)",
    ]


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (
            ["--method", "none,sam", "--method.radus", "1"],
            "--method.radus: no method of this sweep takes radus; did you",
        ),
        (["--method", "none,sam", "--pugd.radius", "1"], "--pugd.radius: pugd is not a method of this sweep"),
        (["--method", "sam,pudg"], "unknown method 'pudg'; did you mean 'pugd'"),
        (["--label", "x"], "--label: a sweep labels its rows automatically"),
        (["--seeds", "1,2"], "--seeds"),
        (["--epochs", "1,0"], "--epochs 0: expected at least 1"),
    ],
)
def test_what_makes_no_sweep_is_refused(argv, complaint):
    with pytest.raises(UsageError, match=complaint):
        sweep_options.settings(argv)


def test_the_same_experiment_twice_is_refused(capsys):
    assert main(["sweep", "--method", "sam,sam", *SMALL, "--out", "out"]) == 2
    assert "two of the experiments would be written there" in capsys.readouterr().err


def test_labels_that_some_file_systems_take_for_one_are_refused():
    both = [(Path("out"), dataclasses.replace(SETTINGS, label=label)) for label in ("Row", "row")]
    with pytest.raises(UsageError, match="two of the experiments would be written there"):
        sweep.run(both, Console(quiet=True))


@pytest.mark.slow
def test_a_broken_seed_is_reported_and_the_others_are_trained(tmp_path, capsys, monkeypatch):
    train = lambda *more: main(["train", *SMALL, "--out", "out", *more])
    assert train("--seeds", "2") == 0
    (tmp_path / "out/none/seed0/run.json").write_text("{")
    assert train("--seeds", "3", "--resume") == 1
    assert [run.seed for run in records.read(tmp_path / "out")] == [1, 2]
    assert "not in the table: out/none/seed0: not a readable run" in capsys.readouterr().out
    monkeypatch.setattr(trainer, "run", lambda *args: pytest.fail("trained before the broken line was met"))
    (tmp_path / "out/none/seed2/result.json").unlink()
    (tmp_path / "out/none/seed2/metrics.jsonl").write_text('{"epoch": 1, "st')
    assert train("--seeds", "3", "--resume") == 2


def test_a_file_where_checkpoints_go_is_met_before_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(trainer, "run", lambda *args: pytest.fail("trained"))
    (tmp_path / "out/none/seed0").mkdir(parents=True)
    (tmp_path / "out/none/seed0/checkpoints").write_text("")
    assert main(["train", *SMALL, "--out", "out", "--resume"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "warning: --resume: --out out holds no run; a new one begins there"
    assert "a file where the checkpoints go" in said[1]


def test_a_sweep_trains_all_and_is_not_run_again(tmp_path, capsys, monkeypatch):
    argv = ["sweep", "--method", "none,sam", "--sam.radius", "0.1", *SMALL, "--seeds", "2", "--out", "out"]
    assert main(argv) == 0
    found = records.read(tmp_path / "out")
    assert sorted((run.title, run.seed) for run in found) == [
        ("none", 0),
        ("none", 1),
        ("sam(radius=0.1)", 0),
        ("sam(radius=0.1)", 1),
    ]
    assert main(argv) == 2
    assert "contains results already" in capsys.readouterr().err
    monkeypatch.setattr(trainer, "run", lambda *args: pytest.fail("nothing was left to train"))
    assert main([*argv, "--resume"]) == 0


def test_what_another_process_has_completed_meanwhile_is_not_run_again(tmp_path, monkeypatch):
    trained = []

    def both(experiment, seed, folder, report, queued):
        for k in (0, 1):
            run_dir.start(tmp_path / f"out/none/seed{k}", experiment.config, k)
            run_dir.finish(tmp_path / f"out/none/seed{k}", {})
        trained.append(seed)

    monkeypatch.setattr(trainer, "run", both)
    config = Config(model="mlp", batch=40, seeds=2, devices=1, jobs=1, resume=True)
    sweep.run([(tmp_path / "out", config)], Console(quiet=True))
    assert trained == [0]


def test_a_run_that_fails_is_noted_and_the_others_go_on(tmp_path, capsys):
    argv = ["sweep", "--method", "none", "--lr", "1e30,0.1", *SMALL, "--epochs", "3", "--out", "out"]
    assert main(argv) == 1
    noted = json.loads((tmp_path / "out/none_lr=1e30/seed0/failure.json").read_text())
    assert "the loss is" in noted["error"]
    assert "Diverged" in noted["traceback"]
    (run,) = records.read(tmp_path / "out")
    assert run.title == "none, lr=0.1"
    said = capsys.readouterr().out
    assert re.search(r"(\d)/\1 epochs", said), "the epochs that a failed run leaves out are not waited for"
    assert "not in the table: none_lr=1e30/seed0: none, lr=1e30, seed 0: the loss is" in said
    assert "none_lr=1e30/seed0" in (tmp_path / "out" / "report.md").read_text()


def test_an_error_of_many_lines_is_told_in_one(tmp_path, capsys, monkeypatch):
    def fails(*args):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocation 0: 4 GiB")

    monkeypatch.setattr(trainer, "run", fails)
    assert main(["sweep", "--method", "none,sam", *SMALL, "--out", "out"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "stopped: every run failed, the first: out/none/seed0: RESOURCE_EXHAUSTED: Out of memory"
    ]
    noted = json.loads((tmp_path / "out/none/seed0/failure.json").read_text())
    assert noted["error"] == "RuntimeError: RESOURCE_EXHAUSTED: Out of memory"
    assert "allocation 0: 4 GiB" in noted["traceback"]


def test_it_ends_at_the_first_failure_when_asked(tmp_path):
    argv = ["sweep", "--lr", "1e30,0.1", *SMALL, "--epochs", "3", "--out", "out", "--stop-on-failure", "--jobs", "1"]
    assert main(argv) == 1
    assert not list((tmp_path / "out").rglob("result.json"))


def test_a_signal_ends_the_whole_sweep(monkeypatch, capsys):
    def stopped(*args):
        raise Stopped("sam, seed 0: SIGTERM at step 3; --resume goes on", 15)

    monkeypatch.setattr(trainer, "run", stopped)
    assert main(["sweep", "--method", "none,sam", *SMALL, "--out", "out"]) == 143
    assert capsys.readouterr().err == "stopped: sam, seed 0: SIGTERM at step 3; --resume goes on\n"


@pytest.mark.slow
def test_tables_in_markdown_and_csv(tmp_path):
    main(["sweep", "--method", "none,sam", *SMALL, "--seeds", "2", "--out", "out"])
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| method | seeds | test % | 95 % CI | last epoch % | gradients | seconds | time / none | images/s |" in text
    rows = list(csv.DictReader((tmp_path / "out" / "report.csv").read_text().splitlines()))
    assert [(row["method"], row["seeds"]) for row in rows] == [("none", "2"), ("sam", "2")]
    assert [float(row["evaluations"]) for row in rows] == [2, 4]
    accuracies = [100 * run.result["test_accuracy"] for run in records.read(tmp_path / "out") if run.title == "sam"]
    assert float(rows[1]["test_mean"]) == pytest.approx(sum(accuracies) / 2)
    # for two values: the t quantile with one degree of freedom, times half their distance
    assert float(rows[1]["test_ci95"]) == pytest.approx(12.7062 * abs(accuracies[0] - accuracies[1]) / 2, rel=1e-4)
    assert float(rows[0]["images_per_second"]) > 0


def test_rows_are_in_the_order_asked_for_whichever_run_begins_first(tmp_path, monkeypatch):
    begun, run = threading.Event(), trainer.run

    def second_before_first(experiment, seed, folder, *args):
        if experiment.config.label == "first":
            assert begun.wait(60)
        result = run(experiment, seed, folder, *args)
        begun.set()
        return result

    monkeypatch.setattr(trainer, "run", second_before_first)
    both = [(tmp_path, dataclasses.replace(SETTINGS, label=label, jobs=2)) for label in ("first", "second")]
    sweep.run(both, Console(quiet=True))
    assert [run.title for run in records.read(tmp_path)] == ["first", "second"]


def test_help_explains_the_grammar(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["sweep", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "several values separated by commas" in said
    assert "--stop-on-failure" in said
    assert "--method.radius cosine:2.0:0.0" in said


def test_on_an_accelerator_runs_go_one_by_one_unless_more_are_requested(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    turns = lambda jobs: [
        sweep.Turn(prepare(Config(model="mlp", devices=1, jobs=jobs)), seed, Path(), "") for seed in (0, 1, 2)
    ]
    assert [sweep._workers(turns(jobs)) for jobs in (None, 2, 8)] == [1, 2, 3]


def test_calls_of_many_steps_divide_the_epoch_where_that_is_possible(monkeypatch):
    config = Config()
    assert steps_per_call(config, 95) == 1
    assert steps_per_call(dataclasses.replace(config, model="mlp"), 95) == 19
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert [steps_per_call(config, n) for n in (95, 190, 171, 93, 97, 8)] == [19, 10, 9, 31, 10, 8]
    assert steps_per_call(dataclasses.replace(config, steps_per_call=3), 95) == 3


@pytest.mark.parametrize(
    ("settings", "later"),
    [
        ({}, ""),
        ({"out": Path("out")}, "; --resume --out out goes on"),
        ({"resume": True}, "; the same command goes on"),
    ],
)
def test_a_run_that_a_signal_kept_from_beginning_says_how_it_goes_on(settings, later, tmp_path):
    experiment = prepare(dataclasses.replace(SETTINGS, **settings))
    turn = sweep.Turn(experiment, 0, tmp_path / "run", "")
    with pytest.raises(Stopped, match=f"none, seed 0: SIGINT before it began{later}$"):
        sweep._train(turn, progress.silent, (), lambda *run: None, [signal.SIGINT])
