"""What MkDocs lacks for these pages: the repository's own Markdown, a page for each method, equations as MathML."""

import html
import os
import re
from pathlib import Path

import latex2mathml.converter
from mkdocs.structure.files import File

from pugd_optax import methods

ROOT = Path(__file__).parents[1]
INCLUDE = re.compile(r"^\{\{ (?P<path>\S+?)(?: (?P<section>## .+?))? \}\}$", re.MULTILINE)
BADGE = re.compile(r"\[!\[(.+?)\]\(https://\S+?\)\]")
METHOD = re.compile(rf"^\| `({'|'.join(methods.__all__)})` \|", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:\s]+)\)")
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)

BAR = re.compile(r"<mo[^>]*>(&#x0007C;|&#x02016;)</mo>")
"""A bar of an absolute value or a norm, which browsers would space like a relation."""


def on_config(config):
    """Name the page of each method in the navigation."""
    section = next(part["Methods"] for part in config.nav if "Methods" in part)
    section += [{name: f"methods/{name}.md"} for name in methods.__all__]


def on_files(files, config):
    """Add a page for each method, and the repository files that README and pages link to, at their paths."""
    for name in methods.__all__:
        block = f"::: pugd_optax.methods.{name}.{name}\n    options: {{heading_level: 1}}\n"
        files.append(File.generated(config, f"methods/{name}.md", content=block))
    pages = (path.relative_to(ROOT) for path in (ROOT / "docs" / "pages").glob("*.md"))
    for path in sorted(set().union(*map(_linked, (Path("README.md"), *pages)))):
        files.append(File.generated(config, str(path), abs_src_path=str(ROOT / path)))


def on_page_markdown(markdown, page, **_):
    """Replace `{{ README.md ## Methods }}` by that section of that file, `{{ README.md }}` by all of it."""
    up = "../" * page.file.src_uri.count("/")
    markdown = markdown.replace("](../../experiments/", "](experiments/")  # pages link as they lie in the repository
    return INCLUDE.sub(lambda match: LINK.sub(rf"]({up}\1)", _included(match["path"], match["section"])), markdown)


def on_page_content(content, **_):
    """Turn LaTeX into MathML, which browsers draw without a script."""
    return EQUATION.sub(lambda match: _mathml(match[2], display=match[1] == "div"), content)


def _linked(page: Path) -> set[Path]:
    found = {Path(os.path.normpath(page.parent / link)) for link in LINK.findall((ROOT / page).read_text())}
    found = {path for path in found if (ROOT / path).is_file() and path.parts[0] != "docs"}
    return found.union(*(_linked(path) for path in found if path.suffix == ".md"))


def _included(path: str, section: str | None) -> str:
    text = (ROOT / path).read_text()
    if section:
        text = text.partition(f"\n{section}\n")[2].partition("\n## ")[0]
        if not text:
            raise ValueError(f"{path} has no section {section!r}")
    text = BADGE.sub(r"[\1]", text).replace("](docs/pages/", "](")  # pictures from elsewhere become words
    text = METHOD.sub(r"| [`\1`][pugd_optax.methods.\1.\1] |", text)
    return text.replace("```python\n>>>", "```pycon\n>>>")


def _mathml(latex: str, display: bool) -> str:
    latex = re.sub(r"\\[bB]igg?(?![a-z])", "", html.unescape(latex))  # sizes that the converter does not know
    mathml = latex2mathml.converter.convert(latex, display="block" if display else "inline")
    return BAR.sub(r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>', mathml)
