"""Checkpoints: what is restored equals what was saved, or an error says why it cannot be restored."""

import dataclasses
import errno
import hashlib
import os
import tracemalloc
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
import pytest

from experiments.config.errors import UsageError
from experiments.runs import checkpoint
from experiments.runs.state import Progress, Snapshot, State


def snapshot(number: float) -> Snapshot:
    params = {"w": jnp.full((64, 64), number), "b": jnp.full(3, number, jnp.bfloat16)}
    opt_state = (
        optax.EmptyState(),
        optax.adam(0.1).init(params),
        None,
        jax.random.key(7),
        jax.random.key(8, impl="rbg"),
    )
    state = State(jnp.int32(number), params, {"mean": jnp.zeros(2)}, opt_state)
    progress = Progress(epoch=2, within=1, seconds=0.1, val_loss=1 / 3, metrics={"loss": [number, float("nan")]})
    return Snapshot(state, (params, {"mean": jnp.ones(2)}), progress)


def assert_equal(one: Snapshot, two: Snapshot):
    chex.assert_trees_all_equal(*(checkpoint._storable(x[:2]) for x in (one, two)), strict=True)
    assert str(one.progress) == str(two.progress)  # nan is not equal to itself


@pytest.fixture
def two(tmp_path) -> Path:
    """Return a run folder with checkpoints of steps 10 and 20."""
    for step in (10, 20):
        checkpoint.save(tmp_path, step, snapshot(step))
    return tmp_path


def test_what_is_restored_is_what_was_saved(two):
    found = checkpoint.restore(two, snapshot(0))
    assert found is not None
    assert_equal(found, snapshot(20))
    key = found.state.opt_state[4]  # pyright: ignore
    assert jax.random.key_impl(key) == jax.random.key_impl(jax.random.key(0, impl="rbg"))
    assert jax.tree.structure(found.state) == jax.tree.structure(snapshot(0).state)


def test_arrays_without_entries_are_restored_too(tmp_path):
    """GaLore keeps one for every vector among the parameters; Orbax does not save them."""

    def with_empty(number: float) -> Snapshot:
        made = snapshot(number)
        return made._replace(state=made.state._replace(opt_state=(jnp.zeros((0, 0)), *made.state.opt_state)))

    checkpoint.save(tmp_path, 10, with_empty(10))
    found = checkpoint.restore(tmp_path, with_empty(0))
    assert found is not None
    assert_equal(found, with_empty(10))
    assert found.state.opt_state[0].shape == (0, 0)
    assert jax.tree.structure(found.state) == jax.tree.structure(with_empty(0).state)


def test_the_last_two_are_kept(two):
    checkpoint.save(two, 30, snapshot(30))
    assert checkpoint.steps(two) == [20, 30]


def test_there_need_not_be_any(tmp_path):
    assert checkpoint.restore(tmp_path, snapshot(0)) is None
    assert not list(tmp_path.iterdir())


def test_a_half_written_one_does_not_count_and_is_removed(two):
    parts = [two / "checkpoints" / f"30.orbax-checkpoint-tmp{end}" for end in ("", "-0")]
    for part in parts:
        (part / "arrays").mkdir(parents=True)
    assert checkpoint.steps(two) == [10, 20]
    assert_equal(checkpoint.restore(two, snapshot(0)), snapshot(20))  # pyright: ignore
    assert not any(part.exists() for part in parts)


def damage(folder: Path, how: str):
    """Damage the largest file, which holds the values of the arrays."""
    path = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    raw = bytearray(path.read_bytes())
    if how == "flipped":
        raw[len(raw) // 2] ^= 1
        path.write_bytes(bytes(raw))
    elif how == "cut":
        path.write_bytes(bytes(raw[: len(raw) // 2]))
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["flipped", "cut", "removed"])
def test_a_damaged_one_falls_back_to_the_one_before_with_a_warning(how, two, capsys):
    damage(two / "checkpoints" / "20", how)
    found = checkpoint.restore(two, snapshot(0))
    assert_equal(found, snapshot(10))  # pyright: ignore
    said = capsys.readouterr().err
    assert said.startswith("warning: ")
    assert "checkpoint of step 20 is damaged" in said
    assert said.endswith("going on from step 10\n")
    assert said.count("\n") == 1
    checkpoint.save(two, 20, snapshot(21))
    assert_equal(checkpoint.restore(two, snapshot(0)), snapshot(21))  # pyright: ignore


def test_progress_that_is_no_longer_what_was_written_is_known_by_its_sum(two):
    (path,) = (two / "checkpoints" / "20" / "progress").glob("*metadata*")
    path.write_text(path.read_text().replace('"epoch": 2', '"epoch": 3').replace('"epoch":2', '"epoch":3'))
    assert_equal(checkpoint.restore(two, snapshot(0)), snapshot(10))  # pyright: ignore


def test_without_a_sound_one_nothing_is_made_up(two):
    for step in (10, 20):
        damage(two / "checkpoints" / str(step), "flipped")
    with pytest.raises(UsageError, match=r"no checkpoint can be read \(step 20: .*; step 10: .*\); remove the folder"):
        checkpoint.restore(two, snapshot(0))
    assert checkpoint.steps(two) == [10, 20]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), MemoryError),
        (RuntimeError("can't start new thread"), MemoryError),
        (ValueError("RESOURCE_EXHAUSTED: Error reading chunk\n of w"), MemoryError),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), OSError),
        (ValueError("PERMISSION_DENIED: Error opening w/.zarray [OS error 13: EACCES Permission denied]"), OSError),
    ],
    ids=repr,
)
def test_one_that_cannot_be_read_now_is_not_taken_for_a_damaged_one(error, kind, two, monkeypatch):
    """The newest checkpoint must not be removed just because a machine is short of memory."""

    def fails(*args, **kwargs):
        raise error

    with monkeypatch.context() as short:
        short.setattr(ocp.CheckpointManager, "restore", fails)
        with pytest.raises(kind, match=r"the checkpoint of step 20 cannot be read now \(.*\) and stays as it is$"):
            checkpoint.restore(two, snapshot(0))
    assert_equal(checkpoint.restore(two, snapshot(0)), snapshot(20))  # pyright: ignore


def test_one_that_was_committed_but_not_summed_is_taken(two):
    (two / "checkpoints" / "20" / checkpoint.SUMS).unlink()
    assert_equal(checkpoint.restore(two, snapshot(0)), snapshot(20))  # pyright: ignore


def test_a_full_disk_is_one_line_and_the_last_one_stays(two, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ocp.CheckpointManager, "save", full)
    with pytest.raises(
        OSError, match=r"step 30 cannot be written \(.*No space left.*\); the last one is that of step 20"
    ):
        checkpoint.save(two, 30, snapshot(30))
    assert_equal(checkpoint.restore(two, snapshot(0)), snapshot(20))  # pyright: ignore


def test_checksums_do_not_read_a_file_as_a_whole(tmp_path):
    (tmp_path / "large").write_bytes(bytes(2**24))
    tracemalloc.start()
    sums = checkpoint._sums(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sums == {"large": hashlib.sha256(bytes(2**24)).hexdigest()}
    assert peak < 2**22


def test_nothing_is_pickled(two):
    names = {path.suffix for path in two.rglob("*") if path.is_file()}
    assert not names & {".pkl", ".pickle", ".npy"}
    for path in two.rglob("*"):
        assert not path.is_file() or not path.read_bytes().startswith(b"\x80\x04")


def test_progress_survives_as_numbers(two):
    found = checkpoint.restore(two, snapshot(0))
    assert found is not None
    assert {f.name for f in dataclasses.fields(Progress)} == set(vars(found.progress))
    assert found.progress.val_loss == 1 / 3


def test_a_file_named_as_a_step_is_no_checkpoint(two):
    (two / "checkpoints" / "30").write_text("")
    assert checkpoint.steps(two) == [10, 20]
    assert_equal(checkpoint.restore(two, snapshot(0)), snapshot(20))  # pyright: ignore
    checkpoint.save(two, 40, snapshot(40))
    assert checkpoint.steps(two) == [20, 40]


def test_what_others_left_beside_the_checkpoints_is_left_alone(two):
    """Such files are notes, files of a file manager or network file system, and renamed copies of a checkpoint."""
    strays = [two / "checkpoints" / name for name in (".DS_Store", ".nfs0001", "notes.txt", "30")]
    for path in strays:
        path.write_text("")
    for name in ("20 (copy)", "best", "007", "\N{ARABIC-INDIC DIGIT THREE}", "lost+found"):
        (two / "checkpoints" / name).mkdir()
    assert checkpoint.steps(two) == [10, 20]
    assert_equal(checkpoint.restore(two, snapshot(0)), snapshot(20))  # pyright: ignore
    checkpoint.save(two, 40, snapshot(40))
    assert checkpoint.steps(two) == [20, 40]
    assert all(path.exists() for path in strays)


def test_an_empty_folder_named_as_a_step_is_passed_over(two, capsys):
    (two / "checkpoints" / "30").mkdir()
    assert_equal(checkpoint.restore(two, snapshot(0)), snapshot(20))  # pyright: ignore
    assert "checkpoint of step 30 is damaged" in capsys.readouterr().err
    assert checkpoint.steps(two) == [10, 20]


def test_a_file_in_place_of_the_checkpoints_is_met_before_training(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(UsageError, match=r"checkpoints: a file where the checkpoints go; remove it"):
        checkpoint.refuse_unusable(tmp_path)
