"""Every claim at smoke scale with fresh seeds, and its lab note."""

import functools
import json
import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import pyplot as plt
from rich.console import Console

from experiments.claims import catalog, command, figure, page
from experiments.claims.claim import Choice, Finding, Line, Panel, Power, Saved, Trainings, load, save
from experiments.claims.conditions import exact, judge
from experiments.claims.overview import HOURS, overview, seeds
from experiments.claims.theory import pegr_variance, two_patches
from experiments.config.errors import Stopped, UsageError
from experiments.report.stats import below, interval, show
from tests.tiers import slow_but

pytestmark = pytest.mark.xdist_group("claims")  # one worker, so that cached results are computed once
FRESH = 7_000
QUICK = ("lpg.classes", "pegr.real", "pegr.variance")
"""Claims that take less than a second at smoke scale."""


@functools.cache
def smoke(name: str) -> Finding:
    with jax.numpy_rank_promotion("allow"):
        return catalog.claims()[name].run("smoke", FRESH)


def mean(name: str, row: str, column: str) -> float:
    return float(np.mean(smoke(name).rows[row][column]))


@pytest.mark.parametrize("name", slow_but(QUICK, (name for name in catalog.claims() if not catalog.trained(name))))
def test_finds_numbers_panels_and_conditions(name):
    finding = smoke(name)
    assert finding.conditions
    assert all(np.isfinite(c.estimate) for c in finding.conditions)
    assert finding.reading
    for panel in finding.panels:
        assert all(len(line.x) == len(line.y) for line in panel.lines)
    assert all(np.isfinite(values).all() for row in finding.rows.values() for values in row.values())


@pytest.mark.parametrize("name", catalog.claims())
def test_lab_note_says_what_decides(name):
    note = catalog.note(name)
    assert "https://" in note
    assert all(
        word in note for word in ("**Statement.**", "**Setting", "**Hyperparameters.**", "**Success criteria.**")
    )
    assert not re.search(r"<[a-z]", note), "a page takes it for HTML and shows nothing"


@pytest.mark.slow
def test_pegr_learns_the_signal():
    error = functools.partial(mean, "pegr.signal", column="test error")
    assert error("PEGR 0.03") < 0.1 < 0.4 < error("gradient descent")


def test_a_diverged_network_has_no_variance():
    x, y = two_patches.examples(jax.random.key(0), 4, 1.0, 8)
    start = two_patches.start(jax.random.key(1), 8)
    assert all(np.isnan(value) for value in pegr_variance._watch(jnp.nan * start, start, x, y))


@pytest.mark.slow
def test_noise_is_an_l1_penalty():
    error = functools.partial(mean, "noise.explicit", column="error")
    assert error("noise, sigma 0.1") < 0.01 < 10 < error("gradient descent")


@pytest.mark.slow
def test_noise_is_a_nuclear_norm():
    found, theory = (mean("noise.explicit", "two layers, sigma 0.2", c) for c in ("norm", "of theory"))
    assert abs(found / theory - 1) < 0.1


@pytest.mark.slow
def test_noise_is_a_group_norm():
    found, theory = (mean("noise.explicit", "groups, sigma 0.3", c) for c in ("norm", "of theory"))
    assert abs(found / theory - 1) < 0.1


@pytest.mark.slow
def test_noise_on_all_weights_grows_with_the_width():
    deviation = functools.partial(mean, "noise.variance", column="standard deviation")
    assert deviation("all weights, width 6000") > 1.5 * deviation("all weights, width 20")
    assert deviation("all weights, width 6000") > 1.5 * deviation("layer by layer, width 6000")


def test_order_of_regularisers():
    start = functools.partial(mean, "gr.bias", column="effective start")
    order = ("backward, step 1", "gradient descent", "exact", "forward, step 0.3", "forward, step 3")
    assert sorted(order, key=start, reverse=True) == list(order)
    assert mean("gr.bias", "exact", "error") < mean("gr.bias", "gradient descent", "error")


@pytest.mark.slow
def test_flooding_is_gradient_regularisation():
    assert judge(smoke("gr.flooding").conditions)[0].result == "holds"


@pytest.mark.parametrize(("claim", "network"), [("gr.cost", "MLP 64"), ("gr.depth", "MLP 6 x 64")])
def test_difference_needs_fewer_operations(claim, network):
    flops = functools.partial(mean, claim, column="FLOPs")
    assert flops(f"{network}, forward") < flops(f"{network}, double backpropagation")


@pytest.mark.slow
def test_delta_is_proportional_to_a_small_radius():
    assert all(c.estimate > 0 for c in smoke("unify.table").conditions if "slope" in c.statement)


@pytest.mark.slow
@pytest.mark.parametrize("claim", ["bound.pac", "bound.prior", "lpg.bound"])
def test_bound_holds(claim):
    assert judge(smoke(claim).conditions)[0].result == "holds"


def made() -> Saved:
    line = Line("a", [1.0, 2.0], [[1.0, 2.0], [3.0, float("nan")]])
    finding = Finding({"r": {"c": [1.0, 3.0]}}, [Panel("t", "x", "y", [line])], [exact("so", 1.5)], "Read.")
    about = {"packages": {"jax": "1.2.3"}, "device": "1 x cpu (cpu)", "cores": 2, "commit": "0123456789abcdef"}
    trained = Trainings(12, 34.5, ["abc"], {"1 x gpu with JAX 0.11.2": 2, "1 x cpu (cpu) with JAX 1.2.3": 10})
    choice = Choice("data", "SGD", {"rate": [0.1, 0.3]}, {"rate": 0.3}, ["rate"], [90.0, 92.0])
    power = Power("data", 2.0, 64, 30)
    return Saved(
        "pegr.signal", "command", "full", 1.0, trained, about, finding._replace(choices=[choice], powers=[power])
    )


def test_saved_finding_comes_back(tmp_path):
    save(made(), tmp_path)
    json.loads((tmp_path / "pegr.signal.json").read_text(), parse_constant=pytest.fail)
    np.testing.assert_equal(load(tmp_path / "pegr.signal.json"), made())


def test_a_finding_saved_before_its_machines_were_recorded_is_read(tmp_path):
    path = tmp_path / "pegr.signal.json"
    save(made(), tmp_path)
    content = json.loads(path.read_text())
    del content["trainings"]["machines"]
    path.write_text(json.dumps(content))
    assert load(path).trainings == Trainings(12, 34.5, ["abc"])
    assert "34 s, at commit abc; JAX 1.2.3" in page.write(tmp_path).read_text()


def test_page_is_written_from_what_was_saved(tmp_path):
    save(made(), tmp_path)
    text = page.write(tmp_path).read_text()
    assert "Verdicts on 1 claims: holds here 1." in text
    assert "- holds (paper): so (1.5; asked: above 0; exact)" in text
    statement, reading = text.index("\nPEGR learns the signal"), text.index("**holds here.** Read.")
    assert text.index("## pegr.signal") < statement < reading < text.index("**Statement.**")
    assert "2 ± 13" in text
    assert "| data: SGD | 0.1 **0.3** | 91 ± 13 |" in text
    assert "On an edge of the grid all the same: data, SGD: rate." in text
    assert "asks for 64 seeds; at most 30 were taken" in text
    trainings = "12 trainings, 34 s, at commit abc, 2 on 1 x gpu with JAX 0.11.2, 10 on 1 x cpu (cpu) with JAX 1.2.3"
    assert f"{trainings}; JAX 1.2.3, 1 x cpu (cpu), 2 cores, commit 0123456789ab." in text
    assert (tmp_path / "pegr.signal.png").stat().st_size > 1000


def test_seeds_of_settings_with_different_numbers_are_all_told():
    rows = {"a": {"x": [1.0]}, "b": {"x": [1.0, 2.0, 3.0], "y": [1.0]}}
    finding = made().finding
    assert seeds(made()) == "2 seeds"
    assert seeds(made()._replace(finding=finding._replace(rows=rows))) == "1 to 3 seeds"


def test_a_point_at_which_too_many_runs_diverged_is_not_drawn():
    line = Line("a", [1.0, 2.0], [[1.0] * 10, [1.0, float("nan")] * 5])
    axis = plt.figure().add_subplot()
    figure._curves(axis, Panel("", "epoch", "", [line]))
    np.testing.assert_equal(axis.lines[0].get_ydata(), [1.0, np.nan])


def test_an_axis_is_logarithmic_only_if_its_range_is_wide():
    for low, scale in ((0.9, "linear"), (0.4, "log")):
        axis = plt.figure().add_subplot()
        figure._curves(axis, panel := Panel("", "radius", "", [Line("a", [1.0, 2.0], [[low], [1.0]])], "y"))
        figure._scales(axis, panel)
        assert axis.get_yscale() == scale


def test_interval_is_students():
    values = [1.0, 2.0, 4.0, 7.0, float("inf")]
    half = 3.182446305284263 * np.std(values[:4], ddof=1) / 2
    np.testing.assert_allclose(interval(values), (3.5, half, 1))
    assert show(values) == "3.5 ± 4.2 (1 diverged)"


def test_below_needs_the_whole_interval():
    assert below([1.0, 2.0, 3.0], [2.0, 3.1, 3.9])
    assert not below([1.0, 2.0, 3.0], [2.0, 3.0, 2.0])
    assert not below([1.0], [2.0])


def test_unknown_claim_and_empty_folder_are_answered(tmp_path):
    with pytest.raises(UsageError, match=r"did you mean 'pegr\.signal'"):
        command.main(command.Options("pegr.signl", out=tmp_path), Console())
    with pytest.raises(UsageError, match="contains no findings"):
        command.main(command.Options("report", out=tmp_path), Console())


def test_what_cannot_be_kept_is_refused_before_it_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "find", lambda *_: pytest.fail("computed"))
    (tmp_path / "file").touch()
    save(made(), tmp_path)
    for options, message in (
        (command.Options("gr.bias", out=tmp_path / "file"), "not a folder"),
        (command.Options("pegr.signal", scale="smoke", out=tmp_path), "holds pegr.signal at --scale full"),
        (
            command.Options("rts.all", first_seed=199, out=tmp_path),
            "--first-seed 199: hyperparameters are",
        ),
    ):
        with pytest.raises(UsageError, match=message):
            command.main(options, Console())


@pytest.mark.parametrize(("scale", "expected"), [("paper", [True]), ("full", [])])
def test_freed_memory_is_kept_for_large_batches_only(tmp_path, monkeypatch, scale, expected):
    asked = []
    monkeypatch.setattr(command, "keep_freed", lambda: asked.append(True))
    monkeypatch.setattr(command, "_run", lambda *_: None)
    command.main(command.Options("real.clean", scale=scale, out=tmp_path), Console())
    assert asked == expected


def test_other_files_in_the_folder_of_findings_are_told(tmp_path):
    (tmp_path / "compare.json").write_text("{}")
    with pytest.raises(UsageError, match=r"compare\.json: no finding of `claims`"):
        command.main(command.Options("report", out=tmp_path), Console())


def test_a_signal_before_the_budget_is_used_up_ends_claims_without_steps_too(tmp_path, monkeypatch):
    found = lambda *_: signal.raise_signal(signal.SIGINT) or made().finding
    monkeypatch.setattr(catalog, "find", found)
    with pytest.raises(Stopped, match="SIGINT"):
        command.main(command.Options("all", out=tmp_path, budget_minutes=5), Console(quiet=True))
    assert len(list(tmp_path.glob("*.json"))) == 1


@pytest.mark.slow
def test_a_claim_leaves_finding_page_and_provenance(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("PUGD_DATA_DIR", raising=False)  # it would be part of the command
    with jax.numpy_rank_promotion("allow"):
        command.main(command.Options("lpg.balanced", "smoke", FRESH, tmp_path), Console(width=200))
    saved = load(tmp_path / "lpg.balanced.json")
    assert saved.command == f"python -m experiments claims lpg.balanced --scale smoke --first-seed {FRESH}"
    lines = (tmp_path / "ledger" / "lpg.balanced.jsonl").read_text().splitlines()
    assert saved.trainings.count == len(lines) == 8
    assert saved.trainings.commits == [saved.environment["commit"]]
    assert f"{saved.trainings.count} trainings" in (tmp_path / "results.md").read_text()
    assert "lpg.balanced: " in capsys.readouterr().out


def test_every_claim_that_waits_is_listed_with_its_command():
    lines = {line.split("|")[3].split("`")[1]: line for line in overview([]).splitlines() if "not run yet" in line}
    assert set(lines) == set(catalog.claims())
    for name, hours in HOURS.items():
        assert f"claims {name} --scale paper`; about {hours} hours on two CPU cores" in lines[name]
