"""Names of option values: help and documentation list exactly those in the registries."""

import re
from pathlib import Path

import pytest

from experiments.cli.main import main
from experiments.cli.names import CALLS, PLAIN, names
from pugd_optax import methods, timing

DATA = (Path(__file__).parents[3] / "docs" / "pages" / "data.md").read_text()


def written(column: str) -> set[str]:
    """Return the names in backticks in a column of a table, without their arguments."""
    return {name.partition(":")[0] for name in re.findall(r"`([\w:.]+?)`", column)}


def test_help_lists_every_name(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    said = re.sub(r"\s+", " ", capsys.readouterr().out)
    for option, found in names().items():
        assert f"{option}: {', '.join(found)}" in said


def test_methods_and_gates_are_those_of_the_library():
    assert {"none", *methods.__all__} == {*PLAIN["--method"]}
    assert {"after", "every", "low_variance"} <= {*CALLS["--method.when"]} <= {*vars(timing)}


def test_the_table_of_data_sets_is_the_registry():
    rows = re.findall(r"^\| (`.+?) \|", DATA.partition("| `--dataset` |")[2].partition("\n\n")[0], re.MULTILINE)
    assert set().union(*map(written, rows)) == {*CALLS["--dataset"]}


def test_the_table_of_losses_is_the_registries():
    found: dict[str, set[str]] = {}
    option = ""
    for start, column in re.findall(r"^\| (`--\w+`)? ?\| (.+) \|$", DATA.partition("\n## Losses\n")[2], re.MULTILINE):
        option = start.strip("`") or option
        found.setdefault(option, set()).update(written(column))
    assert found == {option: {*CALLS[option]} - {"none"} for option in ("--loss", "--reweight", "--flooding")}
