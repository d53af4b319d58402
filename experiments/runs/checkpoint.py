"""Checkpoints of a run: written atomically, the last two kept, the newest valid one restored.

<run folder>/checkpoints/<steps done>/   arrays and progress, by Orbax
    sha256.json                         a checksum of every file, to detect a damaged checkpoint before it is read
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from experiments.config.errors import UsageError, first_line, out_of_memory
from experiments.files import write_json
from experiments.runs.distributed import first_alone, is_first
from experiments.runs.state import Progress, Snapshot

KEPT = 2
SUMS = "sha256.json"
OF_THE_MACHINE = tuple(os.strerror(number) for number in (errno.EACCES, errno.EMFILE, errno.ENFILE, errno.ENOMEM))
"""Errors that mean that a file may be valid, but cannot be read now."""


def steps(folder: Path) -> list[int]:
    """Steps for which the run folder has a complete checkpoint, newest last."""
    names = [path.name for path in (folder / "checkpoints").glob("*") if path.name.isdecimal() and path.is_dir()]
    return sorted(int(name) for name in names if str(int(name)) == name)  # not 007, nor digits of other scripts


def refuse_unusable(folder: Path) -> None:
    """Report errors that can be known before anything is trained.

    Raises:
      UsageError: if there is a file in place of the checkpoint folder.
    """
    path = folder / "checkpoints"
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: a file where the checkpoints go; remove it")


def save(folder: Path, step: int, snapshot: Snapshot) -> None:
    """Write the checkpoint of a step and remove all except the last two.

    Raises:
      OSError: if it cannot be written, for example on a full disk; earlier checkpoints are not affected.
    """
    arrays = ocp.args.StandardSave(_storable((snapshot.state, snapshot.best)))
    progress = ocp.args.JsonSave(dataclasses.asdict(snapshot.progress))
    try:
        with _manager(folder) as manager:
            manager.save(step, args=ocp.args.Composite(arrays=arrays, progress=progress), force=True)
        _write_sums(folder / "checkpoints" / str(step))
    except (OSError, ValueError) as error:  # Orbax passes on ValueErrors from TensorStore
        _remove_parts(folder)  # frees space on a full disk
        kept = [s for s in steps(folder) if s != step]
        good = f"the last one is that of step {kept[-1]}" if kept else "there is none before it"
        what = f"{folder}: the checkpoint of step {step} cannot be written ({_reason(error)}); {good}"
        raise OSError(what) from error


def restore(folder: Path, like: Snapshot) -> Snapshot | None:
    """The newest valid checkpoint, or None if there has never been one; a damaged one is removed with a warning.

    Args:
      folder: the run folder.
      like: a snapshot of the same run, which defines structure, types and devices of the arrays.

    Raises:
      UsageError: if there are checkpoints but none of them can be read.
      MemoryError, OSError: if one cannot be read because memory, file handles or permissions are missing; it is kept.
    """
    if is_first():
        _remove_parts(folder)  # of a process that was killed
    found, wrong = steps(folder), {}
    for step in reversed(found):
        try:
            snapshot = _read(folder, step, like)
        except Exception as error:  # Orbax, TensorStore and json raise a dozen kinds of errors for a damaged file
            _pass_on(error, folder, step)
            wrong[step] = _reason(error)
            continue
        for bad, reason in wrong.items():
            what = f"{folder}: the checkpoint of step {bad} is damaged ({reason}); going on from step {step}"
            print(f"warning: {what}", file=sys.stderr)
            _drop(folder, bad)
        return snapshot
    if not found:
        return None
    reasons = "; ".join(f"step {step}: {reason}" for step, reason in wrong.items())
    raise UsageError(f"{folder}: no checkpoint can be read ({reasons}); remove the folder to start the run again")


def _pass_on(error: Exception, folder: Path, step: int) -> None:
    """Raise errors that do not mean that the checkpoint is damaged."""
    what = f"{folder}: the checkpoint of step {step} cannot be read now ({_reason(error)}) and stays as it is"
    if out_of_memory(error):
        raise MemoryError(what) from error
    if any(text in str(error) for text in OF_THE_MACHINE):
        raise OSError(what) from error


def _read(folder: Path, step: int, like: Snapshot) -> Snapshot:
    _check_sums(folder / "checkpoints" / str(step))
    arrays = (like.state, like.best)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _storable(arrays))
    with _manager(folder) as manager:
        args = ocp.args.Composite(arrays=ocp.args.StandardRestore(shapes), progress=ocp.args.JsonRestore())
        read = manager.restore(step, args=args)
    state, best = jax.tree.map(_as, arrays, read["arrays"])
    return Snapshot(state, best, Progress(**read["progress"]))


@contextlib.contextmanager
def _manager(folder: Path) -> Iterator[ocp.CheckpointManager]:
    """Orbax for the checkpoints of a run folder, without logging, because it also raises what it logs."""
    options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, enable_async_checkpointing=False)
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with ocp.CheckpointManager((folder / "checkpoints").resolve(), options=options) as manager:
            yield manager
    finally:
        log.setLevel(level)


def _remove_parts(folder: Path) -> None:
    """Remove half-written checkpoints."""
    for part in (folder / "checkpoints").glob("[0-9]*.orbax-checkpoint-tmp*"):
        shutil.rmtree(part, ignore_errors=True)


def _drop(folder: Path, step: int) -> None:
    with _manager(folder) as manager:
        manager.delete(step)


def _is_key(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _storable(tree: Any) -> Any:
    """Random keys as their integers; arrays without entries, which Orbax does not save, as None."""
    one = lambda x: jax.random.key_data(x) if _is_key(x) else x
    return jax.tree.map(lambda x: one(x) if x.size else None, tree)


def _as(like: jax.Array, read: jax.Array | None) -> jax.Array:
    if read is None:
        return like
    return jax.random.wrap_key_data(read, impl=jax.random.key_impl(like)) if _is_key(like) else read


def _sums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    return {str(path.relative_to(folder)): _sum(path) for path in files}


def _sum(path: Path) -> str:
    """The checksum of a file, which is not read as a whole: it may be as large as the memory that is left."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@first_alone
def _write_sums(folder: Path) -> None:
    write_json(folder / SUMS, _sums(folder))


def _check_sums(folder: Path) -> None:
    """Compare with the checksums; if there are none (killed between commit and checksums), accept the checkpoint."""
    if not (folder / SUMS).exists():
        return
    noted, there = json.loads((folder / SUMS).read_text()), _sums(folder)
    wrong = [name for name in noted if there.get(name) != noted[name]]
    if wrong:
        raise ValueError(f"{wrong[0]} is not what was written")


def _reason(error: Exception) -> str:
    """One line of the error; TensorStore's messages are long, and the reason is at their end."""
    line = first_line(error)
    return line if len(line) <= 120 else f"... {line[-100:]}"
