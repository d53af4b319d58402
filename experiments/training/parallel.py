"""From a pure step to one on all devices: placement, compilation, several steps a call.

A batch is split over the mesh axis `data`; everything else lies on every device. Under `jit` the step is one program
over all of them, and the gradient is that of the whole batch. Under `shard_map` and `pmap` it is a program for each
device, which perturbs with the gradient of its own examples (m-sharpness); one all-reduce averages what comes of it.
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
    """How the devices share the work: `mode` is one of `MODES`, with a single device always `jit`."""

    mode: str
    mesh: Mesh

    @property
    def axis_name(self) -> str | None:
        """The axis over which programs run side by side, if they do."""
        return None if self.mode == "jit" else AXIS

    @property
    def average(self) -> Callable[[Any], Any]:
        """The mean over programs that run side by side."""
        return (lambda tree: tree) if self.mode == "jit" else over_devices

    def compiled(self, step: StepFunction) -> "Program":
        """The program of a step that is written for this layout."""
        return Program(self.mesh, MODES[self.mode](several(step), self.mesh))


def layout(mode: str, batch: int, count: int | None = None, microbatches: int = 1) -> Layout:
    """The first `count` devices, all of them by default, checked against the batch that they will divide.

    Raises:
      UsageError: if there are not as many, or they and the microbatches do not divide the batch.
    """
    found, processes = jax.devices(), jax.process_count()
    if count is not None and count > len(found):
        raise UsageError(f"--devices {count}: there are {len(found)}")
    if processes > 1 and count not in (None, len(found)):
        raise UsageError(f"--devices {count}: {processes} processes take all of their {len(found)} devices")
    if processes > 1 and mode == "pmap":
        raise UsageError("--parallel pmap is for the devices of one process; shard_map does the same for several")
    count = count or len(found)
    if batch % count:
        fits = max(n for n in range(1, count) if batch % n == 0)
        raise UsageError(f"--batch {batch}: not divisible by {count} devices; --devices {fits}, or another batch")
    if batch // count % microbatches:
        raise UsageError(f"--accumulate {microbatches}: does not divide the {batch // count} examples of each device")
    return Layout(mode if count > 1 else "jit", Mesh(np.array(found[:count]), (AXIS,)))


def everywhere(mesh: Mesh, tree: Any) -> Any:
    """The arrays, the same on every device."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def local_rows(mesh: Mesh, batch: int) -> slice:
    """The rows of a batch that the devices of this process work on."""
    size = batch // mesh.size
    mine = [i for i, device in enumerate(mesh.devices.flat) if device.process_index == jax.process_index()]
    return slice(mine[0] * size, (mine[-1] + 1) * size)


def several(step: StepFunction) -> StepFunction:
    """As many steps a call as the feed has entries; their metrics come back stacked.

    A single step is not scanned: on CPU convolutions are faster outside of loops.
    """

    def call(state: Any, data: Any, feed: Any, key: jax.Array, val_loss: jax.Array, *, active: bool | None):
        one = lambda state, feed: step(state, data, feed, key, val_loss, active=active)
        if len(jax.tree.leaves(feed)[0]) > 1:
            return jax.lax.scan(one, state, feed)
        state, metrics = one(state, jax.tree.map(lambda x: x[0], feed))
        return state, jax.tree.map(lambda x: x[None], metrics)

    return call


def over_devices(tree: Any) -> Any:
    """Floats averaged over the devices, in one all-reduce; counts, flags and keys are the same on all of them."""
    leaves, structure = jax.tree.flatten(tree)
    floats = [i for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.floating)]
    for i, mean in zip(floats, jax.lax.pmean([leaves[i] for i in floats], AXIS), strict=True):
        leaves[i] = mean
    return jax.tree.unflatten(structure, leaves)


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled call; `trace` is the same without its host side, for `jax.eval_shape`."""

    mesh: Mesh
    trace: StepFunction

    def __call__(self, state: Any, data: Any, feed: Any, key: jax.Array, val_loss: Any, *, active: bool | None):
        """Place this process's rows of the batches, [steps, rows, ...], and take the steps. The state is donated."""
        split = NamedSharding(self.mesh, P(None, AXIS))
        feed = jax.tree.map(functools.partial(jax.make_array_from_process_local_data, split), feed)
        out = self.trace(state, data, feed, key, val_loss, active=active)
        # XLA's CPU devices block a thread each in a collective: two programs in flight deadlock.
        crowded = self.mesh.size > 1 and jax.default_backend() == "cpu"
        return jax.block_until_ready(out) if crowded else out


def by_jit(call: StepFunction, mesh: Mesh) -> StepFunction:
    """One program over all devices, partitioned by the compiler."""
    return jax.jit(call, static_argnames="active", donate_argnums=0, out_shardings=NamedSharding(mesh, P()))


def by_shard_map(call: StepFunction, mesh: Mesh) -> StepFunction:
    """A program for each device."""
    specs = (P(), P(), P(None, AXIS), P(), P())

    def placed(*args: Any, active: bool | None):
        # Unchecked, a gradient by replicated parameters stays that of the device; checked, it would be summed.
        own = functools.partial(_own_draws(call), active=active)
        return jax.shard_map(own, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False)(*args)

    return jax.jit(placed, static_argnames="active", donate_argnums=0)


def by_pmap(call: StepFunction, mesh: Mesh) -> StepFunction:
    """The program of `by_shard_map` in the older spelling; for devices of one process."""
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
