"""A separate cache folder for every test of data."""

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PUGD_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
