"""Error messages of the experiments: each names the option, its value and the fix.

Errors of the command line are raised here by wrong commands. Errors about files and machines are raised in other tests;
here only their text is checked, in the source.
"""

import ast
import re
import shlex

import numpy as np
import pytest

from experiments import data
from experiments.cli import main as cli, options
from experiments.config.errors import Diverged, UsageError
from experiments.config.specs import spec
from experiments.runs import tracker
from experiments.runs.state import Progress
from experiments.training import experiment
from experiments.training.metrics import check_finite
from tests.raises import ROOT, Case, meet, sites

SMALL = "--dataset digits --train-size 40 --val-size 10 --batch 10 --model mlp --epochs 1 --devices 1"


def settings(words, *, small=SMALL):
    """Return a function that reads these settings and makes every check that precedes a run."""
    return lambda: experiment.prepare(options.train_config(shlex.split(f"{small} {words}")))


def command(words):
    """Return a function that runs a command as `main` does, but does not catch its error."""
    return lambda: cli._dispatch(shlex.split(words), cli.Console(quiet=True))


CASES = [
    Case(command("trian"), "command", "'trian'", "did you mean 'train'?"),
    Case(command("report"), "report", "FOLDER", "usage: python -m experiments report"),
    Case(command("presets pugd sam"), "presets", "found 2 words", "usage: python -m experiments presets [NAME]"),
    Case(command("train --epochs 0"), "--epochs", "0", "expected at least 1"),
    Case(command("train --epoch 3"), "unknown option", "'--epoch'", "did you mean '--epochs'?"),
    Case(command("train --epochs many"), "--epochs", "many", "invalid"),
    Case(command("train --method.radius"), "--method.radius", "needs", "a value"),
    Case(command("train --momentum 1"), "--momentum", "1.0", "expected a number in [0, 1)"),
    Case(command("train --weight-decay -1"), "--weight-decay", "-1.0", "expected a number >= 0"),
    Case(command("train --checkpoint-every -1"), "--checkpoint-every", "-1", "expected a number of epochs, or 0"),
    Case(command("train --checkpoint-minutes 0"), "--checkpoint-minutes", "0", "expected a number > 0"),
    Case(command("train --sharpness -1"), "--sharpness", "-1", "expected a number of epochs, or 0"),
    Case(lambda: tracker.refuse_missing("a_tracker"), "--tracker", "a_tracker", "Fix: pip install a_tracker"),
    Case(command("train --first-seed -1"), "--first-seed", "-1", "expected a whole number from 0"),
    Case(command("train --first-seed 2147483647 --seeds 2"), "--first-seed", "2147483647", "from 0 to 2**31 - 2"),
    Case(command("train --distributed"), "--distributed", "folder", "--out FOLDER"),
    Case(command("train --resume"), "--resume", "folder", "--out FOLDER"),
    Case(command("train --preset sma"), "preset", "'sma'", "Known:"),
    Case(command("sweep --method sgd --label x"), "--label", "a sweep labels its rows", "automatically"),
    Case(command("claims gr.bais"), "claim", "'gr.bais'", "did you mean 'gr.bias'?"),
    Case(command("claims report --out nowhere"), "--out", "nowhere", "run `claims all`"),
    Case(settings("--method pudg"), "method", "'pudg'", "did you mean 'pugd'?"),
    Case(settings("--method pugd --method.radias 1"), "option", "'radias'", "did you mean 'radius'?"),
    Case(settings("--method lpg --method.axis_name -1e400"), "axis_name", "-inf", "leave it out"),
    Case(settings("--method lpg --method.inner lpl:axis_name=data"), "axis_name", "data", "leave it out"),
    Case(settings("--method pugd --method.radius -1"), "radius", "-1", "expected one finite number >= 0"),
    Case(
        settings("--method pugd --method.radius cosine:1"),
        "--method.radius",
        "cosine:1: needs min",
        "expected cosine:max:min[:cycles=1]",
    ),
    Case(
        settings("--method pugd --method.radius cosine:1:0:1:1:1"),
        "--method.radius",
        "cosine:1:0:1:1:1",
        "cosine:max:min[",
    ),
    Case(
        settings("--method pugd --method.radius piecewise_interpolate:cosine:1:2"),
        "--method.radius",
        "piecewise_interpolate:cosine:1:2: AttributeError",
        "expected piecewise_interpolate:",
    ),
    Case(settings("--epochs 1000000000"), "--epochs", "1000000000", "expected less than 2**31"),
    Case(settings("--seeds 1000000000"), "--seeds", "1000000000", "expected at most 10000"),
    Case(command("train --seeds-at-once 0"), "--seeds-at-once", "0", "expected at least 1"),
    Case(
        command("train --model mlp --devices 1 --seeds 2 --seeds-at-once 2 --method ae_sam"),
        "--seeds-at-once 2",
        "--method ae_sam",
        "leave the option out",
    ),
    Case(settings("--method pugd --method.when after:1.5"), "--method.when", "after:1.5", "expected 0 to 1"),
    Case(settings("--lr fast"), "--lr", "fast: neither a number nor a schedule", "such as cosine:0.1:0.0"),
    Case(settings("--optimizer sdg"), "optimizer", "'sdg'", "did you mean 'sgd'?"),
    Case(settings("--optimizer lbfgs"), "--optimizer", "lbfgs", "choose another, such as sgd"),
    Case(settings("--optimizer schedule_free_sgd"), "--optimizer", "schedule_free_sgd", "choose another, such as sgd"),
    Case(settings("--optimizer rprop"), "--optimizer", "rprop: takes no schedule", "such as --lr 0.01"),
    Case(settings("--optimizer.learning_rate 0.5"), "--optimizer.learning_rate", "0.5", "use --lr 0.5"),
    Case(settings("--optimizer.nesterov maybe"), "nesterov", "'maybe'", "expected true or false"),
    Case(settings("--lr -0.1"), "--lr", "-0.1", "expected finite numbers >= 0"),
    Case(settings("--lr cosine:0.1:nan"), "--lr cosine:0.1:nan", "nan in", "expected finite numbers >= 0"),
    Case(settings("--model resnet9"), "model", "'resnet9'", "did you mean 'resnet"),
    Case(settings("--loss focall"), "loss", "'focall'", "did you mean 'focal'?"),
    Case(settings("--noise symmetric:2"), "--noise", "symmetric:2", "a number in [0, 1]"),
    Case(settings("--imbalance exp:0.5"), "--imbalance", "exp:0.5", "a number >= 1"),
    Case(settings("--cutout -1"), "--cutout", "-1", "expected numbers >= 0"),
    Case(settings("--cutout 9"), "--cutout", "9: larger than the images", "8 x 8"),
    Case(settings("--train-size 5000"), "5000 training", "10 validation", "a smaller --train-size"),
    Case(settings("--batch 100"), "--batch", "100", "larger than the 40 training examples"),
    Case(settings("--devices 99"), "--devices", "99: only", "available"),
    Case(settings("--devices 3"), "--batch", "10", "--devices 2, or another batch"),
    Case(settings("--accumulate 3"), "--accumulate", "3", "does not divide the 10 examples"),
    Case(settings("--method pegr --method.strength 0.1 --flooding flood:0.1"), "--flooding", "flood:0.1", "use iflood"),
    Case(settings("--dataset mnist --no-checksum"), "train-images-idx3-ubyte", "no data folder given", "--data-dir"),
    Case(settings("--dataset mnsit"), "data set", "'mnsit'", "did you mean 'mnist'?"),
    Case(settings("--dataset mnist --data-dir nowhere"), "nowhere", "no such file", "nor "),
    Case(settings("--lr true"), "--lr", "True: neither a number nor a schedule", "such as cosine:0.1:0.0"),
    Case(settings("--method SAM"), "method", "'SAM'", "did you mean 'sam'? Usage: --method sam [--method.radius"),
    Case(settings("--method pegr"), "--method pegr", "needs strength", "--method.strength STRENGTH"),
    Case(settings("--noise symmetric"), "--noise", "needs share", "expected symmetric:share"),
    Case(settings("--reweight drw"), "--reweight", "needs start", "expected drw:start[:beta=0.9999]"),
]


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """Run every test in an empty folder and without a data folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PUGD_DATA_DIR", raising=False)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.argument}-{case.value}")
def test_message_names_option_value_and_fix(case, tmp_path):
    assert meet(case, UsageError).path.startswith("experiments/")
    assert not list(tmp_path.iterdir()), "something was written before the mistake was found"


def texts(path: str, line: int) -> list[str]:
    """Return the source text of the strings and names in the `raise` statement at a line."""
    tree = ast.parse((ROOT / path).read_text())
    (node,) = [n for n in ast.walk(tree) if isinstance(n, ast.Raise) and n.lineno == line]
    return [ast.unparse(part) for part in ast.walk(node) if isinstance(part, ast.JoinedStr | ast.Constant | ast.Name)]


@pytest.mark.parametrize("site", sites("experiments"), ids=str)
def test_every_message_holds_a_value_or_an_option(site):
    """Each `raise` in the source inserts a value or names an option, or gives the words to type."""
    said = " ".join(texts(site.path, site.first))
    assert re.search(r"\{|--|usage:|what|unknown|_one_line", said), f"{site}: {said}"


@pytest.mark.parametrize(("method", "fix"), [("none", "--lr"), ("sam", "--lr or --method.radius")])
def test_a_run_that_diverges_says_where_and_what_to_try(method, fix):
    prepared = settings(f"--lr 0.1 --method {method}")()
    at = Progress(metrics={"loss": [0.5, 0.5, 0.5, np.nan]})
    with pytest.raises(
        Diverged, match=rf"{method}, seed 7: the loss is nan at step 3 \(epoch 1\); a smaller {fix} may"
    ):
        check_finite(prepared, at, None, seed=7)


@pytest.mark.parametrize("words", ["trian", "train --epochs 0", "train --model resnet9", "report nowhere"])
def test_the_command_line_says_it_in_one_line_and_exits_with_2(words, capsys):
    assert cli.main(words.split()) == 2
    said = capsys.readouterr()
    assert re.fullmatch(r"error: [^\n]+\n", said.err)


def test_an_unknown_data_set_does_not_reach_for_a_file():
    with pytest.raises(UsageError, match="unknown data set"):
        data.load(spec("imagenet"), None)
