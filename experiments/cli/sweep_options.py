"""Settings of a sweep: the options of `train`, with several values separated by commas.

`--method sam,pugd --lr cosine:0.1:0.0,0.05` are four experiments. `--method.radius 0.05,0.1` applies to all methods
that have a radius, `--sam.radius 0.05,0.1` only to SAM. Values of options never contain commas themselves: schedules,
gates and losses are written with colons.
"""

import dataclasses
import inspect
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.cli.options import Word, train_config, words
from experiments.config import presets
from experiments.config.errors import UsageError, did_you_mean, pick
from experiments.config.schema import ELSEWHERE, Config
from experiments.training.optimizer import METHODS

PROBLEM = ("dataset", "model", "norm", "dtype", "noise", "imbalance", "train_size", "val_size")
"""Settings that define the problem: each combination has its own table; all other settings give rows."""
ONE = tuple("--" + name.replace("_", "-") for name in ELSEWHERE if name != "preset")


def settings(argv: Sequence[str]) -> list[tuple[Path, Config]]:
    """The folder of every experiment, and its settings, with a label that distinguishes it from the others."""
    given = words(argv)
    if any(word.name == "--label" for word in given):
        raise UsageError("--label: a sweep labels its rows automatically")
    made = [train_config([text for word in chosen for text in word.argv]) for chosen in _combinations(given)]
    made = [dataclasses.replace(config, out=made[0].out) for config in made]
    return [(_folder(config, made), dataclasses.replace(config, label=_label(config, made))) for config in made]


def _combinations(given: list[Word]) -> list[tuple[Word, ...]]:
    """Every combination of preset, method and the options that this method takes."""
    outer = [word for word in given if word.name in ("--preset", "--method")]
    rest = [word for word in given if word not in outer]
    chosen = list(itertools.product(*map(_choices, outer)))
    names = [_method(words) for words in chosen]
    _check_owners(rest, names)
    return [
        (*first, *combination)
        for first, name in zip(chosen, names, strict=True)
        for combination in itertools.product(*map(_choices, _applicable(rest, name)))
    ]


def _choices(word: Word) -> list[Word]:
    if word.value is None or word.name in ONE:
        return [word]
    return [Word(word.name, value) for value in word.value.split(",")]


def _method(chosen: Sequence[Word]) -> str:
    given = {word.name: word.value or "" for word in chosen}
    name = given.get("--method") or presets.load(given.get("--preset", "none")).method
    pick("method", name, METHODS)
    return name


def _applicable(rest: list[Word], method: str) -> list[Word]:
    """The options for this method; an option given for it by name overrides one for every method."""
    parameters = inspect.signature(METHODS[method]).parameters
    kept: dict[str, Word] = {}
    for word in sorted(rest, key=lambda word: not word.name.startswith("--method.")):
        owner, dot, option = word.name.removeprefix("--").partition(".")
        if not dot or owner == "optimizer":
            kept[word.name] = word
        elif owner == method or (owner == "method" and option.replace("-", "_") in parameters):
            kept[option] = Word(f"--method.{option}", word.value)
    return list(kept.values())


def _check_owners(rest: list[Word], methods: list[str]) -> None:
    """Refuse an option that no method of the sweep takes."""
    for word in rest:
        owner, dot, option = word.name.removeprefix("--").partition(".")
        if not dot or owner == "optimizer":
            continue
        if owner not in ("method", *methods):
            close = did_you_mean(owner, ["method", "optimizer", *methods])
            raise UsageError(f"{word.name}: {owner} is not a method of this sweep{close}")
        known = [
            k for name in methods if owner in ("method", name) for k in inspect.signature(METHODS[name]).parameters
        ]
        if option.replace("-", "_") not in known:
            close = did_you_mean(option, known)
            raise UsageError(f"{word.name}: no method of this sweep takes {option}{close}")


def _varying(made: list[Config]) -> list[str]:
    skip = (*ELSEWHERE, "label", "method", "method_options")
    names = [field.name for field in dataclasses.fields(Config) if field.name not in skip]
    return [name for name in names if len({getattr(config, name) for config in made}) > 1]


def _label(config: Config, made: list[Config]) -> str:
    """Method, options, and everything else that differs between the rows."""
    recipe = presets.load(config.preset) if len({c.preset for c in made}) > 1 else None
    names = [name for name in _varying(made) if name not in PROBLEM]
    names = [name for name in names if recipe is None or getattr(config, name) != getattr(recipe, name)]
    paper = [config.preset] if recipe and config.preset != "none" else []
    return ", ".join([*paper, config.title, *(f"{name}={_shown(getattr(config, name))}" for name in names)])


def _folder(config: Config, made: list[Config]) -> Path:
    assert config.out is not None
    parts = [f"{name}={_shown(getattr(config, name))}" for name in _varying(made) if name in PROBLEM]
    return config.out / re.sub(r"[^\w.,=+-]+", "_", ",".join(parts))


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(f"{k}={v}" for k, v in value) + ")"
    return f"{value}"
