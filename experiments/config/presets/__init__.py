"""Recipes of the papers, one per file: the docstring is the lab note, `CONFIG` the settings."""

import dataclasses
import importlib
import pkgutil
from typing import Any

from experiments.config.errors import pick
from experiments.config.schema import Config


def notes() -> dict[str, str]:
    """The names of the papers' recipes, with their notes."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: (_module(name).__doc__ or "").strip() for name in found}


def load(name: str) -> Config:
    """The settings with this name; `none` stands for the defaults."""
    if name == "none":
        return Config()
    pick("preset", name, {"none": "", **notes()})
    return dataclasses.replace(_module(name).CONFIG, preset=name)


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")
