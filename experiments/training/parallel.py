"""From a pure step to a step on all devices: placement, compilation, several steps per call.

A batch is split over the mesh axis `data`; everything else is replicated. Under `jit` the step is one program over all
devices, and the gradient is that of the whole batch. Under `shard_map` and `pmap` there is one program per device,
which perturbs with the gradient of its own examples (m-sharpness); one all-reduce averages the results.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

from experiments.config.errors import UsageError

AXIS = "data"
StepFunction = Callable[..., tuple[Any, Any]]
"""`(state, data, feed, key, val_loss, *, active) -> (state, metrics)`; see `several`."""


class Layout(NamedTuple):
    """How the devices share the work: `mode` is one of `MODES`, and always `jit` for a single device."""

    mode: str
    mesh: Mesh

    @property
    def axis_name(self) -> str | None:
        """The axis over which separate programs run, if any."""
        return None if self.mode == "jit" else AXIS

    @property
    def average(self) -> Callable[[Any], Any]:
        """The mean over separate programs."""
        return (lambda tree: tree) if self.mode == "jit" else over_devices

    def compiled(self, step: StepFunction) -> "Program":
        """The compiled program of a step for this layout."""
        return Program(self.mesh, MODES[self.mode](several(step), self.mesh))


def layout(mode: str, batch: int, count: int | None = None, microbatches: int = 1) -> Layout:
    """The first `count` devices, by default all, after checking that they divide the batch.

    Raises:
      UsageError: if there are not enough devices, or devices and microbatches do not divide the batch.
    """
    found, processes = jax.devices(), jax.process_count()
    if count is not None and count > len(found):
        raise UsageError(f"--devices {count}: only {len(found)} available")
    if processes > 1 and count not in (None, len(found)):
        raise UsageError(f"--devices {count}: {processes} processes take all of their {len(found)} devices")
    if processes > 1 and mode == "pmap":
        raise UsageError("--parallel pmap is for the devices of one process; shard_map does the same for several")
    count = count or len(found)
    if batch % count:
        fits = max(n for n in range(1, count) if batch % n == 0)
        fewer = f"--devices {fits}, or another batch" if processes == 1 else f"choose a multiple of {count}"
        raise UsageError(f"--batch {batch}: not divisible by {count} devices; {fewer}")
    if batch // count % microbatches:
        raise UsageError(f"--accumulate {microbatches}: does not divide the {batch // count} examples of each device")
    return Layout(mode if count > 1 else "jit", Mesh(np.array(found[:count]), (AXIS,)))


def everywhere(mesh: Mesh, tree: Any) -> Any:
    """The arrays, replicated on every device."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def local_rows(mesh: Mesh, batch: int) -> slice:
    """The rows of a batch that the devices of this process work on."""
    size = batch // mesh.size
    mine = [i for i, device in enumerate(mesh.devices.flat) if device.process_index == jax.process_index()]
    return slice(mine[0] * size, (mine[-1] + 1) * size)


def several(step: StepFunction) -> StepFunction:
    """One step per entry of the feed in one call; returns stacked metrics.

    A single step does not use `lax.scan`, because convolutions on a CPU are faster outside of loops.
    """

    def call(state: Any, data: Any, feed: Any, key: jax.Array, val_loss: jax.Array, *, active: bool | None):
        one = lambda state, feed: step(state, data, feed, key, val_loss, active=active)
        if len(jax.tree.leaves(feed)[0]) > 1:
            return jax.lax.scan(one, state, feed)
        state, metrics = one(state, jax.tree.map(lambda x: x[0], feed))
        return state, jax.tree.map(lambda x: x[None], metrics)

    return call


def over_devices(tree: Any) -> Any:
    """Floats averaged over the devices in one all-reduce; counts, flags and keys are the same on all devices."""
    leaves, structure = jax.tree.flatten(tree)
    floats = [i for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.floating)]
    for i, mean in zip(floats, jax.lax.pmean([leaves[i] for i in floats], AXIS), strict=True):
        leaves[i] = mean
    return jax.tree.unflatten(structure, leaves)


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled call; `trace` is the same without the work on the host, for `jax.eval_shape`."""

    mesh: Mesh
    trace: StepFunction

    def __call__(self, state: Any, data: Any, feed: Any, key: jax.Array, val_loss: Any, *, active: bool | None):
        """Place this process's rows of the batches, [steps, rows, ...], and run the steps. The state is donated."""
        split = NamedSharding(self.mesh, P(None, AXIS))
        feed = jax.tree.map(functools.partial(jax.make_array_from_process_local_data, split), feed)
        out = self.trace(state, data, feed, key, val_loss, active=active)
        # Each of XLA's CPU devices blocks a thread in a collective, so two programs at the same time deadlock.
        crowded = self.mesh.size > 1 and jax.default_backend() == "cpu"
        return jax.block_until_ready(out) if crowded else out


def by_jit(call: StepFunction, mesh: Mesh) -> StepFunction:
    """One program over all devices, partitioned by the compiler."""
    return jax.jit(call, static_argnames="active", donate_argnums=0, out_shardings=NamedSharding(mesh, P()))


def by_shard_map(call: StepFunction, mesh: Mesh) -> StepFunction:
    """One program per device."""
    specs = (P(), P(), P(None, AXIS), P(), P())

    def placed(*args: Any, active: bool | None):
        # With check_vma=False the gradient of replicated parameters stays local; otherwise it would be summed.
        own = functools.partial(_own_draws(call), active=active)
        return jax.shard_map(own, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False)(*args)

    return jax.jit(placed, static_argnames="active", donate_argnums=0)


def by_pmap(call: StepFunction, mesh: Mesh) -> StepFunction:
    """The program of `by_shard_map` with the older `jax.pmap`, for the devices of one process."""
    own = lambda *args: _own_draws(call)(*args[:-1], active=args[-1])
    mapped = jax.pmap(
        own,
        AXIS,
        in_axes=(None, None, 1, None, None, None),
        out_axes=None,
        static_broadcasted_argnums=5,
        donate_argnums=0,
        devices=list(mesh.devices.flat),
    )

    def placed(state: Any, data: Any, feed: Any, key: jax.Array, val_loss: jax.Array, *, active: bool | None):
        shares = jax.tree.map(lambda x: x.reshape(x.shape[0], mesh.size, -1, *x.shape[2:]), feed)
        return mapped(state, data, shares, key, val_loss, active)

    return placed


def _own_draws(call: StepFunction) -> StepFunction:
    """Independent augmentation on every device."""

    def own(state: Any, data: Any, feed: Any, key: jax.Array, val_loss: jax.Array, *, active: bool | None):
        return call(state, data, feed, jax.random.fold_in(key, jax.lax.axis_index(AXIS)), val_loss, active=active)

    return own


MODES: dict[str, Callable[[StepFunction, Mesh], StepFunction]] = {
    "jit": by_jit,
    "pmap": by_pmap,
    "shard_map": by_shard_map,
}
