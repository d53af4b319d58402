"""Seeds in one program: each ends as it does alone, up to rounding, and none waits for a seed that has dropped out."""

import dataclasses
import faulthandler
import functools
import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments.config.errors import Diverged, Stopped, UsageError
from experiments.config.schema import Config
from experiments.runs import checkpoint, run_dir
from experiments.training import side_by_side, sweep, trainer
from experiments.training.experiment import prepare
from experiments.training.together import Group, over_seeds
from tests.tiers import slow_but

BASE = Config(
    **{
        "model": "mlp",
        "train_size": 80,
        "val_size": 40,
        "batch": 20,
        "epochs": 4,
        "seeds": 3,
        "noise": "symmetric:0.2",
    },
    **{"devices": 1, "tensorboard": False, "augment": "crop", "steps_per_call": 1},
)
RTS = {"method": "rts_pugd", "method_options": (("when", "after:0.5"),)}
CASES: dict[str, dict[str, Any]] = {
    "sgd": {"method": "none"},
    "sam": {"method": "sam"},
    "rts_pugd": RTS,
    "several steps a call": {**RTS, "steps_per_call": 3},
    "streamed": {"method": "sam", "stream": "on"},
    "random keys": {"method": "noise_injection", "method_options": (("sigma", "0.01"),)},
}
SECONDS = 100


@pytest.fixture(autouse=True)
def ends():
    """If a test hangs, end the process and print the stack of every thread."""
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def rounds(monkeypatch):
    """Return a list that records, for every round, the step counts of the seeds in it and their program."""
    found, run = [], Group._run

    def noted(self, calls):
        found.append(([int(call.state.step) for call in calls], calls[0].program))
        return run(self, calls)

    monkeypatch.setattr(Group, "_run", noted)
    return found


def train(folder, at_once=3, tolerated=(), **settings):
    """Train every seed of the experiment, and return a line for each one that failed."""
    config = dataclasses.replace(BASE, seeds_at_once=at_once, jobs=1, out=folder, **settings)
    return sweep.run([(folder, config)], Console(quiet=True), tolerated)


def end(folder, **settings):
    """Return the state, metrics and result of each seed that has ended, without times."""
    experiment = prepare(dataclasses.replace(BASE, **settings))
    found = {}
    for path in sorted(folder.glob("*/seed*/result.json")):
        snapshot = checkpoint.restore(path.parent, trainer._fresh(experiment, 0))
        assert snapshot is not None
        lines = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
        numbers = [{k: np.float32(v) for k, v in line.items() if "second" not in k and v is not None} for line in lines]
        result = {k: v for k, v in json.loads(path.read_text()).items() if "second" not in k}
        found[path.parent.name] = checkpoint._storable(snapshot.state), numbers, result
    return found


def assert_close(actual, expected):
    chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return a function that trains the seeds of a case one after another and returns how each ended."""

    @functools.cache
    def ended(case):
        folder = tmp_path_factory.mktemp("alone")
        train(folder, at_once=1, **CASES[case])
        return end(folder, **CASES[case])

    return ended


@pytest.mark.parametrize("case", slow_but(("sgd",), CASES))
def test_each_seed_ends_where_it_does_alone(case, tmp_path, alone, rounds):
    expected = alone(case)
    assert not rounds
    train(tmp_path, **CASES[case])
    assert {len(steps) for steps, _ in rounds} == {3}
    found = end(tmp_path, **CASES[case])
    assert list(found) == ["seed0", "seed1", "seed2"]
    assert_close(found, expected)


@pytest.mark.slow
def test_seeds_are_divided_evenly_and_compiled_once(tmp_path, rounds):
    call = over_seeds(prepare(dataclasses.replace(BASE, **RTS, momentum=0.8)).step)
    train(tmp_path, at_once=4, **RTS, momentum=0.8, **{"seeds": 5})
    assert sorted({len(steps) for steps, _ in rounds}) == [2, 3]
    assert call._cache_size() == len({program for _, program in rounds}) == 2  # pyright: ignore
    assert len(end(tmp_path, **RTS)) == 5


def test_a_seed_that_diverges_leaves_the_others_as_they_are(tmp_path, alone, monkeypatch):
    epoch = trainer.run_epoch

    def broken(experiment, state, source, key, val_loss, seed, number, *rest):
        if (seed, number) == (1, 3):
            state = state._replace(params=jax.tree.map(lambda x: x * jnp.nan, state.params))
        return epoch(experiment, state, source, key, val_loss, seed, number, *rest)

    expected = alone("sgd")
    monkeypatch.setattr(trainer, "run_epoch", broken)
    (line,) = train(tmp_path / "goes on", tolerated=(Diverged,))
    assert "seed 1: the loss is nan at step 8 (epoch 3)" in line
    found = end(tmp_path / "goes on")
    assert list(found) == ["seed0", "seed2"]
    assert_close(found, {seed: expected[seed] for seed in found})
    with pytest.raises(Diverged):
        train(tmp_path / "ends")
    assert checkpoint.steps(tmp_path / "ends/none/seed0")


@pytest.fixture
def sent(rounds, monkeypatch):
    """Return a list for the test to fill with the numbers of the rounds in which SIGTERM is raised."""
    found, run = [], Group._run

    def signalled(self, calls):
        if len(rounds) in found:
            signal.raise_signal(signal.SIGTERM)
            while not self._signals:
                time.sleep(0.001)
        return run(self, calls)

    monkeypatch.setattr(Group, "_run", signalled)
    return found


@pytest.mark.slow
def test_stopped_twice_and_resumed_from_different_epochs(tmp_path, alone, rounds, sent):
    expected, compiled = alone("rts_pugd"), 2
    saved = lambda: [checkpoint.steps(path)[-1] for path in sorted(tmp_path.glob("*/seed*"))]
    sent.append(compiled + 9)
    with pytest.raises(Stopped, match=r"SIGTERM at step 10; --resume --out .* goes on"):
        train(tmp_path, **RTS, **{"seeds": 2})
    assert saved() == [10, 10]
    rounds.clear()
    sent[:] = [compiled + 4]  # the third seed begins with its gate closed, and the others wait
    with pytest.raises(Stopped):
        train(tmp_path, **RTS, resume=True)
    assert saved() == [11, 11, 5]
    rounds.clear()
    sent.clear()
    train(tmp_path, **RTS, resume=True)
    assert [sorted(steps) for steps, _ in rounds[compiled:]] == [
        *([5], [6], [7]),
        *([8, 11, 11], [9, 12, 12], [10, 13, 13], [11, 14, 14], [12, 15, 15]),
        *([13], [14], [15]),
    ]
    assert_close(end(tmp_path, **RTS), expected)


def test_an_error_of_the_program_is_that_of_every_seed(tmp_path, monkeypatch):
    def fails(*args):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(Group, "_run", fails)
    assert len(train(tmp_path, tolerated=(Exception,))) == 3


def test_a_seed_whose_thread_cannot_be_started_is_not_waited_for(tmp_path, monkeypatch):
    class TwoThreads(ThreadPoolExecutor):
        def submit(self, *args):
            if len(self._threads) == 2:
                raise RuntimeError("can't start new thread")
            return super().submit(*args)

    monkeypatch.setattr(side_by_side, "ThreadPoolExecutor", TwoThreads)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        train(tmp_path)
    assert len(list(tmp_path.glob("*/seed*/checkpoints"))) <= 2
    assert not list(tmp_path.glob("*/seed*/result.json"))


def test_a_seed_that_another_process_has_trained_meanwhile_is_not_waited_for(tmp_path, alone, monkeypatch):
    expected, looks = alone("sgd"), []
    done = lambda experiment, folder: (
        looks.append(folder.name) or (looks.count(folder.name) == 2 and folder.name == "seed1")
    )
    monkeypatch.setattr(sweep, "_done", done)
    train(tmp_path)
    found = end(tmp_path)
    assert list(found) == ["seed0", "seed2"]
    assert_close(found, {seed: expected[seed] for seed in found})


def test_what_one_program_cannot_serve_is_refused(tmp_path):
    gate = {"method": "sam", "method_options": (("when", "large_gradient"),)}
    with pytest.raises(UsageError, match=r"--seeds-at-once 3: the gate of --method sam\(when=large_gradient\) decides"):
        train(tmp_path, **gate)
    with pytest.raises(UsageError, match="--seeds-at-once 3: takes one device, not 2; add --devices 1"):
        train(tmp_path, devices=2)
    with pytest.raises(UsageError, match="--seeds-at-once 0: expected at least 1"):
        train(tmp_path, at_once=0)
    assert not list(tmp_path.iterdir())


def test_a_single_seed_is_trained_as_ever(tmp_path, rounds):
    for at_once in (1, 3):
        train(tmp_path / str(at_once), at_once, seeds=1)
    assert not rounds
    chex.assert_trees_all_equal(end(tmp_path / "3"), end(tmp_path / "1"))
    assert run_dir.identity(BASE) == run_dir.identity(dataclasses.replace(BASE, seeds_at_once=3))
