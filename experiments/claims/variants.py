"""Variants of a study: configurations that differ from a base in a few settings."""

import dataclasses
from typing import Any

from experiments.config.schema import Config


def method(base: Config, name: str, **options: Any) -> Config:
    """The base configuration with another method; options as on the command line.

    Example:
      >>> method(Config(), "pugd", radius="cosine:2.0:0.0").title
      'pugd(radius=cosine:2.0:0.0)'
    """
    return dataclasses.replace(base, method=name, method_options=tuple((k, str(v)) for k, v in options.items()))


def stretch(config: Config, factor: float) -> Config:
    """The configuration with more epochs, by a factor; schedules given as fractions of the training stretch with it."""
    return dataclasses.replace(config, epochs=round(factor * config.epochs))


def described(config: Config, base: Config) -> str:
    """The method and all other differences from the base, used as folder name; equal configurations share a folder.

    Example:
      >>> described(stretch(method(Config(), "sam", radius=0.1), 2), Config())
      'sam(radius=0.1) epochs=40'
    """
    apart = [
        f"{field.name}={getattr(config, field.name)}"
        for field in dataclasses.fields(Config)
        if not field.name.startswith(("method", "label")) and getattr(config, field.name) != getattr(base, field.name)
    ]
    return " ".join([dataclasses.replace(config, label="").title, *apart])
