"""Files and the cache folder."""

from pathlib import Path

import pytest

from experiments.files import cache_folder, replacing, write_text


@pytest.mark.parametrize("value", [None, ""])
def test_the_cache_has_a_place_of_its_own_unless_one_is_named(value, monkeypatch):
    monkeypatch.delenv("PUGD_CACHE_DIR", raising=False)
    if value is not None:
        monkeypatch.setenv("PUGD_CACHE_DIR", value)
    assert cache_folder() == Path.home() / ".cache" / "pugd_optax"


def test_text_is_on_the_disk_before_it_replaces_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")
    synced = []
    monkeypatch.setattr("os.fsync", lambda number: synced.append(path.read_text()))
    write_text(path, "new")
    assert synced == ["old"]
    assert path.read_text() == "new"


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path):
    (tmp_path / "file").write_text("old")

    def fails():
        with replacing(tmp_path / "file") as part:
            part.write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fails()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
