"""The results page, from the saved findings alone."""

from pathlib import Path

from experiments.claims.claim import Rows, Saved, load, show, verdict
from experiments.claims.picture import draw

HEAD = """# Claims of the papers, and what was found here

Written by `python -m experiments claims report`; do not edit. Numbers are means over seeds with 95 % confidence
intervals (Student's t); "below" means that the interval of the paired difference lies under 0. A verdict follows from
its conditions: all met, *holds here*; some, *holds partly*; none, *does not hold here*. These are reproductions in
small settings, not the papers' own tables. The seconds of a claim leave out trainings that were in the folder already.
"""


def write(folder: Path) -> Path:
    """Draw every saved finding of the folder again and write `results.md` beside them."""
    found = [load(path) for path in sorted(folder.glob("*.json"))]
    for saved in found:
        draw(saved.finding.panels, folder / f"{saved.name}.png")
    path = folder / "results.md"
    path.write_text("\n".join([HEAD, _overview(found), *map(_section, found)]))
    return path


def table(rows: Rows) -> list[list[str]]:
    """Cells of a table, the header first."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    return [["", *columns]] + [
        [name, *(show(row[c]) if c in row else "" for c in columns)] for name, row in rows.items()
    ]


def _overview(found: list[Saved]) -> str:
    cells = [["claim", "verdict", "statement"]]
    cells += [[f"[`{s.name}`](#{_anchor(s.name)})", verdict(s.finding.checks), s.note.splitlines()[0]] for s in found]
    return _markdown(cells)


def _section(saved: Saved) -> str:
    finding = saved.finding
    seeds = max(len(values) for row in finding.rows.values() for values in row.values())
    conditions = [
        f"- {'met' if check.met else '**not met**'}: {check.condition} ({check.numbers})" for check in finding.checks
    ]
    return "\n".join(
        [
            f"## {saved.name}\n",
            f"**{verdict(finding.checks)}.** {finding.reading}\n",
            _markdown(table(finding.rows)),
            f"![{saved.name}]({saved.name}.png)\n",
            *conditions,
            f"\n{saved.note.strip()}\n",
            f"Run: `{saved.command}`, {seeds} seeds, {saved.seconds:.0f} s.\n",
        ]
    )


def _markdown(cells: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(cells[0]), *lines[1:], ""])


def _anchor(name: str) -> str:
    return name.replace(".", "")
