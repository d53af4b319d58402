"""The benchmark: what it compares, what it computes from times and programs, what it writes."""

import json
import re
from pathlib import Path

import chex
import jax
import numpy as np
import optax
import pytest
from matplotlib import pyplot as plt
from rich.console import Console

import pugd_optax
from experiments.bench import (
    all_devices,
    clock,
    command,
    compilation,
    devices,
    fraction,
    growth,
    problems,
    result as files,
    steps,
)
from experiments.bench.candidates import COMPARISONS, STEPS
from experiments.config.errors import UsageError

QUIET = Console(quiet=True)


def test_every_comparison_is_of_known_steps():
    assert {name for c in COMPARISONS for name in (c.name, c.against)} == set(STEPS)
    assert len({(c.name, c.against) for c in COMPARISONS}) == len(COMPARISONS)


def test_ratio_is_taken_repeat_by_repeat():
    """Every ratio is 2 even if the machine slows down, since both steps of a repeat slow down alike."""
    reference = np.array([1.0, 5.0, 2.0, 9.0])
    assert clock.ratio(2 * reference, reference) == (2.0, 2.0, 2.0)


def test_interleaving_runs_all_in_turn_forth_and_back():
    seen = []
    runs = {name: lambda name=name: seen.append(name) for name in "abc"}
    assert {len(times) for times in clock.interleave(runs, repeats=3).values()} == {3}
    assert "".join(seen) == "abc" + "cba" + "abc" + "cba"


@pytest.mark.parametrize("name", STEPS)
def test_every_step_compiles_and_moves_the_parameters(name):
    problem = problems.problem("mlp8:8")
    compiled = clock.compile_step(STEPS[name], problem)
    params, _ = compiled.run(*compiled.start, problem.inputs, problem.labels)
    assert all(np.isfinite(layer["kernel"]).all() for layer in params)
    assert not np.array_equal(params[-1]["kernel"], problem.params[-1]["kernel"])


def test_flops_show_one_and_two_gradients():
    problem = problems.mlp(32, 64)
    flops = {name: clock.compile_step(STEPS[name], problem).flops for name in ("SGD", "pugd", "lpg")}
    assert 1.8 < flops["pugd"] / flops["SGD"] < 2.3
    assert 0.9 < flops["lpg"] / flops["SGD"] < 1.2


def test_what_is_not_reported_is_not_computed():
    problem = problems.mlp(32, 8)
    told, silent = (clock.compile_step(STEPS[name], problem) for name in ("sam, report", "sam"))
    assert silent.bytes < told.bytes
    assert silent.temporary_bytes <= told.temporary_bytes - 4 * problem.size


def test_steps_writes_rows_with_their_references_and_a_picture(tmp_path):
    command.main(
        ["steps", "--problems", "mlp8:8", "--only", "pugd", "--repeats", "2", "--out", str(tmp_path)],
        QUIET,
    )
    report = json.loads((tmp_path / "steps.json").read_text())
    (row,) = report["results"][0]["rows"]
    assert (row["name"], row["against"]) == ("pugd", "two gradients")
    assert row["ratio"] > 0
    assert (tmp_path / "steps.png").stat().st_size > 1000


@pytest.mark.parametrize("text", [pytest.param("transformer:2", marks=pytest.mark.slow), "table:2", "logistic:2"])
def test_other_networks_give_finite_gradients_by_their_own_optimizer(text):
    problem = problems.problem(text)
    step, init = STEPS["SGD"](problem)
    params, _ = jax.jit(step)(problem.params, init(problem.params), problem.inputs, problem.labels)
    moved = jax.tree.map(lambda a, b: bool(np.isfinite(a).all() and (a != b).any()), params, problem.params)
    assert all(jax.tree.leaves(moved))


def test_bars_depend_on_where_the_time_goes():
    (sam,) = (c for c in COMPARISONS if (c.name, c.against) == ("sam", "two gradients"))
    assert [sam.bar_on(kind) for kind in ("network", "few operations", "tiny")] == [1.03, 1.02, 1.05]
    (lpg,) = (c for c in COMPARISONS if c.name == "lpg")
    assert lpg.bar_on("tiny") == lpg.bar == 1.03


@pytest.mark.slow
def test_compilation_compares_with_as_many_gradients_by_hand(tmp_path):
    words = ["--leaves", "4", "--only", "sam", "noise_injection", "--out", str(tmp_path)]
    command.main(["compilation", *words], QUIET)
    rows = {row["method"]: row for row in json.loads((tmp_path / "compilation.json").read_text())["results"]}
    assert {name: row["gradients"] for name, row in rows.items()} == {"sam": 2, "noise_injection": 1}
    assert all(row["seconds"] > 0 and row["ratio"] > 0 for row in rows.values())
    assert (tmp_path / "compilation.png").stat().st_size > 1000


def test_every_method_can_be_compiled():
    made = {name: make() for name, make in compilation.makers(()).items()}
    assert {*pugd_optax.methods.__all__} < {*made}
    assert all(isinstance(tx, optax.GradientTransformation) for tx in made.values())


@pytest.mark.slow
def test_a_network_of_accelerators_is_the_same_command(tmp_path):
    words = ["--problems", "resnet8:1:bfloat16", "--only", "sam, report", "--repeats", "1", "--calls", "1"]
    command.main(["steps", *words, "--out", str(tmp_path)], QUIET)
    (result,) = json.loads((tmp_path / "steps.json").read_text())["results"]
    assert "bfloat16" in result["problem"]
    assert result["parameters"] > 7e4


@pytest.mark.slow
@pytest.mark.parametrize(("text", "parameters"), [("resnet50:2:bfloat16", 2e7), ("vit_tiny:2:bfloat16", 5e6)])
def test_networks_of_accelerators_compute_in_bfloat16_and_keep_float32_gradients(text, parameters):
    def gradient():
        problem = problems.problem(text)
        return jax.grad(problem.loss)(problem.params, problem.inputs, problem.labels)

    gradients = jax.tree.leaves(jax.eval_shape(gradient))
    assert sum(x.size for x in gradients) > parameters
    assert {x.dtype for x in gradients} == {np.dtype("float32")}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["steps", "--problems", "resnt8:128"], "resnet8"),
        (["steps", "--problems", "mlp8"], r"needs batch; expected mlp8:batch\[:dtype=float32\]"),
        (["steps", "--problems", "mlp8:0"], "batch=0: expected a whole number >= 1"),
        (["steps", "--problems", "mlp8:8:float16"], "expected float32 or bfloat16"),
        (["steps", "--problems", "mlp8:8", "--only", "pgud"], "pugd"),
        (["growht"], "growth"),
    ],
)
def test_unknown_names_suggest_the_nearest(argv, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        command.main([*argv, "--out", str(tmp_path / "new")], QUIET)
    assert not (tmp_path / "new").exists()


def test_bare_command_measures_every_part(monkeypatch, tmp_path):
    done = []
    for part in command.PARTS.values():
        monkeypatch.setattr(part, "main", lambda options, console, part=part: done.append((part, options.out)))
    command.main(["--out", str(tmp_path)], QUIET)
    assert done == [(part, tmp_path) for part in (steps, fraction, growth, compilation)]


@pytest.mark.parametrize("share", fraction.FRACTIONS)
def test_plan_has_the_fraction_it_is_named_after(share):
    assert fraction.spread_out(share, 20).sum() == round(20 * share)


def test_every_gate_runs_the_same_training():
    problem = problems.problem("mlp8:8")
    plan = fraction.spread_out(0.5, 4)
    ends = []
    for gate in (fraction.static, fraction.traced, fraction.scanned):
        once = gate(problem, plan)
        once()
        ends.append(once())
    for end in ends[1:]:
        chex.assert_trees_all_close(end, ends[0], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_fraction_writes_a_row_for_each_gate_and_fraction(tmp_path, monkeypatch):
    monkeypatch.setattr(fraction, "FRACTIONS", (0.0, 0.5))
    options = ["--problems", "mlp8:8", "--steps", "4", "--repeats", "1", "--out", str(tmp_path)]
    command.main(["fraction", *options], QUIET)
    (result,) = json.loads((tmp_path / "fraction.json").read_text())["results"]
    gates = ("two steps", "cond", "cond in scan")
    assert [(row["gate"], row["fraction"]) for row in result["rows"]] == [
        (gate, d) for gate in gates for d in (0.0, 0.5)
    ]
    assert (tmp_path / "fraction.png").stat().st_size > 1000


@pytest.mark.slow
def test_growth_writes_curves_and_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "COUNTS", (2,))
    # Smaller steps are repeated until they take long enough to be timed.
    options = ["--widths", "64", "--batches", "64", "--repeats", "1", "--out", str(tmp_path)]
    command.main(["growth", *options], QUIET)
    report = json.loads((tmp_path / "growth.json").read_text())["results"]
    assert {row["axis"] for row in report if "axis" in row} == {"parameters", "batch"}
    assert (tmp_path / "growth.png").stat().st_size > 1000
    sent = {(row["method"], row["perturbation"]): row for row in report if row.get("devices") == 2}
    assert [sent[method, "global"]["all_reduces"] for method in ("SGD", "sam", "pugd")] == [1, 2, 2]
    assert [sent[method, "local"]["all_reduces"] for method in ("SGD", "sam", "pugd")] == [1, 1, 1]
    assert sent["sam", "local"]["floats_sent"] < 0.51 * sent["sam", "global"]["floats_sent"] + 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["steps", "--repeats", "0"], "--repeats 0: expected at least 1"),
        (["fraction", "--steps", "-1"], "--steps -1: expected at least 1"),
        (["growth", "--repeats", "0"], "--repeats 0"),
        (["steps", "--out", "file"], "file is not a folder"),
    ],
)
def test_what_would_fail_in_the_end_fails_at_once(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr(clock, "interleave", lambda *_: pytest.fail("measured"))
    with pytest.raises(UsageError, match=re.escape(message)):
        command.main(words, QUIET)


@pytest.mark.parametrize("text", ["mlp16:4", "resnet8:2", "resnet18:2"])
def test_pytorch_peer_has_the_same_loss_and_takes_the_same_steps(text):
    torch_peer = pytest.importorskip("experiments.bench.torch_peer", reason="PyTorch is not installed")
    problem = problems.problem(text)
    params, loss = torch_peer.loss_function(problem)
    batch = (problem.inputs, problem.labels)
    np.testing.assert_allclose(loss().item(), problem.loss(problem.params, *batch), rtol=1e-5)
    tx = optax.chain(pugd_optax.sam(0.05), optax.sgd(0.1, momentum=0.9))
    grad_fn = lambda p: jax.grad(problem.loss)(p, *batch)
    u, _ = tx.update(grad_fn(problem.params), tx.init(problem.params), problem.params, grad_fn=grad_fn)
    torch_peer.sam_step(params, loss, torch_peer.torch.optim.SGD(params, lr=0.1, momentum=0.9))
    expected = jax.tree.leaves(optax.apply_updates(problem.params, u))
    for mine, theirs in zip(expected, params, strict=True):
        np.testing.assert_allclose(theirs.detach().numpy(), mine, atol=2e-5)


def test_a_step_on_all_devices_is_that_of_one():
    problem = problems.problem("mlp8:8")
    state = all_devices.runners(problem, calls=2)["sam, all devices"]()
    alone = clock.runner(clock.compile_step(STEPS["sam"], problem), problem, calls=2)()
    for found, expected in zip(jax.tree.leaves(state[0]), jax.tree.leaves(alone[0]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert all_devices.runners(problems.problem("mlp8:7"), calls=2) == {}


@pytest.mark.parametrize("cached", [False, True])
def test_compile_times_are_left_out_where_programs_are_cached(cached, tmp_path):
    before = jax.config.jax_compilation_cache_dir  # pyright: ignore
    words = ["steps", "--problems", "mlp8:8", "--only", "lpg", "--repeats", "1", "--calls", "1", "--out", str(tmp_path)]
    jax.config.update("jax_compilation_cache_dir", before if cached else None)
    try:
        command.main(words, QUIET)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    (row,) = json.loads((tmp_path / "steps.json").read_text())["results"][0]["rows"]
    assert ("compile_seconds" in row) != cached


def test_missing_pytorch_is_said_in_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(__import__("sys").modules, "experiments.bench.torch_peer", None)
    options = ["--problems", "mlp8:8", "--only", "lpg", "--repeats", "1", "--torch", "--out", str(tmp_path)]
    command.main(["steps", *options], Console(width=200))
    assert "pip install '.[torch]'" in capsys.readouterr().out


def test_a_picture_that_is_interrupted_leaves_the_one_before(tmp_path, monkeypatch):
    (tmp_path / "growth.png").write_text("before")

    def interrupted(path, **_):
        Path(path).write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(figure := plt.figure(), "savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write(growth.Options(out=tmp_path), "growth", [], figure, Console(quiet=True))
    assert (tmp_path / "growth.png").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["growth.json", "growth.png"]
