"""Runs side by side: each equals the same run alone, an error or a signal ends all, and programs are shared."""

import dataclasses
import json
import signal
import threading
import time
from typing import Any
from unittest import mock

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments.config.errors import Diverged, Stopped
from experiments.config.schema import Config
from experiments.data.pipeline import channels
from experiments.data.split import split
from experiments.runs.signals import graceful_shutdown
from experiments.training import evaluate, sweep
from experiments.training.epoch import copied
from experiments.training.experiment import prepare
from experiments.training.rates import ROOM
from experiments.training.side_by_side import each

SMALL = Config(model="mlp", train_size=80, val_size=30, batch=40, epochs=3, devices=1, tensorboard=False)


def lines(folder):
    """Return the metrics of a run, without the seconds."""
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in read]


def test_each_run_is_what_it_is_alone(tmp_path):
    for jobs in (1, 3):
        configs = [dataclasses.replace(SMALL, jobs=jobs, seeds=2, method=method) for method in ("sam", "none")]
        sweep.run([(tmp_path / str(jobs), config) for config in configs], Console(quiet=True))
    for method in ("sam", "none"):
        for seed in ("seed0", "seed1"):
            together, alone = (lines(tmp_path / jobs / method / seed) for jobs in ("3", "1"))
            assert together == alone
            assert len(alone) == 3


def test_results_come_in_the_order_of_the_turns():
    def late(n):
        time.sleep(0.02 * (3 - n))
        return n

    assert each(late, [0, 1, 2, 3], 4, []) == [0, 1, 2, 3]


@pytest.mark.parametrize("first", [0, 1])
def test_an_error_tells_those_under_way_and_keeps_the_others_from_beginning(first):
    signals, began, other = [], [], threading.Event()

    def turn(n):
        began.append(n)
        if n == first:
            other.wait(10)
            raise Diverged("the loss is nan")
        other.set()
        while not signals:
            time.sleep(0.001)
        raise Stopped("seed 1: SIGTERM at step 3", signals[0])

    with pytest.raises(Diverged, match="the loss is nan"):
        each(turn, [0, 1, 2, 3], 2, signals)
    assert sorted(began) == [0, 1]


def test_a_signal_reaches_the_runs_in_threads_and_none_begins_after_it(tmp_path):
    config = dataclasses.replace(SMALL, epochs=100_000, seeds=3, jobs=2, checkpoint_every=0)
    done = lambda: sum(path.read_text().count("\n") > 2 for path in tmp_path.rglob("metrics.jsonl"))

    def send():
        while done() < 2:
            time.sleep(0.01)
        signal.raise_signal(signal.SIGTERM)

    threading.Thread(target=send).start()
    with pytest.raises(Stopped, match="SIGTERM at step"):
        sweep.run([(tmp_path, config)], Console(quiet=True))
    assert len(list(tmp_path.rglob("checkpoints/*/sha256.json"))) == 2
    assert not (tmp_path / "none" / "seed2" / "run.json").exists()


def test_a_block_within_another_and_one_in_a_thread_see_its_signals():
    with graceful_shutdown() as outer:
        found = []
        with graceful_shutdown() as inner:
            assert inner is outer
        thread = threading.Thread(target=lambda: found.append(graceful_shutdown().__enter__()))
        thread.start()
        thread.join()
        assert found[0] is outer


def test_what_no_program_depends_on_shares_one():
    plain, noisy = prepare(SMALL), prepare(dataclasses.replace(SMALL, noise="symmetric:0.2", seeds=3, label="noisy"))
    assert noisy.step is plain.step
    assert (noisy.config.noise, plain.config.noise) == ("symmetric:0.2", "none")
    assert prepare(dataclasses.replace(SMALL, momentum=0.8)).step is not plain.step


@pytest.mark.slow
def test_one_program_serves_every_learning_rate_and_weight_decay():
    one = prepare(dataclasses.replace(SMALL, lr="cosine:0.1:0.0"))
    other = prepare(dataclasses.replace(SMALL, lr="linear:0.3:0.1", weight_decay=0.01))
    assert other.step is one.step
    base: Any = other.begin(0).opt_state[1]
    steps = other.config.epochs * other.steps_per_epoch
    np.testing.assert_allclose(base.rates[:steps], np.linspace(0.3, 0.1, steps, endpoint=False), rtol=1e-6)
    assert float(base.weight_decay) == np.float32(0.01)
    late = {"method": "sam", "method_options": (("when", "tail:0.5"),)}
    gated = [prepare(dataclasses.replace(SMALL, lr=lr, **late)) for lr in ("cosine:0.1:0.0", "linear:0.3:0.1")]
    assert gated[0].step is not gated[1].step  # the gate depends on the learning rate
    of_its_own = [prepare(dataclasses.replace(SMALL, optimizer="adamw", weight_decay=decay)) for decay in (0.0, 0.1)]
    assert of_its_own[0].step is not of_its_own[1].step


@pytest.mark.slow
def test_one_program_serves_plain_training_of_any_length():
    one, longer, very_long = (prepare(dataclasses.replace(SMALL, epochs=n)) for n in (2, 4, 1000))
    assert longer.step is one.step
    assert [len(e.begin(0).opt_state[1].rates) for e in (one, longer)] == [ROOM, ROOM]
    assert len(very_long.begin(0).opt_state[1].rates) > ROOM
    assert len(longer.optimizer.plan) == 2 * len(one.optimizer.plan)
    for scheduled in ({"method": "sam"}, {"reweight": "drw:0.8"}, {"loss": "gce"}, {"flooding": "flood:0.1"}):
        assert (
            prepare(dataclasses.replace(SMALL, epochs=4, **scheduled)).step
            is not prepare(dataclasses.replace(SMALL, epochs=2, **scheduled)).step
        )


def test_one_program_evaluates_sets_of_any_size(monkeypatch):
    experiment = prepare(SMALL)
    parts = split(SMALL, experiment.dataset, 0)
    params, model_state = experiment.network.init(0)
    loss = mock.Mock(side_effect=evaluate.optax.softmax_cross_entropy_with_integer_labels)  # called only in tracing
    monkeypatch.setattr(evaluate.optax, "softmax_cross_entropy_with_integer_labels", loss)
    for examples in (parts.val, parts.test, parts.train):
        held_out = experiment.held_out(examples, channels(parts.train.images))
        losses, _ = evaluate.evaluate_each(
            experiment.network.graphdef, params, model_state, held_out, experiment.layout.mesh, chunk=64
        )
        resident = experiment.source(examples, channels(parts.train.images))
        expected, _ = evaluate.evaluate_each(experiment.network.graphdef, params, model_state, resident, chunk=64)
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert loss.call_count == 1 + 3  # each set on the device has its own program


def test_a_copy_has_memory_of_its_own():
    x = jax.numpy.ones(3)
    assert copied((x,))[0].unsafe_buffer_pointer() != x.unsafe_buffer_pointer()
