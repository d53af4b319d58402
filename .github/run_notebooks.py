"""Run notebooks in place and keep of what they show what a reader sees: `make notebooks`, or with the paths of some.

Pictures are stored with 256 colours, a third of the size, of those that were drawn: a method keeps its colour. What
only a browser with a kernel can show is left out.
"""

import base64
import io
import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat
import numpy as np
from PIL import Image


def run(path: Path) -> None:
    """Execute from a clean kernel, in an empty folder."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"kernel_name": "python3", "resources": {"metadata": {"path": folder}}}
        nbclient.NotebookClient(notebook, timeout=900, **settings).execute()
    keep(notebook)
    nbformat.write(notebook, path)


def keep(notebook: nbformat.NotebookNode) -> None:
    """Leave out when cells ran; join what was printed; make pictures small."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = _joined([output for output in cell.outputs if "text/html" not in output.get("data", {})])
            for output in cell.outputs:
                _shrink(output.get("data", {}))


def _joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Consecutive pieces of one stream as one."""
    joined: list[nbformat.NotebookNode] = []
    for output in outputs:
        if joined and output.output_type == "stream" and output.name == joined[-1].get("name"):
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _shrink(data: dict) -> None:
    if "image/png" in data:
        picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
        out = io.BytesIO()
        _with_palette(picture).save(out, format="png", optimize=True)
        data |= {"image/png": base64.b64encode(out.getvalue()).decode(), "text/plain": "<Figure>"}


def _with_palette(picture: Image.Image) -> Image.Image:
    """The picture in 256 colours, each pixel in the nearest of them."""
    colours, which, count = np.unique(np.reshape(picture, (-1, 3)), axis=0, return_inverse=True, return_counts=True)
    colours = colours.astype(np.int32)
    palette = _palette(colours[np.argsort(-count)])
    nearest = np.array([np.argmin(np.sum((palette - colour) ** 2, axis=1)) for colour in colours], np.uint8)
    reduced = Image.fromarray(nearest[which.ravel()].reshape(picture.height, picture.width))
    reduced.putpalette(palette.astype(np.uint8).tobytes())
    return reduced


def _palette(colours: np.ndarray) -> np.ndarray:
    """Up to 256 of the colours, which come by the area they cover: first those far apart, then what lies between."""
    palette = colours[:1]
    for apart in (24, 12, 6, 3, 1):
        for colour in colours:
            if len(palette) < 256 and np.min(np.sum(np.abs(palette - colour), axis=1)) >= apart:
                palette = np.vstack([palette, colour])
    return palette


if __name__ == "__main__":
    everyone = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
    for path in map(Path, sys.argv[1:] or everyone):
        run(path)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
