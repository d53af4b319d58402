"""The notebooks run in a clean kernel without warnings, are committed with outputs, and define no method."""

import ast
import base64
import importlib.util
import io
import re
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from experiments.report.plotting import METHODS, method_of
from tests.conftest import KEPT

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 500_000

SHORTER = {
    "02_pugd_and_rts": {"EPOCHS, BATCH, SEEDS = 40, 50, 8": "EPOCHS, BATCH, SEEDS = 8, 50, 2"},
    "03_lpg_long_tail_and_noise": {"STEPS, BATCH, SEEDS = 400,": "STEPS, BATCH, SEEDS = 80,"},
    "04_regularising_gradients": {"losses_fn, start, 20000)": "losses_fn, start, 400)", "STEPS = 20000": "STEPS = 400"},
    "06_language_models": {"for _ in range(2):": "for _ in range(1):"},
}
"""Source edits that shorten the trainings in the test; `make notebooks` runs them in full."""

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def complaints(notebook):
    """Errors and everything written to stderr, such as warnings of Python, JAX and the compiler."""
    return [o for o in outputs(notebook) if o.output_type == "error" or o.get("name") == "stderr"]


def shortened(notebook, edits):
    """Applies the edits, each to one cell, and removes all outputs."""
    for old, new in edits.items():
        (cell,) = (cell for cell in code_cells(notebook) if old in cell.source)
        cell.source = cell.source.replace(old, new)
    for cell in code_cells(notebook):
        cell.outputs = []
    return notebook


def test_they_are_numbered():
    assert [int(path.stem[:2]) for path in NOTEBOOKS] == list(range(len(NOTEBOOKS)))


@pytest.mark.slow
@each_notebook
def test_runs_from_a_clean_kernel(path, tmp_path, monkeypatch):
    for name, value in KEPT.items():
        monkeypatch.setenv(name, value)
    notebook = shortened(nbformat.read(path, as_version=4), SHORTER.get(path.stem, {}))
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert complaints(notebook) == []
    assert outputs(notebook) != []


@each_notebook
def test_is_committed_with_its_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    assert complaints(notebook) == []
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
    shows = re.compile(r"^(print\(|plt\.show\(\))", re.MULTILINE)
    silent = [cell.id for cell in code_cells(notebook) if shows.search(cell.source) and not cell.outputs]
    assert silent == []
    assert path.stat().st_size < LARGEST


@each_notebook
def test_says_nothing_of_the_machine_it_ran_on(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(not cell.metadata for cell in notebook.cells)
    text = path.read_text()
    assert not [word for word in ("site-packages", "/home/", "/root/", "/tmp/", "/Users/") if word in text]


@each_notebook
def test_opens_and_installs_on_colab(path):
    title, install = nbformat.read(path, as_version=4).cells[:2]
    assert f"https://colab.research.google.com/github/OWNER/pugd_optax/blob/main/notebooks/{path.name}" in title.source
    assert 'find_spec("pugd_optax") is None' in install.source
    assert "git+https://github.com/OWNER/pugd_optax" in install.source


@each_notebook
def test_defines_no_method(path):
    source = "\n".join(cell.source for cell in code_cells(nbformat.read(path, as_version=4)))
    assert "import pugd_optax" in source
    assert not [word for word in ("GradientTransformation", "optax.stateless", "def update(") if word in source]


def coloured(notebook):
    """The pairs of label and colour in the dictionaries of a notebook."""
    named, pairs = {}, []
    nodes = [node for cell in code_cells(notebook)[1:] for node in ast.walk(ast.parse(cell.source))]
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                named |= {n.id: v.value for n, v in zip(names, values, strict=True) if isinstance(v, ast.Constant)}
    for node in nodes:
        for key, value in zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ():
            for part in value.elts if isinstance(value, ast.Tuple) else [value]:
                word = str(named.get(part.id) if isinstance(part, ast.Name) else getattr(part, "value", None))
                pairs += [(getattr(key, "value", None), word)] if word.startswith("#") else []
    return pairs


def test_methods_have_the_colours_of_reports():
    pairs = [pair for path in NOTEBOOKS for pair in coloured(nbformat.read(path, as_version=4))]
    ours = {(name, colour) for label, colour in pairs if label and (name := method_of(label))}
    assert {name for name, _ in ours} == set(METHODS)
    assert [pair for pair in sorted(ours) if METHODS[pair[0]] != pair[1]] == []


def test_what_is_kept_of_outputs():
    """`make notebooks` joins printed text, keeps pictures that look the same, and drops output that needs a browser."""
    spec = importlib.util.spec_from_file_location("run_notebooks", ROOT / ".github" / "run_notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    picture = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)  # more colours than are kept
    picture[:, :10] = [0x5E, 0x4F, 0xA2]
    png = io.BytesIO()
    Image.fromarray(picture).save(png, format="png")
    image = {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": "<Figure size 1x1>"}
    shown = [new_output("stream", name="stdout", text=text) for text in ("one\n", "two\n")]
    shown += [new_output("display_data", image), new_output("display_data", {"text/html": "<p>"})]
    notebook = new_notebook(cells=[new_code_cell("", outputs=shown, metadata={"execution": {}})])
    tool.keep(notebook)
    (cell,) = notebook.cells
    assert not cell.metadata
    assert [output.output_type for output in cell.outputs] == ["stream", "display_data"]
    assert cell.outputs[0].text == "one\ntwo\n"
    data = cell.outputs[1].data
    assert data["text/plain"] == "<Figure>"
    kept = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert kept.mode == "P"
    np.testing.assert_array_equal(np.asarray(kept.convert("RGB"))[:, :10], picture[:, :10])
    assert np.abs(np.asarray(kept.convert("RGB"), int) - picture).mean() < 20
