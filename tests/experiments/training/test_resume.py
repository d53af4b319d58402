"""A run that is stopped and resumed ends in exactly the same state as an undisturbed run."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from experiments.config.errors import Diverged, Stopped
from experiments.config.schema import Config
from experiments.runs import checkpoint, run_dir
from experiments.runs.signals import graceful_shutdown
from experiments.training import trainer
from experiments.training.experiment import prepare
from tests.tiers import slow_but

BASE = Config(
    model="mlp",
    train_size=80,
    val_size=40,
    batch=20,
    epochs=3,
    noise="symmetric:0.2",
    augment="crop",
    devices=1,
    steps_per_call=1,
)
CASES = {
    "pugd": {"method": "pugd"},
    "rts_pugd": {"method": "rts_pugd", "method_options": (("when", "after:0.5"),)},
    "random keys": {"method": "noise_injection", "method_options": (("sigma", "0.01"),)},
    "two chains of state": {"method": "friendly_sam", "optimizer": "adamw", "lr": "0.001"},
    "a gate with memory": {"method": "sam", "method_options": (("when", "large_gradient"),)},
    "BatchNorm": {"method": "none", "model": "resnet8", "norm": "batch"},
}


def stopping(experiment, after, number=signal.SIGTERM):
    """Return the experiment with a signal in its step `after`, not counting one call per program to compile it."""
    calls = 0

    def step(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == len(experiment.programs) + after:
            signal.raise_signal(number)
        return experiment.step(*args, **kwargs)

    return dataclasses.replace(experiment, step=step)


def resumed(experiment):
    return dataclasses.replace(experiment, config=dataclasses.replace(experiment.config, resume=True))


def end(experiment, folder):
    """Return the last checkpoint, the metrics and the result of a run, without times."""
    snapshot = checkpoint.restore(folder, trainer._fresh(experiment, 0))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timeless = [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
    result = json.loads((folder / "result.json").read_text())
    kept = {k: v for k, v in result.items() if "second" not in k}
    assert snapshot is not None
    return checkpoint._storable((snapshot.state, snapshot.best)), timeless, kept


def assert_same_bits(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("case", slow_but(("a gate with memory",), CASES))
def test_stopped_within_an_epoch_and_resumed(case, tmp_path):
    experiment = prepare(dataclasses.replace(BASE, **CASES[case]))
    trainer.run(experiment, 0, tmp_path / "whole")
    with pytest.raises(Stopped, match="SIGTERM at step 6; saved"):
        trainer.run(stopping(experiment, 6), 0, tmp_path / "parts")
    assert checkpoint.steps(tmp_path / "parts") == [6]
    assert not (tmp_path / "parts" / "result.json").exists()
    trainer.run(resumed(experiment), 0, tmp_path / "parts")
    (whole, lines, result), (parts, lines_of_parts, result_of_parts) = (
        end(experiment, tmp_path / name) for name in ("whole", "parts")
    )
    assert_same_bits(whole, parts)
    assert lines == lines_of_parts
    assert result == result_of_parts


@pytest.mark.slow
def test_resumed_on_another_number_of_devices_it_ends_where_it_would_have_up_to_rounding(tmp_path):
    with_devices = lambda devices: prepare(dataclasses.replace(BASE, method="sam", devices=devices))
    trainer.run(with_devices(1), 0, tmp_path / "whole")
    with pytest.raises(Stopped):
        trainer.run(stopping(with_devices(2), 6), 0, tmp_path / "parts")
    trainer.run(resumed(with_devices(4)), 0, tmp_path / "parts")
    whole, parts = (end(with_devices(1), tmp_path / name)[0][0] for name in ("whole", "parts"))
    chex.assert_trees_all_close(parts, whole, rtol=1e-4, atol=1e-5)


def test_lines_after_the_checkpoint_are_cut_and_written_once(tmp_path):
    experiment = prepare(dataclasses.replace(BASE, checkpoint_every=2, epochs=4))
    with pytest.raises(Stopped):
        trainer.run(stopping(experiment, 13), 0, tmp_path)  # checkpoints of steps 8 and 13
    run_dir.append(tmp_path, {"epoch": 4})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 5, "st')
    trainer.run(resumed(experiment), 0, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]


def test_a_step_count_within_an_epoch_is_due_by_the_clock(tmp_path, monkeypatch):
    experiment = prepare(dataclasses.replace(BASE, epochs=1, checkpoint_minutes=1e-9))
    saved = []
    monkeypatch.setattr(checkpoint, "save", lambda folder, step, snapshot: saved.append(step))
    trainer.run(experiment, 0, tmp_path)
    assert saved == [1, 2, 3, 4]


def test_gradient_evaluations_do_not_depend_on_checkpoints(tmp_path, monkeypatch):
    """A second gradient on a share of the batch costs a fraction, and sums of fractions are rounded."""
    monkeypatch.setattr(checkpoint, "save", lambda folder, step, snapshot: None)
    experiment, counts = prepare(BASE), []
    experiment = dataclasses.replace(experiment, optimizer=experiment.optimizer._replace(cost=(1.1, 1.1)))
    for minutes in (10, 1e-9):
        config = dataclasses.replace(BASE, checkpoint_minutes=minutes)
        result = trainer.run(dataclasses.replace(experiment, config=config), 0, tmp_path / str(minutes))
        counts.append(result["gradient_evaluations"])
    assert counts[0] == counts[1] == pytest.approx(12 * 1.1)


@pytest.mark.parametrize(
    ("settings", "hint"),
    [({"out": Path("out")}, "--resume --out out goes on"), ({"resume": True}, "same command goes on"), ({}, "saved")],
)
def test_a_signal_during_the_last_checkpoint_ends_a_run_that_is_complete(settings, hint, tmp_path, monkeypatch):
    experiment = prepare(dataclasses.replace(BASE, epochs=1, **settings))
    save = checkpoint.save

    def signalled(*args):
        signal.raise_signal(signal.SIGTERM)
        save(*args)

    monkeypatch.setattr(checkpoint, "save", signalled)
    with pytest.raises(Stopped, match=f"SIGTERM at step 4; .*{hint}$"):
        trainer.run(experiment, 0, tmp_path)
    assert run_dir.complete(tmp_path, experiment.config)
    assert checkpoint.steps(tmp_path) == [4]


def test_without_an_interval_only_a_signal_makes_a_checkpoint(tmp_path):
    experiment = prepare(dataclasses.replace(BASE, epochs=2, checkpoint_every=0))
    trainer.run(experiment, 0, tmp_path / "whole")
    assert not (tmp_path / "whole" / "checkpoints").exists()
    with pytest.raises(Stopped) as stop:
        trainer.run(stopping(experiment, 3, signal.SIGINT), 0, tmp_path / "parts")
    assert stop.value.status == 130
    assert checkpoint.steps(tmp_path / "parts") == [3]


@pytest.fixture
def plain_signals():
    """Set Python's default signal handlers, since a worker of pytest-xdist ignores Ctrl-C."""
    plain = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in plain.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("plain_signals")
def test_a_second_signal_is_not_held_back():
    with graceful_shutdown() as caught:
        signal.raise_signal(signal.SIGINT)
        assert caught == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.fixture
def hangups():
    """Return a list of the hang-ups that had an effect outside of a graceful shutdown."""
    effects: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, frame: effects.append(number))
    yield effects
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("plain_signals")
def test_a_closed_terminal_is_a_signal_however_often_it_says_so(hangups):
    """The shell and the system both send it; if it had its usual effect then, the checkpoint would not be finished."""
    with graceful_shutdown() as caught:
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            signal.raise_signal(number)
        assert caught == [signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP]
    assert not hangups
    signal.raise_signal(signal.SIGHUP)
    assert hangups == [signal.SIGHUP]


def test_under_nohup_a_closed_terminal_is_ignored(hangups):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with graceful_shutdown() as caught:
        signal.raise_signal(signal.SIGHUP)
    assert not caught
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    assert not hangups


@pytest.mark.usefixtures("plain_signals")
def test_outside_the_main_thread_signals_are_left_alone():
    def work():
        with graceful_shutdown() as caught:
            found.append((caught, signal.getsignal(signal.SIGTERM)))

    found: list = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [([], signal.SIG_DFL)]


def failing_once(experiment, step):
    """Return the experiment with a data mean of NaN in one step, so that its normalised images are NaN."""
    calls = 0

    def broken(state, data, *args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == len(experiment.programs) + step:
            data = data._replace(mean=data.mean * np.float32("nan"))
        return experiment.step(state, data, *args, **kwargs)

    return dataclasses.replace(experiment, step=broken)


def test_a_loss_that_is_not_finite_stops_the_run_and_never_reaches_a_checkpoint(tmp_path):
    experiment = prepare(dataclasses.replace(BASE, checkpoint_every=1))
    with pytest.raises(Diverged, match=r"the loss is nan at step 5 \(epoch 2\)"):
        trainer.run(failing_once(experiment, 6), 0, tmp_path)
    assert checkpoint.steps(tmp_path) == [4]


def test_a_step_that_is_not_finite_is_dropped_whole_when_asked(tmp_path):
    experiment = prepare(dataclasses.replace(BASE, on_nan="skip", norm="batch", method="pugd"))
    result = trainer.run(failing_once(experiment, 6), 0, tmp_path)
    assert result["skipped_steps"] == 1
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["skipped"] for line in lines] == [0, 1, 0]
    assert [line["lr"] for line in lines] == experiment.optimizer.lr[[3, 6, 10]].tolist()  # of 4 steps, 3 and 4
    assert all(np.isfinite(line["train_loss"]) for line in lines)
    state, _, _ = end(experiment, tmp_path)
    assert all(np.isfinite(w).all() for w in jax.tree.leaves(state[0].params))
    assert int(state[0].step) == 12


def test_whether_a_skipped_step_ends_a_run_does_not_depend_on_its_checkpoints(tmp_path):
    experiment = prepare(dataclasses.replace(BASE, on_nan="skip", checkpoint_minutes=1e-9))  # one after every step
    assert trainer.run(failing_once(experiment, 6), 0, tmp_path / "once")["skipped_steps"] == 1
    hopeless = prepare(dataclasses.replace(experiment.config, lr="3e38", weight_decay=1e10))
    with pytest.raises(Diverged, match=r"at step 0 \(epoch 1\)"):
        trainer.run(hopeless, 0, tmp_path / "always")


def test_parameters_that_are_not_finite_are_found_though_the_loss_before_was(tmp_path):
    experiment = prepare(dataclasses.replace(BASE, epochs=1, batch=80, lr="3e38", weight_decay=1e10))
    with pytest.raises(Diverged, match=r"a parameter is not finite after the update at step 0"):
        trainer.run(experiment, 0, tmp_path)


@pytest.mark.slow
def test_killed_twenty_times_it_loses_an_interval_at_most_and_ends_where_an_undisturbed_run_does(tmp_path):
    env = {**os.environ, "PUGD_CACHE_DIR": str(jax.config.jax_compilation_cache_dir)}  # pyright: ignore
    env["PYTHONPATH"] = str(Path(__file__).parents[3])
    kill = Path(__file__).with_name("kill.py")
    done = subprocess.run(
        [sys.executable, kill, tmp_path, "20", "0"], env=env, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr  # 1 if it ends differently from an undisturbed run
    told = json.loads(done.stdout.splitlines()[-1])
    assert len(told["lost"]) == 20
    assert max(told["lost"]) <= 1
    assert 0 < told["epochs_before_the_last_turn"] < 60
    assert "error" not in done.stderr
