"""The documentation builds without a warning, its examples run, and its page on a new method is followed literally."""

import doctest
import html
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import pugd_optax
from pugd_optax import methods
from tests.conftest import CACHE, KEPT
from tests.test_recipes import RECIPES

pytestmark = pytest.mark.xdist_group("docs")  # what the module builds is built once
ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "pages"
OWN_METHOD = (PAGES / "own_method.md").read_text()
BLOCKS = dict(re.findall(r'^```\w+ title="(.+?)"\n(.*?)^```$', OWN_METHOD, flags=re.MULTILINE | re.DOTALL))
PYCON = re.compile(r"^```pycon\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
EXAMPLES = {page: found for page in PAGES.rglob("*.md") if (found := PYCON.findall(page.read_text()))}


class Links(HTMLParser):
    """The URLs that a page refers to: links, scripts, styles and images."""

    def __init__(self, page: Path):
        super().__init__()
        self.found: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in ("script", "img", "link"):
            self.found += [v for v in (given.get("src"), given.get("href")) if v]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The documentation as `make docs` builds it, without network access."""
    out = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--config-file",
        ROOT / "docs" / "mkdocs.yml",
        "--site-dir",
        out,
    ]
    nowhere = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, capture_output=True, text=True, env=os.environ | nowhere | KEPT)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return out


@pytest.mark.slow
def test_every_method_has_a_page_with_its_equation(site):
    for name in methods.__all__:
        page = (site / "methods" / f"{name}.html").read_text()
        assert "<math" in page
        assert "References" in page


@pytest.mark.slow
def test_every_public_name_is_in_the_reference(site):
    texts = [page.read_text() for page in site.rglob("*.html")]
    shown = {name for text in texts for name in re.findall(r'id="pugd_optax\.(?:\w+\.)*(\w+)"', text)}
    modules = [x for x in map(vars(pugd_optax).get, pugd_optax.__all__) if inspect.ismodule(x)]
    public = {name for module in (pugd_optax, *modules) for name in getattr(module, "__all__", ())}
    assert public - shown == set()


@pytest.mark.slow
def test_equations_are_drawn_and_code_is_no_quotation(site):
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert 'class="arithmatex"' not in text, page
        assert "\\(" not in re.sub(r"<(code|pre|script)\b.*?</\1>", "", text, flags=re.DOTALL), page
        assert "<p>&gt;&gt;&gt; " not in text, page
        assert not re.search(r"<mi>\\", text), f"{page}: LaTeX that the converter does not know"


@pytest.mark.slow
def test_every_notebook_is_a_page_with_its_pictures(site):
    gallery = (site / "notebooks" / "index.html").read_text()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        page = site / "notebooks" / f"{path.stem}.html"
        assert f'href="{page.name}"' in gallery
        pictures = [link for link in Links(page).found if link.startswith(path.stem)]
        assert pictures
        assert all((page.parent / picture).is_file() for picture in pictures)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_below_a_diff_is_the_script_that_it_leads_to(site, recipe):
    name = recipe.name.rpartition("-")[0]
    page = site / ("cookbook.html" if name == "cookbook" else f"quickstart/{name}.html")
    text = html.unescape(re.sub(r"<[^>]*>", "", page.read_text()))
    assert recipe.side("-").strip("\n") in text


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(methods.__all__)
    for page in pages:
        outside = [link for link in Links(page).found if re.match(r"https?:|//", link)]
        assert not outside, page


@pytest.mark.slow
def test_every_method_has_a_picture_of_its_path(site):
    for name in methods.__all__:
        (picture,) = [link for link in Links(site / "methods" / f"{name}.html").found if link.startswith("paths/")]
        assert (site / "methods" / picture).read_bytes().startswith(b"\x89PNG")


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVE = """<script>
const look = () => ({ path: [...plot.data[7].x], climb: [...plot.data[2].x], said: shown.radius.textContent });
const turn = (name, to) => { sliders[name].value = to; sliders[name].dispatchEvent(new Event("input")); };
addEventListener("load", () => setTimeout(() => {
  const seen = { first: look() };
  for (const [name, to] of [["radius", 0], ["step", 60], ["timing", 2], ["method", 0]]) {
    turn(name, to);
    seen[name] = look();
  }
  document.body.textContent = JSON.stringify(seen);
}, 1000));
</script>"""


SEARCH = """<script>
const one = (query) => document.querySelector(query);
addEventListener("load", () => setTimeout(() => {
  one("input[name=__palette]:nth-of-type(2)").click();
  one("#__search").click();
  const field = one("[data-md-component=search-query]");
  field.focus();
  field.value = "looksam";
  field.dispatchEvent(new Event("input", { bubbles: true }));
  field.dispatchEvent(new Event("keyup", { bubbles: true }));
}, 3000));
</script>"""
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt install chromium")


def shown(page: Path, folder: Path) -> str:
    """The DOM of the page in Chromium after twenty seconds of virtual time, opened as a file without network access."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", f"--user-data-dir={folder}"]
    command = [str(CHROMIUM), *flags, "--proxy-server=127.0.0.1:9", "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=300).stdout


@pytest.mark.slow
@in_a_browser
def test_the_sliders_of_the_player_move_the_path(site, tmp_path):
    """Moving a slider shows the numbers that the library gives for its value."""
    shutil.copy(site / "notebooks" / "plotly.min.js", tmp_path)
    page = tmp_path / "player.html"
    page.write_text((site / "notebooks" / "player.html").read_text() + DRIVE)
    seen = json.loads(re.findall(r"<body[^>]*>(.*?)</body>", shown(page, tmp_path), flags=re.DOTALL)[0])
    assert seen["first"]["said"] == "0.8"
    assert seen["radius"]["said"] == "0.05"
    assert abs(seen["radius"]["path"][-1] - seen["first"]["path"][-1]) > 0.1
    assert seen["step"]["path"] == seen["radius"]["path"]
    assert seen["step"]["climb"] != seen["radius"]["climb"]
    assert seen["timing"]["path"] != seen["step"]["path"]
    assert seen["method"]["climb"] == []


@pytest.mark.slow
@in_a_browser
def test_search_and_dark_mode_work_from_a_folder(site, tmp_path):
    page = site / "driven.html"
    page.write_text((site / "index.html").read_text() + SEARCH)
    seen = shown(page, tmp_path)
    page.unlink()
    assert re.search(r'<body [^>]*data-md-color-scheme="slate"', seen)
    assert re.search(r"\d+ matching documents", seen)
    assert re.search(r'<a href="[^"]*methods/looksam\.html" class="md-search-result__link"', seen)


@pytest.mark.parametrize("page", sorted(EXAMPLES), ids=lambda page: page.stem)
def test_examples_run(page):
    """The `pycon` blocks of every page run; blocks of other languages are ignored."""
    examples = doctest.DocTestParser().get_doctest("".join(EXAMPLES[page]), {}, page.name, str(page), 0)
    assert examples.examples
    failed, _ = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(examples)
    assert failed == 0


@pytest.mark.slow
def test_a_method_written_from_the_page_passes_the_contract(tmp_path):
    """The files of the page, with its lines inserted in alphabetical order, pass the last command of the page."""
    for folder in ("pugd_optax", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "experiments"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "README.md").write_text(_with_row((ROOT / "README.md").read_text(), BLOCKS.pop("README.md, Methods")))
    index = tmp_path / "pugd_optax" / "methods" / "__init__.py"
    start, bracket, names = index.read_text().partition("__all__ = [\n")
    imports = BLOCKS.pop("pugd_optax/methods/__init__.py, imports")
    entry = BLOCKS.pop("pugd_optax/methods/__init__.py, __all__")
    index.write_text(_in_order(start, imports) + bracket + _in_order(names, entry))
    for path, content in BLOCKS.items():
        (tmp_path / path).write_text(content)

    (command,) = re.findall(r"^pytest .*$", OWN_METHOD, flags=re.MULTILINE)
    words = [sys.executable, "-m", *command.split(), "-p", "no:cacheprovider", "--override-ini=testpaths="]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment |= {"PYTHONPATH": str(tmp_path), "JAX_COMPILATION_CACHE_DIR": CACHE}
    ran = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stdout
    passed = int(re.findall(r"(\d+) passed", ran.stdout)[-1])
    assert passed > 35, "the contract tests found the method"


def _in_order(text: str, line: str) -> str:
    """The text with a line put before the first one of its kind that sorts after it."""
    lines = text.splitlines(keepends=True)
    alike = line.split("linf_sam")[0]
    where = next(i for i, other in enumerate(lines) if other.startswith(alike) and other > line)
    return "".join([*lines[:where], line, *lines[where:]])


def _with_row(readme: str, row: str) -> str:
    """The README with a row added at the head of the methods table."""
    start, rule, rest = readme.partition("\n## Methods\n")[2].partition("|---|---|---|---|---|\n")
    return readme.replace(start + rule + rest, start + rule + row + rest)
