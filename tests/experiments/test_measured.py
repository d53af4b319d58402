"""Every figure with an interval on the page "Which method should I use?" is in the results that it names.

So is every ratio in the table of step costs.
"""

import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from experiments.claims import catalog
from experiments.claims.claim import load
from experiments.claims.conditions import judge
from experiments.report.stats import interval

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"
PAGE = ROOT / "docs" / "pages" / "which_method.md"
NUMBER = r"(\d+(?:\.\d+)?)"
FIGURE = rf"{NUMBER} ± {NUMBER}"
NAMES = {
    "report=True": "report",
    "its gate closed": "gate closed",
    "gradient_regularization, forward": "forward GR",
    "gradient_regularization, exact": "exact GR",
    "two gradients by hand": "two gradients",
    "optax.contrib.sam, opaque mode": "contrib.sam",
    "SGD, the same program": "SGD",
    "SGD in PyTorch 2.13": "PyTorch SGD",
    "SAM in PyTorch 2.13": "PyTorch SAM",
}
"""What the table of step costs calls by another name than its file."""
SOURCE = r"`(?:python -m experiments )?(?:claims ([a-z]+\.[a-z]+)[^`]*|(compare))`"


def figures(text: str) -> Iterator[tuple[str, str, str]]:
    """Value, half width and source of every figure: the next source in its paragraph, bullet or row, or the last."""
    last = ""
    for block in re.split(r"\n(?=\n|- |\|)", text):
        flat = " ".join(block.split())
        sources = [(m.start(), m[1] or m[2]) for m in re.finditer(SOURCE, flat)]
        for found in re.finditer(FIGURE, flat):
            after = [name for at, name in sources if at > found.start()]
            before = [name for at, name in sources if at < found.start()]
            yield found[1], found[2], (after or before[-1:] or [last])[0]
        last = sources[-1][1] if sources else last


@functools.cache
def measured(source: str) -> list[tuple[float, float]]:
    """Means and half widths that can be read from the results: of rows, differences of rows, and conditions."""
    if source == "compare":
        tasks = json.loads((RESULTS / "compare" / "compare.json").read_text())["tasks"]
        return [pair for task in tasks.values() for pair in of_rows(task)]
    finding = load(RESULTS / "claims" / f"{source}.json").finding
    judged = [(abs(x.condition.estimate), x.half) for x in judge(finding.conditions)]
    return judged + of_rows(finding.rows)


def of_rows(rows: Mapping[str, Mapping[str, list[float]]]) -> list[tuple[float, float]]:
    alone = [values for row in rows.values() for values in row.values()]
    pairs = [(a[key], b[key]) for a, b in itertools.combinations(rows.values(), 2) for key in a if key in b]
    apart = [np.subtract(x, y) for x, y in pairs if len(x) == len(y)]
    return [(abs(found.mean), found.half) for found in map(interval, [*alone, *apart])]


def is_rounded(text: str, exact: float) -> bool:
    """Whether a number is written with all its digits right, without its sign."""
    unit = 10.0 ** -len(text.partition(".")[2])
    return abs(float(text) - exact) <= 0.501 * unit


def stated(value: str, half: str, source: str) -> bool:
    return any(is_rounded(value, mean) and is_rounded(half, width) for mean, width in measured(source))


def test_every_figure_is_in_the_results_that_it_names():
    found = list(figures(PAGE.read_text()))
    named = {source for _, _, source in found}
    assert named <= {*catalog.claims(), "compare"}
    waiting = {name for name in named - {"compare"} if not (RESULTS / "claims" / f"{name}.json").exists()}
    assert len(waiting) < 2
    assert [figure for figure in found if figure[2] not in waiting and not stated(*figure)] == []


def test_every_ratio_of_step_costs_is_in_the_file():
    page = (ROOT / "docs" / "pages" / "results.md").read_text()
    problems = json.loads((RESULTS / "bench" / "steps.json").read_text())["results"]
    ratios = [{(row["name"], row["against"]): row["ratio"] for row in problem["rows"]} for problem in problems]
    table = re.search(r"^\| step \|.*\n\|-.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert table is not None
    lines = [[named(cell) for cell in line.split("|")[1:-1]] for line in table[1].splitlines()]
    wrong = [
        (step, against, text)
        for step, *texts, against in lines
        for text, found in zip(texts, ratios, strict=True)
        if text and not is_rounded(text, found[step, against])
    ]
    assert len(lines) == 16
    assert wrong == []


def named(cell: str) -> str:
    """A cell of the table of step costs, with the names of its file."""
    text = cell.replace("`", "").strip()
    return functools.reduce(lambda text, name: text.replace(name, NAMES[name]), NAMES, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SGD gains 1.0 ± 0.2 (`claims rts.all`), or 3 ± 1.", [("1.0", "0.2", "rts.all"), ("3", "1", "rts.all")]),
        ("(`compare`)\n\n| SAM | −0.5 ± 0.1 |", [("0.5", "0.1", "compare")]),
    ],
)
def test_a_figure_belongs_to_the_next_source_or_the_last(text, expected):
    assert list(figures(text)) == expected


def test_a_wrong_figure_is_noticed():
    assert stated("2.0", "0.8", "rts.early")
    assert not stated("12.0", "0.8", "rts.early")
