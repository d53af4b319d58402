"""Seeds of an experiment in one program: each has its own thread and trainer, and they meet at every step.

A thread provides the state of its seed and waits for the others. The last one runs one program, `jax.vmap` of the step
of a single seed, and each thread continues with its own result. Everything except the step (data, evaluation, logs,
checkpoints, errors) works as for a single seed.
"""

import contextlib
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P

from experiments.config.errors import UsageError
from experiments.data.batch import HostBatch
from experiments.training import parallel
from experiments.training.epoch import copied
from experiments.training.experiment import KEPT, Experiment

T = TypeVar("T")
SECONDS_BETWEEN_LOOKS = 0.2
"""Seconds after which a waiting thread checks whether the others will still start."""


def refuse_unfit(experiment: Experiment) -> None:
    """Raise an error if several seeds of an experiment cannot share one program; nothing if this is not requested.

    Raises:
      UsageError: if the gate is only known during training, or if there is more than one device.
    """
    config, devices = experiment.config, experiment.layout.mesh.size
    option = f"--seeds-at-once {config.seeds_at_once}"
    if min(config.seeds_at_once, config.seeds) == 1:
        return
    if experiment.optimizer.plan is None:
        raise UsageError(
            f"{option}: the gate of --method {config.title} decides while it trains, for each seed by itself; leave "
            "the option out, or name a gate known ahead, such as --method.when after:0.5"
        )
    if devices > 1:
        raise UsageError(f"{option}: takes one device, not {devices}; add --devices 1, or leave the option out")


def shares(turns: Sequence[T], most: int) -> list[Sequence[T]]:
    """The turns in as few parts as possible, each with at most `most` turns and all of similar size.

    Example:
      >>> shares([0, 1, 2, 3, 4], most=4)
      [[0, 1, 2], [3, 4]]
    """
    size = -(-len(turns) // -(-len(turns) // most))
    return [turns[start : start + size] for start in range(0, len(turns), size)]


@functools.lru_cache(KEPT)
def over_seeds(program: parallel.Program) -> Callable[..., list[tuple[Any, Any]]]:
    """`call(states, inputs, *, active) -> [(state, metrics), ...]`, compiled: one or several steps of every seed.

    `states` is a tuple with one entry per seed, and is donated; `inputs` is a tuple of `(data, feed, key, val_loss)`.
    Batches are read before the seeds are stacked, so that the data sets of the seeds are not copied.
    """

    def call(states: Any, inputs: Any, *, active: bool | None):
        seeds = []
        for state, (data, feed, key, val_loss) in zip(states, inputs, strict=True):
            none = data._replace(images=data.images[:0], labels=data.labels[:0])
            seeds.append((state, none, HostBatch(*data.batch(feed)), key, val_loss))
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *seeds)
        out = jax.vmap(functools.partial(program.trace, active=active))(*stacked)
        return [jax.tree.map(lambda x, i=i: x[i], out) for i in range(len(states))]

    everywhere = NamedSharding(program.mesh, P())
    return jax.jit(call, static_argnames="active", donate_argnums=0, out_shardings=everywhere)


class _Call(NamedTuple):
    """The inputs of a thread, and the future that receives its result."""

    state: Any
    inputs: tuple[Any, ...]
    program: tuple[int, bool | None]
    answer: Future


class Group:
    """Seeds of one experiment that train together.

    A call of the step waits for the calls of all other members, except those that have ended for any reason, and, after
    a signal, those that have not started. If members need different programs, which can happen after a resume, those
    furthest behind run first.

    Args:
      experiment: the experiment that all members train.
      members: number of members.
      size: number of seeds of the program; if there are fewer members, one is repeated instead of compiling again.
      signals: not empty once a signal has arrived.
    """

    def __init__(self, experiment: Experiment, members: int, size: int, signals: Sequence[Any]):
        self._experiment, self._size, self._signals = experiment, size, signals
        self._step = over_seeds(experiment.step)
        self._lock = threading.Lock()
        self._expected, self._present = members, 0
        self._waiting: list[_Call] = []

    @contextlib.contextmanager
    def member(self) -> Iterator[Experiment]:
        """The experiment for one seed, whose thread belongs to the group until it leaves the block."""
        with self._lock:
            self._expected, self._present = self._expected - 1, self._present + 1
        try:
            yield dataclasses.replace(self._experiment, step=self._meet, compiling=threading.Lock())
        finally:
            with self._lock:
                self._present -= 1
                self._proceed()

    def _meet(self, state: Any, data: Any, feed: Any, key: jax.Array, val_loss: Any, *, active: bool | None) -> Any:
        """The step of one member."""
        call = _Call(state, (data, feed, key, val_loss), (len(jax.tree.leaves(feed)[0]), active), Future())
        with self._lock:
            self._waiting.append(call)
            self._proceed()
        while wait([call.answer], SECONDS_BETWEEN_LOOKS).not_done:
            with self._lock:
                self._proceed()
        return call.answer.result()

    def _proceed(self) -> None:
        """Run the waiting calls once no others are expected; the caller holds the lock."""
        absent = 0 if self._signals else self._expected
        if not self._waiting or len(self._waiting) < self._present + absent:
            return
        calls = self._waiting
        try:
            calls = _furthest_behind(calls)
            found = self._run(calls)
        except BaseException as error:
            for call in calls:
                call.answer.set_exception(error)
        else:
            for call, result in zip(calls, found, strict=False):  # the rest is repeated
                call.answer.set_result(result)
        self._waiting = [call for call in self._waiting if not call.answer.done()]

    def _run(self, calls: Sequence[_Call]) -> list[tuple[Any, Any]]:
        first, missing = calls[0], self._size - len(calls)
        states = [call.state for call in calls] + [copied(first.state) for _ in range(missing)]
        inputs = [call.inputs for call in calls] + [first.inputs] * missing
        return self._step(tuple(states), tuple(inputs), active=first.program[1])


def _furthest_behind(calls: Sequence[_Call]) -> Sequence[_Call]:
    """All calls if they need the same program; otherwise those with the program of the member with the fewest steps."""
    if len({call.program for call in calls}) == 1:
        return calls
    last = min(calls, key=lambda call: int(call.state.step))
    return [call for call in calls if call.program == last.program]
