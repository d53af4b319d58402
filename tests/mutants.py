"""Small wrong edits that a test must notice: `make mutants`, or `python tests/mutants.py WORD` for some files alone.

Each is one edit in a copy of the repository, and the tests that are to fail there; where they pass it has survived.
"""

import os
import shutil
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NamedTuple

import flax.nnx  # noqa: F401  imported once for all
import optax  # noqa: F401
import orbax.checkpoint  # noqa: F401
import pytest

ROOT = Path(__file__).parents[1]


class Mutant(NamedTuple):
    """An edit of a file, and the tests that must fail with it: a file, a folder or one function."""

    file: str
    old: str
    new: str
    test: str


def method(name: str, old: str, new: str, test: str = "test_formula") -> Mutant:
    """An edit of a method, and the test in its test file that must fail."""
    return Mutant(f"pugd_optax/methods/{name}.py", old, new, f"tests/methods/test_{name}.py::{test}")


def part(name: str, old: str, new: str, test: str) -> Mutant:
    """An edit of a module of the library, and the tests that must fail."""
    return Mutant(f"pugd_optax/{name}.py", old, new, f"tests/test_{test}")


def lab(name: str, old: str, new: str, test: str) -> Mutant:
    """An edit of a module of the experiments, and the tests that must fail."""
    return Mutant(f"experiments/{name}.py", old, new, f"tests/experiments/{test}")


LIBRARY = [
    method("anti_pgd", "+ (x - y)", "+ (x + y)", "test_takes_the_last_noise_back_and_adds_a_new_one"),
    method("esam", "widen(x) / beta, 0)", "widen(x), 0)", "test_follows_the_formula"),
    method("fisher_sam", "jnp.sqrt(inverse_fisher(g))", "inverse_fisher(g)"),
    method("gradient_regularization", "weight, -1), weight)", "weight), weight)", "test_follows_the_formula"),
    Mutant("pugd_optax/methods/gnp.py", ", report=report)", ")", "tests/contract/test_hyperparameters.py"),
    method("layerwise_noise", "key_at(key, step)", "key_at(0, step)", "test_the_noise_is_that_of_the_key_and_the_step"),
    method("le_sam", "share * inverse(length)", "share"),
    method("looksam", "at * norms.of(g) * inverse", "at * inverse"),
    method("momentum_sam", "jnp.negative, state.momentum", "jnp.positive, state.momentum"),
    Mutant("pugd_optax/methods/rst.py", "mask=mask, report", "report", "tests/contract/test_hyperparameters.py"),
    method("sam_on", '("bias", "offset", "beta")', '("bias",)', "test_finds_the_names_of_other_libraries"),
    method("stable_sam", "norms.g * inverse(norms.g_star)", "norms.g * norms.g_star", "test_follows_the_formula"),
    method("wsam", "else gamma / (1 - gamma)", "else gamma"),
    method("zsharp", "number - 1 - jnp.floor", "number - jnp.floor"),
    part("_norms", "(jnp.conj(x) * y).real if", "(x * y).real if", "norms.py::test_complex_numbers_count_as_two"),
    part("_norms", "factor = factor.astype(x.real.dtype)", "pass", "norms.py"),
    Mutant("pugd_optax/_running_mean.py", "started, finite.", "started, ~finite.", "tests/methods/test_vasso.py"),
    part("_norms", "if is_typed else names", "if False else names", "split_params.py"),
    Mutant(
        "pugd_optax/_parts.py",
        "(jax.lax.pmean(cotangents, axis_name),)",
        "(cotangents,)",
        "tests/methods/test_lpg_devices.py::test_a_global_perturbation_is_that_of_one_device",
    ),
    part("ascents", "= lambda p: zero_unless(selected, grad_fn(p))", "= grad_fn", "ascents.py"),
    part("ascents", "jnp.isfinite(e), wide, wide + e)", "jnp.isfinite(e), wide + e, wide + e)", "reevaluate.py"),
    part("ascents", "size = step_size(step) if", "size = step_size(0) if", "ascents.py"),
    part("ascents", "where(length <= bound", "where(length >= bound", "ascents.py"),
    part("classes/rules", "state.step > warmup_steps", "state.step >= warmup_steps", "classes.py"),
    part("classes/state", "jnp.where(state.seen, jnp.asarray(decay", "jnp.where(True, jnp.asarray(decay", "classes.py"),
    part("combines", "1.0 + a * along, g_star)", "1.0, g_star)", "combines.py::test_decompose"),
    part("combines", "if scale <= 1 else (1.0, 1 / scale)", "if True else ()", "combines.py"),
    part("combines", "share(b, 1), g_star", "share(b, 0.5), g_star", "combines.py"),
    part("combines", "jnp.maximum(norms.cosine, 0)", "jnp.abs(norms.cosine)", "combines.py::test_unit_sum_rules"),
    part("equinox", "has_aux, aux_reduce, options", "has_aux, None, options", "equinox.py"),
    part("equinox", '("perturb", perturb), ', "", "equinox.py"),
    part("flooding", "(loss - level) * jnp.sign(loss - level)", "jnp.abs(loss - level)", "flooding.py"),
    Mutant("pugd_optax/functional.py", ', "logits_vjp": None}', "}", "tests/methods/test_lpg_devices.py"),
    part("logits/edits", "weight = 1 + jnp.maximum(strength, -1)", "weight = 1 + strength", "logits.py"),
    part("losses/long_tail", "** 0.25", "** 0.5", "losses.py"),
    part("losses/noisy_labels", ".T[safe]", "[safe]", "losses.py"),
    part("nnx", "predicate, aux_reduce, options", "predicate, None, options", "nnx.py"),
    part("nnx", '("perturb", perturb), ', "", "nnx.py"),
    part("noise", "set(sampler(jax.random.fold_in(key, k)", "set(sampler(jax.random.fold_in(key, 0)", "noise.py"),
    part("noise", "(pair * math.sqrt(0.5))", "pair", "noise.py"),
    part("_parts", '"first" if _is_key(x) else "sum"', '"sum"', "functional.py"),
    part("_parts", "max(1, round(share * len(x)))", "max(1, int(share * len(x)))", "functional.py"),
    part("_parts", "x[: count * stride : stride]", "x[:count]", "functional.py"),
    part("reevaluate", "jnp.maximum(jnp.asarray(now), 0)", "jnp.asarray(now)", "reevaluate.py"),
    part("reevaluate", "return u, parts.observe(state.ascent, u)", "return u, state.ascent", "reevaluate.py"),
    part("reevaluate", "where(on, call.at", "where(True, call.at", "reevaluate.py"),
    part("schedules", "1 - progress if falling", "progress if falling", "schedules.py"),
    part("schedules", "step >= steps, 1.0", "step > steps, 1.0", "schedules.py"),
    part("schedules", "jnp.exp(gain * error", "jnp.exp(2 * gain * error", "controllers.py"),
    part("schedules", "isfinite(loss) & jnp.isfinite(share)", "isfinite(share)", "controllers.py"),
    part("schedules", "jnp.clip(1 - share, -1, 1)", "1 - share", "controllers.py"),
    part("schedules", "norms.cosine - target, 0", "target - norms.cosine, 0", "controllers.py"),
    part("timing/plans", "(jnp.asarray(t) < stop)", "(jnp.asarray(t) <= stop)", "timing.py"),
    part("timing/plans", "key_at(key, step), widen(now)", "key_at(key, 0), widen(now)", "timing.py"),
    part("timing/triggers", "& (step > warmup) & (step >= window)", "& (step >= window)", "triggers.py"),
    part("timing/triggers", "isfinite(square) & jnp.isfinite(variance)", "isfinite(square)", "triggers.py"),
    part("timing/triggers", "(step > 0) & (step <= warmup)", "(step <= warmup)", "triggers.py"),
]  # fmt: skip

EXPERIMENTS = [
    lab("claims/conditions", "np.arange(len(p), 0, -1)", "len(p)", "claims/test_conditions.py"),
    lab("claims/conditions", "stats.t.ppf(1 - level / 2", "stats.t.ppf(1 - level", "claims/test_conditions.py"),
    lab("data/augment", "* x[::-1]", "* x", "data/test_augment.py"),
    lab("data/divide", "take(order[val : val + train])", "take(order[:train])", "data/test_sources.py"),
    lab("data/divide", "+ 0.5) / max(1, len(members))", "+ 0.5)", "data/test_sources.py"),
    lab("data/split", 'if which == "first" else', "if True else", "claims/test_protocol.py"),
    lab("report/stats", "kept.std(ddof=1)", "kept.std()", "claims/test_claims.py"),
    lab("runs/checkpoint", "in reversed(found)", "in found", "runs/test_checkpoint.py"),
    lab("runs/lock", "LOCK_EX | fcntl", "LOCK_SH | fcntl", "runs/test_lock.py"),
    lab("runs/run_dir", " or bool(checkpoint.steps(folder))", "", "runs/test_run_dir.py"),
    lab("training/epoch", "[seed, 4, epoch]", "[seed, 4]", "training/test_trainer.py"),
    lab("training/evaluate", "(part)[:count]", "(part)", "training/test_step.py"),
    lab("training/step", "kept._replace(step=new.step)", "kept", "training/test_resume.py"),
    lab("training/trainer", "accuracy > at.best_accuracy", "accuracy >= at.best_accuracy", "training/test_trainer.py"),
    lab("training/step", "jax.random.fold_in(key, state.step)", "key", "training/test_step.py"),
    lab("training/metrics", "active.astype(bool) & taken", "active.astype(bool)", "training/test_trainer.py"),
    lab("training/step", "norms = measured.cosine", "norms = measured.grad_norm", "training/test_step.py"),
    lab("training/metrics", "skipped - 1]", "skipped - 2]", "training/test_trainer.py"),
    lab("data/corruption", "round(noise.share", "int(noise.share", "data/test_corruption.py"),
    lab("data/corruption", "[seed, 3]", "[seed, 2]", "data/test_corruption.py"),
    lab("data/corruption", "(c + 1) % labels", "(c + 2) % labels", "data/test_corruption.py"),
    lab("data/corruption", "integers(1, labels", "integers(0, labels", "data/test_corruption.py"),
    lab("data/sources/digits", "* 15)", "* 16)", "data/test_sources.py"),
    lab("data/sources/idx", '">u4"', '"<u4"', "data/test_sources.py"),
    lab("data/sources/idx", "min(size, largest(path)) + 1", "-1", "data/test_broken_files.py"),
    lab("data/sources/cifar", "member.isreg() and ", "", "data/test_broken_files.py"),
    lab("data/sources/files", "if size > largest(path)", "if False", "data/test_broken_files.py"),
    lab("data/examples", "if 0 in images.shape[1:]", "if False", "data/test_broken_files.py"),
    lab("data/examples", "< num_classes:", "<= num_classes:", "data/test_broken_files.py"),
    lab("runs/run_dir", '("metrics.jsonl", "failure', '("failure', "runs/test_run_dir.py"),
    lab("runs/run_dir", '.strip("_.")', '.strip("_")', "runs/test_run_dir.py"),
    lab("runs/run_dir", "if _holds_work(folder):\n        raise", "if False:\n        raise", "runs/test_run_dir.py"),
    lab("runs/run_dir", "[:epochs])", "[:])", "runs/test_records.py"),
    lab("runs/run_dir", "        sync(file)\n", "", "runs/test_run_dir.py"),
    lab("runs/records", "range(1, count + 1)", "range(1, count)", "runs/test_records.py"),
    lab("runs/checkpoint", "KEPT = 2", "KEPT = 1", "runs/test_checkpoint.py"),
    lab("runs/progress", ", speed_estimate_period=math.inf", "", "runs/test_progress.py"),
    lab("runs/checkpoint", "!= noted[name]]", "is None]", "runs/test_checkpoint.py"),
    lab("config/schema", '*("devices", ', '*(', "runs/test_run_dir.py"),
    lab("files", "part.unlink(missing_ok=True)", "pass", "test_files.py"),
]  # fmt: skip


def survives(mutant: Mutant, copy: Path) -> bool:
    """Whether the tests pass with the edit."""
    path = copy / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        sys.exit(f"{mutant.file}: holds {mutant.old!r} {text.count(mutant.old)} times, not once; fix the list")
    path.write_text(text.replace(mutant.old, mutant.new))
    status = tested(mutant.test, copy)
    path.write_text(text)
    if status not in (0, 1):
        sys.exit(f"{mutant.test}: pytest ended with {status}\n{(copy / 'output').read_text()[-2000:]}")
    return status == 0


def tested(test: str, copy: Path) -> int:
    """The exit status of pytest in a process of its own, forked after what all of them import and before any device."""
    child = os.fork()
    if child == 0:
        os.chdir(copy)
        sys.path[0] = str(copy)
        said = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        status = 3
        try:
            quick = [] if "::" in test else ["-m", "not slow"]  # a test that is named is run, slow or not
            status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *quick, test]))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(word: str = "") -> int:
    """Runs every mutant; the exit status is 1 if one survives."""
    chosen, alive = [mutant for mutant in LIBRARY + EXPERIMENTS if word in mutant.file], 0
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", ".cache", "results", "site"))
        os.environ["PYTHONPATH"] = str(copy)  # of the processes that tests start
        for mutant in chosen:
            survived = survives(mutant, copy)
            alive += survived
            print(
                f"{'SURVIVED' if survived else 'killed  '}  {mutant.file}: {mutant.old!r} -> {mutant.new!r}", flush=True
            )
    print(f"{len(chosen) - alive} of {len(chosen)} killed")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
