"""Fuzzing the command line with its own words in wrong places: every command gives a result or a one-line error."""

import dataclasses
import inspect
import os
import random
from typing import Any

import pytest

import pugd_optax.methods
from experiments.bench import command as bench
from experiments.claims import command as claims
from experiments.cli import main as cli
from experiments.config.errors import Stopped, UsageError, pick
from experiments.config.presets import notes
from experiments.config.schedules import GATES, MASKS, SCHEDULES
from experiments.config.schema import Config
from experiments.data import LOADERS
from experiments.data.corruption import IMBALANCES, NOISES
from experiments.models.functional import Network
from experiments.models.zoo import MODELS
from experiments.training import experiment, objective, optimizer, profile, sweep

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "15"))
"""The number of command lines to try, with twice as many settings; `FUZZ_EXAMPLES=5000 pytest FILE` runs longer."""
FIRST = int(os.environ.get("FUZZ_SEED", "0")) << 32
"""The first seed; each value of `FUZZ_SEED` gives different words."""

DOTTED = ("radius", "when", "mask", "rule", "edit", "penalty", "inner", "strength", "alpha", "sigma", "x")
OPTIONS = [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Config)]
OPTIONS += [f"--method.{name}" for name in DOTTED]
OPTIONS += [
    "--optimizer.nesterov",
    "--optimizer.b1",
    "--sam.radius",
    "--no-checksum",
    "--no-resume",
    "--scale",
    "--torch",
]
OPTIONS += [
    "--stop-on-failure",
    "--method.",
    "--.",
    "--method.radius.x",
    "-h",
    "--help",
    "-x",
    "--",
    "---",
    "--=",
    "=--",
]
POOLS = {
    **{name: [*SCHEDULES] for name in ("lr", "radius", "strength", "alpha", "sigma")},
    **{name: [*pugd_optax.methods.__all__] for name in ("method", "inner")},
    "when": [*GATES],
    "mask": [*MASKS],
    "noise": [*NOISES],
    "imbalance": [*IMBALANCES],
    "dataset": [*LOADERS],
    "model": [*MODELS],
    "optimizer": [*optimizer.OPTIMIZERS],
    "loss": [*objective.LOSSES],
    "reweight": [*objective.REWEIGHTS],
    "flooding": ["none", "flood", *objective.OF_EXAMPLES],
    "preset": [*notes()],
}
"""The names that are valid values, by option."""
NAMES = [name for pool in POOLS.values() for name in pool] + [*cli.COMMANDS]
NUMBERS = ["0", "1", "-1", "2", "0.5", "1e-3", "0.9", "10", "1e400", "-1e400", "nan", "-nan", "inf", "-0.0", "0x10"]
NUMBERS += ["1_000", "1e9", "1.", "٣", "²", "2147483647", "2147483648", "-2147483649", "9" * 30, "9" * 5000]
NUMBERS += ["true", "false", "none", "None"]
ODD = ["", " ", ".", "..", "/", "~", "[/red]", "[bold]", "[link=x]", "$", "$\\foo$", "%s", "{}", "{0.x}", "\\", "'"]
ODD += ['"', "a\nb", "\x1b[31m", "\0", "\udcff", "é", "日本", "a" * 3000, ",", ":", "::", "=", "a=b", "a:b=c", ":=:"]
STARTS = {
    "train": "--method pugd --method.radius cosine:1:0 --lr 0.1 --epochs 2 --model mlp --noise symmetric:0.2 --label x",
    "sweep": "--method none,sam --sam.radius 0.05,0.1 --lr cosine:0.1:0.0,0.05 --model mlp --epochs 1 --seeds 2",
    "profile": "--method sam --model mlp --epochs 1",
    "claims": "gr.bias --scale smoke",
    "bench": "steps --out out",
    "demo": "--epochs 1 --seeds 1",
    "presets": "pugd",
    "report": "nowhere",
    "reproduce": "pugd",
}


def word(how: random.Random, option: str = "") -> str:
    """Return a name or number that suits the option, with arguments that may fit; or any words, possibly joined."""
    one = lambda: how.choice(how.choice([NAMES, NUMBERS, ODD, OPTIONS]))
    pool = POOLS.get(option.rpartition(".")[2].removeprefix("--"), NUMBERS)
    if how.random() < 0.7:
        return ":".join([how.choice(pool), *(how.choice([*NUMBERS[:8], one()]) for _ in range(how.randrange(5)))])
    return how.choice([":", ",", "=", ""]).join(one() for _ in range(how.choice([1, 1, 1, 2, 3])))


def line(how: random.Random) -> list[str]:
    """Return a valid command after one to four random edits: words are changed, added, dropped or moved."""
    command = how.choice(["train", "train", "train", "train", "sweep", *STARTS])
    argv = [command, *STARTS[command].split()]
    for _ in range(how.choice([1, 1, 1, 2, 4])):
        at = how.randrange(len(argv)) if how.random() < 0.1 else how.randrange(1, len(argv) + 1)
        kind = how.choice(["value", "value", "value", "value", "option", "option", "change", "drop", "move", "insert"])
        if kind == "value":
            options = [i + 1 for i, text in enumerate(argv) if text.startswith("--") and i + 1 < len(argv)]
            place = how.choice(options) if options else -1
            argv[place] = word(how, argv[place - 1])
        elif kind == "option":
            option = how.choice(OPTIONS)
            argv += [option, word(how, option)]
        elif kind == "insert":
            argv.insert(at, word(how))
        elif kind == "move":
            argv.insert(at, argv.pop(how.randrange(len(argv))))
        elif kind == "change" and at < len(argv):
            argv[at] = word(how)
        elif len(argv) > 2:
            argv.pop(min(at, len(argv) - 1))
    return argv


@pytest.fixture
def checked_alone(monkeypatch, tmp_path):
    """Replace tracing, training and measuring, so that settings are only read and checked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PUGD_DATA_DIR", raising=False)

    def prepare(jobs, *more):
        for _, config in jobs:
            experiment.prepare(config)
        raise Stopped("checked", 0)

    monkeypatch.setattr(sweep, "run", prepare)
    monkeypatch.setattr(profile, "profile", lambda config, out: prepare([(out, config)]))
    monkeypatch.setattr(
        experiment, "network", lambda model, *more, **options: Network(pick("model", model, MODELS), id)
    )
    monkeypatch.setattr(experiment, "_trace", lambda *args: None)
    monkeypatch.setattr(cli, "_keep_compiled", lambda: None)
    monkeypatch.setattr(cli, "_join_others", lambda *args: None)
    monkeypatch.setattr(claims, "_run", lambda *args: None)
    for part in bench.PARTS.values():
        monkeypatch.setattr(part, "main", lambda *args: None)


@pytest.mark.usefixtures("checked_alone")
def test_whatever_the_words_there_is_a_result_or_one_line(capsys):
    for seed in range(FIRST, FIRST + EXAMPLES):
        argv = line(random.Random(seed))
        try:
            status = cli.main(argv)
        except SystemExit as stop:  # --help
            status = stop.code
        said = capsys.readouterr().err
        assert status in (0, 2, 128), argv
        complaints = [text for text in said.splitlines() if text.startswith("error: ")]
        assert len(complaints) == (status == 2), (argv, said)
        assert len(said.splitlines()) <= 2, (argv, said)


TEXTS = ("lr", "optimizer", "loss", "reweight", "flooding", "dataset", "noise", "imbalance", "model", "label")


def settings(how: random.Random) -> dict[str, Any]:
    """Return valid settings with one to three random changes."""
    method = how.choice([*pugd_optax.methods.__all__])
    made: dict[str, Any] = {"model": "mlp", "method": method, "epochs": 2, "devices": 1, "method_options": ()}
    for _ in range(how.choice([1, 1, 2, 3])):
        if how.random() < 0.5:
            name = how.choice(TEXTS)
            made[name] = word(how, name)
        else:
            name = how.choice([*inspect.signature(getattr(pugd_optax, method)).parameters, *DOTTED])
            made["method_options"] += ((name, word(how, name)),)
    return made


@pytest.mark.slow
@pytest.mark.usefixtures("checked_alone")
@pytest.mark.filterwarnings("default")  # Optax warns about some schedules
def test_settings_are_an_experiment_or_one_line():
    refused = 0
    for seed in range(FIRST, FIRST + 2 * EXAMPLES):
        try:
            experiment.prepare(Config(**settings(random.Random(seed))))
        except UsageError:
            refused += 1
    assert 0 < refused < 2 * EXAMPLES
