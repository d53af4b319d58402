"""Every test of data has a cache folder of its own."""

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PUGD_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
