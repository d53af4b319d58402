"""Settings of the CPU before JAX starts: the number of devices, and whether freed memory is kept."""

import contextlib
import os
from collections.abc import Sequence

import jax

from experiments.config.errors import UsageError
from experiments.config.schema import Config
from experiments.runs.memory import keep_freed
from experiments.training.side_by_side import cores

FLAG = "xla_force_host_platform_device_count"
SMALL = {"digits": 64, "mnist": 784, "fashion_mnist": 784}
"""Data sets of small images, and the numbers in one image; other data sets have 3072 or more."""
LARGE = 2**17
"""Numbers in the images of a batch above which temporary arrays of a step may exceed 32 MB."""


def settle(configs: Sequence[Config]) -> None:
    """Split the CPU into the devices that these experiments use (see `devices`), unless JAX has already started."""
    if any(config.batch * SMALL.get(config.parts.dataset.name, 3072) >= LARGE for config in configs):
        keep_freed()
    if FLAG not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", devices(configs, cores()))


def devices(configs: Sequence[Config], count: int) -> int:
    """The devices requested; by default, for a single run under `--parallel jit`, one for each of `count` cores.

    Several runs are trained side by side, each on one device. If the cores do not divide the batch, fewer are used.

    Raises:
      UsageError: if more are requested than a batch has examples.

    Example:
      >>> devices([Config(batch=128)], 4), devices([Config(batch=50)], 4), devices([Config(seeds=3)], 4)
      (4, 2, 1)
    """
    asked = [config.devices for config in configs if config.devices]
    first = configs[0]
    for config in configs:
        if (config.devices or 1) > config.batch:  # each is a thread; tens of thousands would abort the process
            raise UsageError(f"--devices {config.devices}: more than the {config.batch} examples of --batch")
    if asked or first.distributed or first.parallel != "jit" or sum(config.seeds for config in configs) > 1:
        return max(asked, default=1)
    return max(n for n in range(1, count + 1) if first.batch % (n * first.accumulate) == 0 or n == 1)
