"""Reading data or a checkpoint does not execute code from the file."""

import ast
import pickle
from pathlib import Path

import numpy as np
import pytest

from experiments import data
from experiments.config.errors import UsageError
from experiments.config.specs import spec
from experiments.runs import checkpoint
from tests.experiments.runs.test_checkpoint import assert_equal, snapshot

ROOT = Path(__file__).parents[1]
FILES = [path for package in ("pugd_optax", "experiments") for path in sorted((ROOT / package).rglob("*.py"))]
RUN_WHAT_THEY_READ = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


class Trap:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_the_trap_works(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("name", "file", "arrays"),
    [
        ("npz:own.npz", "own.npz", ("x_train", "y_train", "x_test", "y_test")),
        ("cifar10_4000", "cifar10_train_first4000.npz", ("image", "label")),
        ("cifar10_jpeg", "cifar10_jpeg.npz", ("jpeg", "offset", "label")),
        ("tiny_imagenet_32", "tiny_imagenet_32_jpeg.npz", ("jpeg", "offset", "label")),
    ],
)
def test_pickled_arrays_are_refused_in_one_line(name, file, arrays, tmp_path):
    trap = np.array([Trap(tmp_path / "sprung")], dtype=object)
    np.savez(tmp_path / file, allow_pickle=True, **dict.fromkeys(arrays, trap))
    with pytest.raises(UsageError, match="cannot be read as npz") as caught:
        data.load(spec(name), tmp_path, checksum=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("name", "file", "complaint"),
    [
        ("mnist", "train-images-idx3-ubyte", "not an IDX file"),
        ("fashion_mnist", "train-images-idx3-ubyte", "not an IDX file"),
        ("cifar10", "cifar-10-binary.tar.gz", "cannot be unpacked"),
        ("cifar100", "cifar-100-binary.tar.gz", "cannot be unpacked"),
    ],
)
def test_a_pickle_in_place_of_a_data_file_is_refused(name, file, complaint, tmp_path):
    (tmp_path / file).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(UsageError, match=f"{file}: {complaint}"):
        data.load(spec(name), tmp_path, checksum=False)
    assert not (tmp_path / "sprung").exists()


def test_checkpoints_are_read_without_pickle(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 10, snapshot(10))
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, None)
    restored = checkpoint.restore(tmp_path, snapshot(0))
    assert restored is not None
    assert_equal(restored, snapshot(10))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_reads_what_it_would_run(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.split(".")[0] for name in names} & RUN_WHAT_THEY_READ
        if isinstance(node, ast.Call):
            assert getattr(node.func, "id", "") not in ("eval", "exec")
            if ast.unparse(node.func) in ("np.load", "numpy.load"):
                given = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert given.get("allow_pickle") == "False", f"{path}:{node.lineno}"
