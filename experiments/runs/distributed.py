"""Several processes that train together: connection, the writing process, shared decisions."""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments.config.errors import UsageError, first_line
from experiments.runs.last_words import last_words

PATIENCE = 30
"""Seconds without a heartbeat after which a process counts as dead and JAX ends the others."""
JOINING = 300
"""Seconds that processes wait for each other to start."""
PARTNER_LOST = (
    "stopped: a process of this job has died, and the others end with it; the same command with --resume continues "
    "from the last checkpoint"
)


def join() -> None:
    """Connect to the other processes of the job, before any device is used.

    JAX recognises SLURM, Kubernetes and TPU pods. Elsewhere set three variables: JAX_COORDINATOR_ADDRESS to host:port
    of the first process, JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    If one process dies, the others end within a minute; if one never starts, after five minutes.

    Raises:
      UsageError: if this is not a distributed job, or the others cannot be reached.
    """
    processes, number = _number("JAX_NUM_PROCESSES"), _number("JAX_PROCESS_ID")
    last_words(PARTNER_LOST)  # if a partner dies, JAX ends this process by an abort in C++
    try:
        jax.distributed.initialize(
            num_processes=processes,
            process_id=number,
            initialization_timeout=JOINING,
            heartbeat_timeout_seconds=PATIENCE,
            shutdown_timeout_seconds=PATIENCE,
        )
    except (ValueError, RuntimeError) as error:
        raise UsageError(
            f"--distributed: {first_line(error)} Start it by srun, on Kubernetes or on a TPU pod, or set "
            "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from error


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    if text is None:
        return None
    if not text.isdecimal():
        raise UsageError(f"{name}={text}: expected a whole number")
    return int(text)


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def first_alone(function: Callable[..., Any]) -> Callable[..., Any]:
    """Runs the function only on the first process; all processes call it, and it fails on all or none."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        result, error = None, None
        try:
            result = function(*args, **kwargs) if is_first() else None
        except Exception as found:
            error = found
        if any_process(error is not None):
            raise error or UsageError(f"{function.__name__.strip('_')} failed on the first process, which says why")
        return result

    return guarded


def any_process(flag: bool) -> bool:
    """Whether the flag is set on any process; every process must call this at the same point."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))
