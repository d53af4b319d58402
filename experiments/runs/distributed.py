"""Several processes that train together: connection, the process that writes, shared decisions."""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments.config.errors import UsageError, first_line


def join() -> None:
    """Join the other processes of the job, before any device is touched.

    SLURM, Kubernetes and TPU pods are known to JAX. Elsewhere three variables say it: JAX_COORDINATOR_ADDRESS as
    host:port of the first process, JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Raises:
      UsageError: if there is nothing to join, or the others cannot be reached.
    """
    try:
        jax.distributed.initialize(num_processes=_number("JAX_NUM_PROCESSES"), process_id=_number("JAX_PROCESS_ID"))
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
    """The function on the first process, nothing on the others."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs) if is_first() else None

    return guarded


def any_process(flag: bool) -> bool:
    """Whether the flag is set on any process; every process must call this at the same point."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))
