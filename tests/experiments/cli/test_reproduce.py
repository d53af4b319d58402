"""Reproducing numbers of the README, with one small method."""

import dataclasses
import io

import pytest
from rich.console import Console

from experiments.cli import demo, reproduce
from experiments.config.errors import UsageError
from experiments.report.rows import Accuracy

TABLE = "| SGD | {} ± 1.0 | {} ± 1.0 | 200 | 1.00 |\n"


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Return a function that writes a README with a table and returns the lines that the command prints for it."""
    small = dataclasses.replace(demo.METHODS[0], model="mlp", epochs=1, seeds=2, tensorboard=False)
    monkeypatch.setattr(demo, "METHODS", (small,))
    monkeypatch.setattr(reproduce, "README", tmp_path / "README.md")

    def tell(table: str) -> list[str]:
        reproduce.README.write_text(table)
        console = Console(file=io.StringIO(), width=200)
        reproduce.main(reproduce.Options("sgd", tmp_path / "runs"), console)
        return console.file.getvalue().splitlines()

    return tell


def test_the_measured_number_stands_beside_that_of_the_readme(told):
    lines = [line for line in told(TABLE.format("150.0", "150.0")) if line.startswith("SGD, ")]
    *accuracies, evaluations = lines
    assert [line.partition(":")[0] for line in accuracies] == ["SGD, chosen", "SGD, last epoch"]
    assert all(" README 150.0 ± 9.0, measured " in line and line.endswith("DO NOT AGREE") for line in accuracies)
    assert evaluations == "SGD, gradient evaluations: README 200, measured 10: DO NOT AGREE"
    measured = lines[1].partition("measured ")[2].partition(" ±")[0]
    table = TABLE.format(measured, measured).replace("200", "10")
    again = [line for line in told(table) if line.startswith(("SGD, last", "SGD, gradient"))]
    assert all(line.endswith(": agree") for line in again)


def test_a_readme_without_the_row_is_answered(told):
    with pytest.raises(UsageError, match="no row 'SGD' with chosen and last epoch"):
        told("nothing")


def test_every_row_of_the_readme_can_be_reproduced():
    assert [reproduce._written(config.label)[2] for config in demo.METHODS] == [200, 400, 400, 400, 380]


@pytest.mark.parametrize(("mean", "agree"), [(90.0, True), (91.3, True), (93.0, False)])
def test_numbers_agree_by_the_interval_of_their_difference(mean, agree):
    # t(2) = 4.303, so the interval of three seeds has a half-width of 2.484 standard deviations.
    assert reproduce._agree(Accuracy(90.0, 0.4, 0), Accuracy(mean, 0.4, 0), 3) == agree
