"""Seeds of an experiment in one program: each has a thread and a trainer of its own, and they meet at every step.

A thread brings the state of its seed and waits for the others; the last to come runs one program, `jax.vmap` of the
step that a seed alone would run, and each goes on with its own result. Whatever is not the step - data, evaluation,
logs, checkpoints, errors - is as it is for one seed.
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
"""At which a thread that waits finds out that others will never begin."""


def refuse_unfit(experiment: Experiment) -> None:
    """Raise what keeps several seeds of an experiment from being one program; nothing if none is asked for.

    Raises:
      UsageError: if only training tells when the method perturbs, or if there is more than one device.
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
    """The turns in as few parts as can be, each of at most so many and all about as large.

    Example:
      >>> shares([0, 1, 2, 3, 4], most=4)
      [[0, 1, 2], [3, 4]]
    """
    size = -(-len(turns) // -(-len(turns) // most))
    return [turns[start : start + size] for start in range(0, len(turns), size)]


@functools.lru_cache(KEPT)
def over_seeds(program: parallel.Program) -> Callable[..., list[tuple[Any, Any]]]:
    """`call(states, inputs, *, active) -> [(state, metrics), ...]`, compiled: a step, or several, of every seed.

    `states` is a tuple with an entry a seed, and donated; so is `inputs`, of `(data, feed, key, val_loss)`. Batches are
    read before the seeds are stacked, so that the examples of a seed stay where they are.
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
    """What a thread brings, and where it finds what came of it."""

    state: Any
    inputs: tuple[Any, ...]
    program: tuple[int, bool | None]
    answer: Future


class Group:
    """Seeds of one experiment that train together.

    A call of the step waits for those of all other members; a member that ends, for whatever reason, is waited for no
    longer, nor are those who have not begun when a signal comes, because then they never will. Where members are at
    different programs, which happens after a resume, those furthest behind go first.

    Args:
      experiment: what all of them train.
      members: how many there are.
      size: seeds that the program takes; where there are fewer, one is repeated instead of compiling another.
      signals: not empty once a signal has come.
    """

    def __init__(self, experiment: Experiment, members: int, size: int, signals: Sequence[Any]):
        self._experiment, self._size, self._signals = experiment, size, signals
        self._step = over_seeds(experiment.step)
        self._lock = threading.Lock()
        self._expected, self._present = members, 0
        self._waiting: list[_Call] = []

    @contextlib.contextmanager
    def member(self) -> Iterator[Experiment]:
        """The experiment for one seed, whose thread is in the group until it leaves the block."""
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
        """Run those who wait, once nobody else is to come; whoever calls this holds the lock."""
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
            for call, result in zip(calls, found, strict=False):  # beyond them, what was repeated
                call.answer.set_result(result)
        self._waiting = [call for call in self._waiting if not call.answer.done()]

    def _run(self, calls: Sequence[_Call]) -> list[tuple[Any, Any]]:
        first, missing = calls[0], self._size - len(calls)
        states = [call.state for call in calls] + [copied(first.state) for _ in range(missing)]
        inputs = [call.inputs for call in calls] + [first.inputs] * missing
        return self._step(tuple(states), tuple(inputs), active=first.program[1])


def _furthest_behind(calls: Sequence[_Call]) -> Sequence[_Call]:
    """All of them if they are at the same program; otherwise those at the one of whoever has taken fewest steps."""
    if len({call.program for call in calls}) == 1:
        return calls
    last = min(calls, key=lambda call: int(call.state.step))
    return [call for call in calls if call.program == last.program]
