"""Tables and figures created from run folders only: on the terminal, as Markdown, as CSV, as PNG."""

import csv
import io
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.files import write_text
from experiments.report.rows import Accuracy, Row, groups, rows, title
from experiments.runs.records import Run, read, unfinished

NOTE = (
    "mean ± standard deviation over seeds and half the 95 % confidence interval of the mean (Student's t); test %: at "
    "the epoch with the best validation accuracy; gradients: gradient evaluations of a run; seconds, images/s: median "
    "of the training time, compilation and evaluation left out, and its ratio to that of the first row."
)
WIDE = 110
"""Width of a terminal that can show every column of the table."""


def cells(made: list[Row]) -> list[list[str]]:
    """The table as text, header first."""
    head = ["method", "seeds", "test %", "95 % CI", "last epoch %", "gradients"]
    first = made[0].title if len(made[0].title) <= 6 else "first"
    head += ["seconds", f"time / {first}", "images/s"]
    return [head] + [
        [
            row.title,
            str(row.seeds),
            _spread(row.test, row.seeds),
            f"± {row.test.ci95:.1f}" if row.seeds > 1 else "",
            _spread(row.last, row.seeds),
            f"{row.evaluations:.0f}",
            f"{row.seconds:.1f}",
            f"{row.ratio:.2f}",
            f"{row.images_per_second:.0f}" if np.isfinite(row.images_per_second) else "",
        ]
        for row in made
    ]


def table(setting: str, methods: dict[str, list[Run]], width: int) -> Table:
    """The rows of one setting, the best test accuracy in bold; on a narrow terminal only the main columns."""
    made = rows(methods)
    text = cells(made)
    shown = Table(title=escape(title(setting, methods)), title_justify="left", title_style="bold", expand=False)
    kept = range(len(text[0])) if width >= WIDE else (0, 2, 3, 5, 7)
    for i in kept:
        shown.add_column(escape(text[0][i]), justify="right" if i else "left", overflow="fold")
    best = max(row.test.mean for row in made)
    for row, line in zip(made, text[1:], strict=True):
        shown.add_row(*(escape(line[i]) for i in kept), style="bold" if row.test.mean == best else None)
    return shown


def markdown(sorted_out: dict[str, dict[str, list[Run]]], missing: list[str]) -> str:
    """Every table, with a note on the columns and on missing runs."""
    parts = ["# Runs", "Written by `python -m experiments report`; do not edit."]
    for setting, methods in sorted_out.items():
        parts += [f"## {title(setting, methods)}", markdown_table(cells(rows(methods)))]
    parts += [NOTE[0].upper() + NOTE[1:], "![learning curves](curves.png)", "![how training went](course.png)"]
    parts += ["Not in these tables:\n\n" + "\n".join(f"- {line}" for line in missing)] if missing else []
    return "\n\n".join(parts) + "\n"


def markdown_table(cells: list[list[str]], numbers: bool = True) -> str:
    """Cells, header first, as a Markdown table; columns of numbers (all except the first) are right-aligned.

    Example:
      >>> print(markdown_table([["method", "test %"], ["SGD", "97.1"]]))
      | method | test % |
      |---|---:|
      | SGD | 97.1 |
    """
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    return "\n".join([lines[0], "|---|" + ("---:|" if numbers else "---|") * (len(cells[0]) - 1), *lines[1:]])


def comma_separated(sorted_out: dict[str, dict[str, list[Run]]]) -> str:
    """Every row with its setting and numbers in full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    accuracies = [f"{name}_{part}" for name in ("test", "last") for part in Accuracy._fields]
    writer.writerow(["setting", "method", "seeds", *accuracies, *Row._fields[4:]])
    for setting, methods in sorted_out.items():
        for row in rows(methods):
            writer.writerow([title(setting, methods), row.title, row.seeds, *row.test, *row.last, *row[4:]])
    return out.getvalue()


def show(root: Path, console: Console) -> None:
    """Write `report.md`, `report.csv` and the figures of a folder of runs there, and print the tables.

    The files are first: a reader such as `head` may end the program at the first line that it does not read.
    """
    from experiments.report import course, curves  # Matplotlib takes a second to import

    sorted_out, missing = groups(read(root)), unfinished(root)
    write_text(root / "report.md", markdown(sorted_out, missing))
    write_text(root / "report.csv", comma_separated(sorted_out))
    curves.draw(sorted_out, root / "curves.png")
    course.draw(sorted_out, root / "course.png")
    for setting, methods in sorted_out.items():
        console.print(table(setting, methods, console.width))
    console.print(NOTE, style="dim")
    for line in missing:
        console.print(f"not in the table: {line}", highlight=False, markup=False)
    made = f"written to {root}: report.md, report.csv, curves.png, course.png"
    console.print(made, soft_wrap=True, highlight=False, markup=False)


def _spread(accuracy: Accuracy, seeds: int) -> str:
    return f"{accuracy.mean:.1f}" + f" ± {accuracy.std:.1f}" * (seeds > 1)
