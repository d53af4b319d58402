"""The demo, with one small method."""

import dataclasses
import io

from rich.console import Console

from experiments.cli import demo
from experiments.report import rows
from experiments.runs import records


def test_what_an_earlier_demo_left_is_replaced(tmp_path, monkeypatch):
    small = dataclasses.replace(demo.METHODS[0], model="mlp", tensorboard=False)
    monkeypatch.setattr(demo, "METHODS", (small,))
    monkeypatch.setattr(demo, "NOISY", {"clean-labels": "none"})
    for seeds, epochs in ((2, 1), (1, 2)):
        demo.main(demo.Options(seeds=seeds, epochs=epochs, out=tmp_path), Console(file=io.StringIO()))
    (row,) = rows.rows(rows.groups(records.read(tmp_path))["clean-labels"])
    assert row.seeds == 1


def test_without_clean_labels_the_table_of_an_earlier_demo_with_them_is_removed_too(tmp_path, monkeypatch):
    small = dataclasses.replace(demo.METHODS[0], model="mlp", tensorboard=False)
    monkeypatch.setattr(demo, "METHODS", (small,))
    for clean, settings in ((True, {"noisy-labels", "clean-labels"}), (False, {"noisy-labels"})):
        options = demo.Options(seeds=1, epochs=1, clean=clean, out=tmp_path)
        demo.main(options, Console(file=io.StringIO()))
        assert set(rows.groups(records.read(tmp_path))) == settings
