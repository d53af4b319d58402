"""The comparison of all methods: budgets, ranks, and the command at smoke scale."""

import dataclasses
import io
import json

import jax
import numpy as np
import pytest
from rich.console import Console

import pugd_optax.methods
from experiments.claims.setting import Setting, at
from experiments.claims.variants import method
from experiments.cli.main import main
from experiments.compare import command, page
from experiments.compare.ranks import ranks
from experiments.compare.tasks import _TASKS, contestants, tasks, within_budget
from experiments.config.errors import UsageError
from experiments.training.experiment import prepare


def test_critical_difference_of_the_example_of_demsar():
    scores = np.random.default_rng(0).normal(size=(4, 14))
    assert ranks(dict(zip("abcd", scores, strict=True))).critical == pytest.approx(1.25, abs=5e-3)


def test_ranks_by_hand_with_a_tie_and_a_diverged_run():
    found = ranks({"a": [90, 80, 70], "b": [90, 85, np.nan], "c": [60, 81, 65]})
    assert found.mean == pytest.approx({"a": (1.5 + 3 + 1) / 3, "b": (1.5 + 1 + 3) / 3, "c": (3 + 2 + 2) / 3})
    assert found.leaders == list(found.mean)


def test_leaders_are_those_within_the_critical_difference():
    scores = {str(k): [k + 0.1 * b for b in range(30)] for k in range(4)}
    found = ranks(scores)
    assert list(found.mean) == ["3", "2", "1", "0"]
    assert found.leaders == ["3"]
    assert found.p < 1e-6


@pytest.mark.parametrize(("name", "epochs"), [("none", 40), ("sam", 20), ("rts_pugd", 21), ("momentum_sam", 40)])
def test_budgets_are_equal_in_gradient_evaluations(name, epochs):
    assert within_budget(method(_TASKS["noisy digits"], name)).epochs == epochs


def test_all_methods_take_part_at_several_rates():
    assert len(tasks("full", data=True)) == 6
    for task in tasks("full", data=False):
        assert len(task.axes[0].values) >= 5
        assert len({at(task.base, task.axes, (rate,)).lr for rate in task.axes[0].values}) == len(task.axes[0].values)
    (few,) = tasks("smoke", data=True)
    assert [*contestants(few._replace(tiny=True))] == ["none", "sam", "pugd"]


def test_each_half_of_the_data_holds_the_examples_of_its_task():
    task = tasks("full", data=False)[0]
    for half in ("first", "second"):
        assert prepare(dataclasses.replace(task.base, half=half)).steps_per_epoch == 7


def test_methods_for_long_tails_or_normalisation_layers_take_part_where_there_are_some(monkeypatch):
    monkeypatch.setattr("experiments.compare.tasks.within_budget", lambda config: config)
    for name, base in _TASKS.items():
        left_out = (set() if name == "long tail" else {"imb_sam"}) | (set() if base.model != "mlp" else {"sam_on"})
        assert {*contestants(Setting(name, base, ()))} == {"none", *pugd_optax.methods.__all__} - left_out


@pytest.mark.slow
def test_command_and_page_at_smoke_scale(tmp_path):
    said = io.StringIO()
    with jax.numpy_rank_promotion("allow"):
        command.main(command.Options(scale="smoke", out=tmp_path), Console(file=said, width=200))
    text = (tmp_path / "compare.md").read_text()
    (numbers,) = json.loads((tmp_path / "compare.json").read_text())["tasks"].values()
    best = max(numbers, key=lambda name: np.mean(numbers[name]["test %"]))
    assert f"Within a point of the best: `{best}`" in text
    assert all(f"| `{name}` |" in text for name in numbers)
    assert numbers["sam"]["gradient evaluations"] == numbers["none"]["gradient evaluations"]
    before = text, (tmp_path / "compare.png").stat().st_size
    command.main(command.Options(scale="smoke", out=tmp_path, report=True), Console(file=said))
    assert before == ((tmp_path / "compare.md").read_text(), (tmp_path / "compare.png").stat().st_size)


def test_page_names_what_loses_to_plain_training(tmp_path):
    column = lambda *values: {"test %": list(values), "gradient evaluations": [1.0], "rate": [0.1]}
    methods = {"none": column(80, 81, 80), "pugd": column(85, 86, 85), "sam": column(70, 72, 71)}
    about = {"packages": {"jax": "0"}, "device": "", "cores": 1, "commit": "0"}
    saved = {"command": "", "environment": about, "tasks": {"noisy": methods}}
    page.write(saved, tmp_path)
    text = (tmp_path / "compare.md").read_text()
    assert "\nJAX 0, , 1 cores, commit 0.\n" in text  # saved before the machines of the trainings were recorded
    trainings = {"count": 9, "seconds": 1.0, "commits": ["a"], "machines": {"cpu": 7, "gpu": 2}}
    trained = page.write(saved | {"trainings": trainings}, tmp_path).read_text()
    assert "commit 0; 9 trainings, 7 on cpu, 2 on gpu.\n" in trained
    assert "Within a point of the best: `pugd` 85.3. Plain training: 80.3." in text
    assert "uncorrected: `sam`." in text


def test_page_tells_the_test_over_tasks_from_that_over_seeds(tmp_path):
    about = {"packages": {"jax": "0"}, "device": "", "cores": 1, "commit": "0"}
    column = lambda *values: {"test %": list(values), "gradient evaluations": [1.0], "rate": [0.1]}
    methods = {"none": column(*[70.0] * 10), "pugd": column(*[80.0] * 10), "sam": column(*[75.0] * 10)}
    page.write({"command": "", "environment": about, "tasks": {"one": methods, "two": methods}}, tmp_path)
    text = " ".join((tmp_path / "compare.md").read_text().split())
    assert "Blocks of the ranks are a task and a seed (20)" in text
    assert "By Nemenyi's test at 5 % 1 methods" in text
    said = "with only the 2 tasks as blocks, 3 of 3 methods cannot be distinguished from the best (Friedman: p = 0.1)"
    assert said in text


def test_a_run_that_diverged_does_not_hide_the_cost_of_the_others(tmp_path):
    about = {"packages": {"jax": "0"}, "device": "", "cores": 1, "commit": "0"}
    column = lambda test, cost: {"test %": test, "gradient evaluations": cost, "rate": [0.1]}
    methods = {"none": column([80, 81], [1, 1]), "pugd": column([85, 86], [1, 1])}
    methods |= {"sam": column([70, np.nan], [3, np.nan])}
    page.write({"command": "", "environment": about, "tasks": {"noisy": methods}}, tmp_path)
    assert "| `sam` | 3.0 | 70 (1 diverged) | 3.00 |" in (tmp_path / "compare.md").read_text()


def test_a_method_that_diverged_at_some_seeds_is_not_named_by_the_others(tmp_path):
    about = {"packages": {"jax": "0"}, "device": "", "cores": 1, "commit": "0"}
    column = lambda *values: {"test %": list(values), "gradient evaluations": [1.0], "rate": [0.1]}
    methods = {"none": column(80, 81, 80), "pugd": column(90, np.nan, np.nan), "sam": column(60, np.nan, np.nan)}
    page.write({"command": "", "environment": about, "tasks": {"noisy": methods}}, tmp_path)
    text = " ".join((tmp_path / "compare.md").read_text().split())
    assert "Within a point of the best: `none` 80.3. Plain training: 80.3. Diverged: `pugd`, `sam`." in text
    assert "uncorrected: none." in text


def test_a_report_without_numbers_is_told(tmp_path):
    with pytest.raises(UsageError, match="holds no compare"):
        command.main(command.Options(report=True, out=tmp_path), Console(file=io.StringIO()))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"tasks": {}}', '{"tasks": {"one": {"none": {}}}}'])
def test_numbers_that_are_damaged_are_one_line(content, tmp_path, capsys):
    (tmp_path / "compare.json").write_text(content)
    assert main(["compare", "--report", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path}/compare.json: ")
    assert said.count("\n") == 1
