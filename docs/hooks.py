"""Extensions of MkDocs: Markdown files of the repository, a page for each method, equations as MathML."""

import html
import os
import re
from pathlib import Path

import latex2mathml.converter
import lessons
import nbconvert
import nbformat
from mkdocs.structure.files import File

from pugd_optax import methods

ROOT = Path(__file__).parents[1]
INCLUDE = re.compile(r"^\{\{ (?P<path>\S+?)(?: (?P<section>## .+?))? \}\}$", re.MULTILINE)
BADGE = re.compile(r"\[!\[(.+?)\]\(https://\S+?\)\]")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
METHOD = re.compile(rf"^\| `({'|'.join(methods.__all__)})` \|", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:\s]+)\)")
DIFF = re.compile(r"^```diff\n(.*?)^```$", re.MULTILINE | re.DOTALL)
START = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)

METHOD_PAGE = """::: pugd_optax.methods.{name}.{name}
    options: {{heading_level: 1}}

## Its path over the loss of two weights

![Path of {name} beside that of gradient descent](paths/{name}.png)

From one start, with the settings of [the first lesson](../notebooks/01_what_is_a_gradient_perturbation.md), whose
cells drew it. The dashed valley is equally good everywhere, and flattest at the star.
"""

INLINE = re.compile(r"\\\((.*?)\\\)")
BAR = re.compile(r"<mo[^>]*>(&#x0007C;|&#x02016;)</mo>")
"""The bar of an absolute value or a norm, which browsers would space like a relation symbol."""


def on_config(config):
    """Add the page of each method and each notebook to the navigation."""
    section = lambda title: next(part[title] for part in config.nav if title in part)
    section("Methods").extend({name: f"methods/{name}.md"} for name in methods.__all__)
    section("Notebooks").extend({_title(path): f"notebooks/{path.stem}.md"} for path in NOTEBOOKS)


def on_files(files, config):
    """Add a page for each method, and the repository files that README and pages link to, at their paths."""
    for name in methods.__all__:
        files.append(File.generated(config, f"methods/{name}.md", content=METHOD_PAGE.format(name=name)))
    for file, picture in lessons.paths().items():
        files.append(File.generated(config, f"methods/paths/{file}", content=picture))
    for file, content in _notebook_files().items():
        files.append(File.generated(config, f"notebooks/{file}", content=content))
    pages = (path.relative_to(ROOT) for path in (ROOT / "docs" / "pages").glob("*.md"))
    for path in sorted(set().union(*map(_linked, (Path("README.md"), *pages)))):
        files.append(File.generated(config, str(path), abs_src_path=str(ROOT / path)))


def on_page_markdown(markdown, page, **_):
    """Replace `{{ README.md ## Methods }}` by that section of that file, `{{ README.md }}` by all of it."""
    up = "../" * page.file.src_uri.count("/")
    markdown = markdown.replace("](../../", "](").replace(".ipynb)", ".md)")  # pages link as they lie in the repository
    markdown = _with_scripts(markdown) if DIFF.search(markdown) else markdown
    return INCLUDE.sub(lambda match: LINK.sub(rf"]({up}\1)", _included(match["path"], match["section"])), markdown)


def on_page_content(content, page, **_):
    """Convert LaTeX to MathML, which browsers render without a script, also in the table of contents."""
    for heading in page.toc:
        for part in (heading, *heading.children):
            part.title = INLINE.sub(lambda match: _mathml(match[1], display=False), part.title)
    return EQUATION.sub(lambda match: _mathml(match[2], display=match[1] == "div"), content)


def _with_scripts(markdown: str) -> str:
    """Add below each diff the resulting script, folded, without the diff marks, ready to copy."""
    start = "".join(START.findall(markdown)).splitlines()

    def whole(match: re.Match[str]) -> str:
        lines = [*start, *(line[1:] for line in match[1].splitlines() if not line.startswith("-"))]
        block = "\n".join(f"    {line}".rstrip() for line in ("```python", *lines, "```"))
        return f'{match[0]}\n\n??? example "The whole script, to copy"\n\n{block}\n'

    return DIFF.sub(whole, markdown)


def _notebook_files() -> dict[str, str | bytes]:
    """The notebooks as pages with their pictures, and a gallery page."""
    found: dict[str, str | bytes] = dict(lessons.player())
    gallery = [
        "# Notebooks\n",
        "Each runs on Colab as it is, and is run by the tests.\n",
        '<div class="gallery" markdown>\n',
    ]
    for path in NOTEBOOKS:
        names = {"unique_key": path.stem, "output_files_dir": ""}
        body, resources = nbconvert.MarkdownExporter().from_notebook_node(_readable(path), resources=names)
        pictures = {name.lstrip("/"): data for name, data in resources["outputs"].items()}
        body = BADGE.sub(r"[\1]", body).replace("](../docs/pages/", "](../").replace(".ipynb)", ".md)")
        found |= {f"{path.stem}.md": body, **pictures}
        gallery.append(f"[![]({list(pictures)[-1]}) {_title(path)}]({path.stem}.md)\n")
    return found | {"index.md": "\n".join([*gallery, "</div>"])}


def _readable(path: Path) -> nbformat.NotebookNode:
    """The notebook, with its interactive player if it has one."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.id == "show":
            cell.outputs = [nbformat.v4.new_output("display_data", {"text/html": lessons.FRAME})]
    return notebook


def _title(notebook: Path) -> str:
    first = nbformat.read(notebook, as_version=4).cells[0].source
    return first.partition("\n")[0].lstrip("# ")


def _linked(page: Path) -> set[Path]:
    found = {Path(os.path.normpath(page.parent / link)) for link in LINK.findall((ROOT / page).read_text())}
    found = {path for path in found if (ROOT / path).is_file() and path.parts[0] not in ("docs", "notebooks")}
    return found.union(*(_linked(path) for path in found if path.suffix == ".md"))


def _included(path: str, section: str | None) -> str:
    text = (ROOT / path).read_text()
    if section:
        text = text.partition(f"\n{section}\n")[2].partition("\n## ")[0]
        if not text:
            raise ValueError(f"{path} has no section {section!r}")
    text = BADGE.sub(r"[\1]", text).replace("](docs/pages/", "](")  # pictures from elsewhere become words
    text = text.replace(".ipynb)", ".md)")
    text = METHOD.sub(r"| [`\1`][pugd_optax.methods.\1.\1] |", text)
    return text.replace("```python\n>>>", "```pycon\n>>>")


def _mathml(latex: str, display: bool) -> str:
    latex = re.sub(r"\\[bB]igg?(?![a-z])", "", html.unescape(latex))  # sizes that the converter does not know
    mathml = latex2mathml.converter.convert(latex, display="block" if display else "inline")
    return BAR.sub(r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>', mathml)
