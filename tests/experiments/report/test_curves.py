"""Curves show the numbers of the table."""

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from matplotlib import pyplot as plt

import pugd_optax
from experiments.report import course, curves, rows, tables
from experiments.report.plotting import METHODS, save, styles
from experiments.runs.records import Run

CONFIG = {"dataset": "digits", "model": "mlp", "train_size": None, "noise": "none", "imbalance": "none"}


def run(seed, accuracies):
    metrics = [
        {"epoch": i + 1, "gradient_evaluations": i + 1, "val_accuracy": accuracy}
        for i, accuracy in enumerate(accuracies)
    ]
    result = {"test_accuracy": accuracies[-1], "last_test_accuracy": accuracies[-1], "gradient_evaluations": 2}
    return Run("", "SGD", CONFIG, str(seed), seed, metrics, {**result, "seconds": 1.0}, Path(f"seed{seed}"))


def test_the_band_is_the_interval_of_the_table():
    found = [run(0, [0.5, 0.9]), run(1, [0.6, 0.7]), run(2, [0.6, 0.8])]
    (row,) = rows.rows({"SGD": found})
    with plt.ioff():
        canvas, panel = plt.subplots()
        curves._panel(panel, {"SGD": found}, styles(["SGD"]), "epoch", "epoch")
        corners = np.asarray(panel.collections[0].get_paths()[0].vertices)
        plt.close(canvas)
    ends = corners[corners[:, 0] == 2, 1]
    np.testing.assert_allclose([ends.min(), ends.max()], [row.last.mean - row.last.ci95, row.last.mean + row.last.ci95])
    assert row.last.ci95 > 20


def test_a_report_is_written_although_its_reader_has_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "read", lambda root: [run(0, [0.5, 0.9])])
    monkeypatch.setattr(tables, "unfinished", lambda root: [])
    gone = mock.Mock(width=120)
    gone.print.side_effect = BrokenPipeError
    with pytest.raises(BrokenPipeError):
        tables.show(tmp_path, gone)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["course.png", "curves.png", "report.csv", "report.md"]


def test_the_axis_says_what_the_band_is(tmp_path):
    with plt.rc_context({"svg.fonttype": "none"}):
        path = curves.draw({"": {"SGD": [run(0, [0.5, 0.9])]}}, tmp_path / "curves.svg")
    assert "mean and 95 % confidence interval" in path.read_text()


def test_a_method_has_one_colour_in_every_figure():
    first, second = styles(["PUGD", "SGD", "SAM"]), styles(["a control", "pugd(radius=2.0)", "none", "another"])
    assert first["PUGD"][0] == second["pugd(radius=2.0)"][0]
    assert first["SGD"][0] == second["none"][0]
    assert len({colour for colour, _ in second.values()}) == 4


def test_a_quantity_of_a_method_has_its_colour():
    made = styles(["signal, gradient descent", "signal, PEGR 0.03", "noise, gradient descent", "noise, PEGR 0.03"])
    assert [colour for colour, _ in made.values()] == 2 * [METHODS["sgd"], METHODS["pegr"]]
    assert [dashes for _, dashes in made.values()] == ["-", "-", "--", "--"]


def test_no_other_line_of_a_figure_has_the_colour_of_a_method_in_it():
    assert METHODS["pugd"] not in {colour for colour, _ in styles(["late", "early"], ["PUGD", "late"]).values()}


def test_every_method_has_a_colour_of_its_own():
    assert set(METHODS) == {"sgd", *pugd_optax.methods.__all__}
    assert len(set(METHODS.values())) == len(METHODS)


def test_variants_of_a_method_differ_by_line_style():
    made = styles(["LPG", "LPG, renormalised", "plain", "plain, rate as LPG"])
    assert len(set(made.values())) == 4
    assert len({colour for colour, _ in made.values()}) == 2


def lines(values):
    whole = {"train_loss": 1.0, "val_loss": 1.1, "grad_norm": 2.0, "perturbed_grad_norm": 2.1, "cosine": 0.9}
    return [
        whole | {"epoch": i + 1, "radius": radius, "active": share, "sharpness": 5.0 if i == 1 else None}
        for i, (radius, share) in enumerate(values)
    ]


def test_the_course_shows_what_was_logged_and_no_empty_panel(tmp_path):
    plain = [{"epoch": i, "train_loss": 1.0, "val_loss": 1.1, "radius": None, "active": 0.0} for i in (1, 2)]
    sgd, sam = (run(0, [0.5, 0.9])._replace(title=name) for name in ("SGD", "SAM"))
    groups = {"": {"SGD": [sgd._replace(metrics=plain)]}}
    with plt.rc_context({"svg.fonttype": "none"}):
        text = course.draw(groups, tmp_path / "plain.svg").read_text()
        assert course.PANELS["loss"] in text
        assert course.PANELS["radius"] not in text
        groups[""]["SAM"] = [sam._replace(metrics=lines([(None, 0.0), (0.1, 0.5)]))]
        text = course.draw(groups, tmp_path / "sam.svg").read_text()
    assert all(title in text for title in course.PANELS.values())


def test_what_was_not_measured_is_no_point_of_a_logarithmic_axis(tmp_path):
    idle = [line | {"grad_norm": 0.0, "perturbed_grad_norm": 0.0} for line in lines([(0.0, 1.0), (0.0, 1.0)])]
    assert course.draw({"": {"SGD": [run(0, [0.5, 0.9])._replace(metrics=idle)]}}, tmp_path / "idle.svg").exists()


def test_a_radius_is_drawn_where_there_was_one(tmp_path):
    found = [run(0, [0.5] * 3)._replace(metrics=lines([(None, 0.0), (0.1, 0.5), (0.2, 1.0)]))]
    epochs, radii = course.series(found, lambda line: line["radius"])
    np.testing.assert_array_equal(epochs, [1, 2, 3])
    np.testing.assert_array_equal(radii, [[np.nan, 0.1, 0.2]])


@pytest.mark.parametrize("figure", [curves, course])
def test_the_legend_names_the_methods_of_every_setting_each_with_its_line(figure, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figure, "save", lambda made, path: drawn.append(made))
    whole = lambda title: run(0, [0.5, 0.9])._replace(title=title, metrics=lines([(0.1, 1.0), (0.1, 1.0)]))
    first, second = ("pugd(radius=1)",), ("sgd", "pugd(radius=2)", "pugd(radius=1)")
    for line in (full := [whole(title) for title in second]):
        for i, record in enumerate(line.metrics):
            record |= {"val_accuracy": 0.5, "gradient_evaluations": i + 1}
    by_title = dict(zip(second, full, strict=True))
    groups = {name: {title: [by_title[title]] for title in titles} for name, titles in (("a", first), ("b", second))}
    figure.draw(groups, tmp_path / "figure.png")
    (legend,) = drawn[0].legends
    assert {text.get_text() for text in legend.get_texts()} == set(second)
    of_label = {}
    for axis in drawn[0].axes:
        for shown in axis.lines:
            if not str(shown.get_label()).startswith("_"):
                of_label.setdefault(shown.get_label(), set()).add((shown.get_color(), shown.get_linestyle()))
    assert all(len(looks) == 1 for looks in of_label.values())


def test_a_figure_that_cannot_be_written_leaves_the_one_before_it(tmp_path):
    class Full:
        def savefig(self, path, **how):
            Path(path).write_text("half a")
            raise OSError("No space left on device")

    (tmp_path / "figure.png").write_text("before")
    with pytest.raises(OSError, match="No space left"):
        save(Full(), tmp_path / "figure.png")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("figure.png", "before")]
