"""The distribution contains the whole package only, is typed, and needs only JAX and Optax."""

import importlib.metadata
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import pugd_optax

pytestmark = pytest.mark.xdist_group("packaging")  # what the module builds is built once
ROOT = Path(__file__).parents[1]
SOURCES = {str(p.relative_to(ROOT)) for p in (ROOT / "pugd_optax").rglob("*.py")} | {"pugd_optax/py.typed"}
DOORS = {"equinox": "equinox", "linen": "flax", "nnx": "flax"}
"""Modules that import a framework, and the extra that installs it."""

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and source distribution, built by the backend without network or isolation."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "--directory", out], cwd=ROOT, check=True)
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def files(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_package_alone(built):
    kept = {name for name in files(built[0]) if ".dist-info/" not in name}
    assert kept == SOURCES


def test_the_source_distribution_builds_the_same_wheel(built, tmp_path):
    with tarfile.open(built[1]) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # since Python 3.11.4
        archive.extractall(tmp_path)
    (folder,) = tmp_path.iterdir()
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=folder, check=True)
    assert files(next(tmp_path.glob("*.whl"))) == files(built[0])
    top = {path.name for path in folder.iterdir()}
    beside = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "PKG-INFO", ".gitignore"}
    assert top == {"pugd_optax"} | beside


def test_metadata(built):
    with zipfile.ZipFile(built[0]) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
    required = [r for r in metadata.get_all("Requires-Dist", []) if "extra ==" not in r]
    assert sorted(re.split(r"[<>=]", r)[0] for r in required) == ["jax", "optax"]
    assert metadata["Version"] == pugd_optax.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert len(metadata.get_all("Project-URL", [])) == len(PROJECT["urls"]) >= 4
    page = str(metadata.get_payload())
    assert page.startswith("# pugd_optax")
    assert re.findall(r"\]\((?!https://)[^)]*\)", page) == [], "PyPI has none of the repository's files"
    assert "$" not in page, "PyPI draws no equations"


def test_lower_bounds_are_the_versions_that_were_tested():
    """The lower bounds are the versions that CI installs for the package alone and for all extras."""
    read = lambda name: dict(line.split("==") for line in (ROOT / ".github" / name).read_text().split())
    core, oldest, extras = read("oldest_core.txt"), read("oldest.txt"), PROJECT["optional-dependencies"]
    assert PROJECT["dependencies"] == [f"jax>={core['jax']}", f"optax>={core['optax']}"]
    assert extras["cuda"] == [f"jax[cuda12]>={core['jax']}"]
    bounds = dict(r.split(">=") for r in extras["experiments"] if ">=" in r)
    assert {name: bounds[name] for name in ("jax", "flax")} == {name: oldest[name] for name in ("jax", "flax")}
    assert extras["flax"] == [f"flax>={oldest['flax']}"]
    assert all(versions["jaxlib"] == versions["jax"] for versions in (core, oldest))


def test_the_build_backend_can_read_the_metadata():
    """Hatchling reads a list of license files since 1.26; the suite builds with what a user builds with."""
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    (backend,) = [r for r in required if r.startswith("hatchling>=")]
    assert tuple(map(int, backend.removeprefix("hatchling>=").split("."))) >= (1, 26)
    assert isinstance(PROJECT["license-files"], list)
    assert set(required) <= set(PROJECT["optional-dependencies"]["test"])


def test_what_the_suite_needs_has_a_version_with_which_it_passed():
    """Every open-ended requirement of the suite is pinned in `tested.txt`, the constraints of a CI job."""
    pinned = {normal(line.split("==")[0]) for line in (ROOT / ".github" / "tested.txt").read_text().split()}
    extras = PROJECT["optional-dependencies"]
    required = [r for extra in ("experiments", "tfds", "test", "docs", "dev") for r in extras[extra]]
    open_ended = {normal(re.split(r"[^\w.-]", r)[0]) for r in required if "==" not in r.partition(";")[0]}
    assert open_ended - {"pugd-optax"} <= pinned


ALONE = """
import importlib.metadata, pkgutil, sys
sys.path.insert(0, {wheel!r})
import jax.numpy as jnp, optax
before = set(sys.modules)

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {foreign!r}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
import pugd_optax
assert pugd_optax.__file__.startswith({wheel!r}), pugd_optax.__file__
new = {{name for name in set(sys.modules) - before if name.split(".")[0] != "pugd_optax"}}
assert not {{name.split(".")[0] for name in new}} - sys.stdlib_module_names, sorted(new)
for module in pkgutil.walk_packages(pugd_optax.__path__, "pugd_optax."):
    if module.name.split(".")[1] not in {doors!r}:
        __import__(module.name)
for door, extra in {doors!r}.items():
    try:
        getattr(pugd_optax, door)
        raise AssertionError(door)
    except ImportError as error:
        assert f"Fix: pip install 'pugd_optax[{{extra}}]'." in str(error), error
tx = optax.chain(pugd_optax.pugd(0.1), optax.sgd(0.1))
w = jnp.array([1.0, 2.0])
updates, state = tx.update(w, tx.init(w), w, grad_fn=lambda w: 2 * w)
print(jnp.all(jnp.isfinite(updates)))
"""


def test_jax_and_optax_are_enough(built):
    """The wheel works with all other distributions blocked, and its import loads no extra parts of JAX."""
    allowed = closure("jax") | closure("optax")
    tops = importlib.metadata.packages_distributions()
    foreign = {top for top, owners in tops.items() if not {normal(o) for o in owners} & allowed} - {"pugd_optax"}
    assert {"flax", "numpy"} & foreign == {"flax"}
    code = ALONE.format(wheel=str(built[0]), foreign=foreign, doors=DOORS)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=built[0].parent)
    assert ran.stdout.strip() == "True", ran.stderr


def closure(name: str) -> set[str]:
    """The distribution and everything it requires without extras."""
    found, todo = set(), [normal(name)]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            required = importlib.metadata.requires(name) or [] if installed(name) else []
            todo += [normal(re.split(r"[^\w.-]", r)[0]) for r in required if "extra ==" not in r]
    return found


def installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
