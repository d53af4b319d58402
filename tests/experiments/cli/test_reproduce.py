"""Numbers of the README, with one small method."""

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
    """What the command says of a README with these two numbers."""
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
    assert [line.partition(":")[0] for line in lines] == ["SGD, chosen", "SGD, last epoch"]
    assert all(" README 150.0 ± 9.0, measured " in line and line.endswith("DO NOT AGREE") for line in lines)
    measured = lines[1].partition("measured ")[2].partition(" ±")[0]
    again = [line for line in told(TABLE.format(measured, measured)) if line.startswith("SGD, last")]
    assert again[0].endswith(": agree")


def test_a_readme_without_the_row_is_answered(told):
    with pytest.raises(UsageError, match="no row 'SGD' with chosen and last epoch"):
        told("nothing")


def test_every_row_of_the_readme_can_be_reproduced():
    assert all(len(reproduce._written(config.label)) == 2 for config in demo.METHODS)


@pytest.mark.parametrize(("mean", "agree"), [(90.0, True), (91.3, True), (93.0, False)])
def test_numbers_agree_by_the_interval_of_their_difference(mean, agree):
    # t(2) = 4.303, so that of three seeds half a width is 2.484 standard deviations.
    assert reproduce._agree(Accuracy(90.0, 0.4, 0), Accuracy(mean, 0.4, 0), 3) == agree
