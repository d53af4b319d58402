"""Small wrong edits that a test must notice: `make mutants`, or `python tests/mutants.py WORD` for some files alone.

Each is one edit in a copy of the repository, and the tests that are to fail there; where they pass it has survived.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Mutant(NamedTuple):
    """An edit of a file, and the test that fails with it."""

    file: str
    old: str
    new: str
    test: str


DATA, RUNS, TRAINING = (f"tests/experiments/{name}" for name in ("data", "runs", "training"))
MUTANTS = [
    Mutant("experiments/training/step.py", "jax.random.fold_in(key, state.step)", "key", f"{TRAINING}/test_step.py"),
    Mutant("experiments/training/metrics.py", "lr(step - 1)", "lr(step)", f"{TRAINING}/test_trainer.py"),
    Mutant("experiments/data/corruption.py", "round(noise.share", "int(noise.share", f"{DATA}/test_corruption.py"),
    Mutant("experiments/data/corruption.py", "[seed, 3]", "[seed, 2]", f"{DATA}/test_corruption.py"),
    Mutant("experiments/data/corruption.py", "(c + 1) % labels", "(c + 2) % labels", f"{DATA}/test_corruption.py"),
    Mutant("experiments/data/corruption.py", "integers(1, labels", "integers(0, labels", f"{DATA}/test_corruption.py"),
    Mutant("experiments/data/sources/digits.py", "* 15)", "* 16)", f"{DATA}/test_sources.py"),
    Mutant("experiments/data/sources/idx.py", '">u4"', '"<u4"', f"{DATA}/test_sources.py"),
    Mutant("experiments/data/sources/idx.py", "min(size, largest(path)) + 1", "-1", f"{DATA}/test_broken_files.py"),
    Mutant("experiments/data/sources/cifar.py", "member.isreg() and ", "", f"{DATA}/test_broken_files.py"),
    Mutant("experiments/data/sources/files.py", "if size > largest(path)", "if False", f"{DATA}/test_broken_files.py"),
    Mutant("experiments/data/examples.py", "if 0 in images.shape[1:]", "if False", f"{DATA}/test_broken_files.py"),
    Mutant("experiments/data/examples.py", "< num_classes:", "<= num_classes:", f"{DATA}/test_broken_files.py"),
    Mutant("experiments/runs/run_dir.py", '("metrics.jsonl", "failure', '("failure', f"{RUNS}/test_run_dir.py"),
    Mutant("experiments/runs/run_dir.py", '.strip("_.")', '.strip("_")', f"{RUNS}/test_run_dir.py"),
    Mutant("experiments/runs/run_dir.py", "if _holds_work(folder):\n        raise", "if False:\n        raise", RUNS),
    Mutant("experiments/runs/run_dir.py", "[:epochs])", "[:])", f"{RUNS}/test_records.py"),
    Mutant("experiments/runs/run_dir.py", "        sync(file)\n", "", f"{RUNS}/test_run_dir.py"),
    Mutant("experiments/runs/records.py", "range(1, count + 1)", "range(1, count)", f"{RUNS}/test_records.py"),
    Mutant("experiments/runs/checkpoint.py", "KEPT = 2", "KEPT = 1", f"{RUNS}/test_checkpoint.py"),
    Mutant("experiments/runs/checkpoint.py", "!= noted[name]]", "is None]", f"{RUNS}/test_checkpoint.py"),
    Mutant("experiments/config/schema.py", '*("devices", ', '*(', f"{RUNS}/test_run_dir.py"),
    Mutant("experiments/files.py", "part.unlink(missing_ok=True)", "pass", "tests/experiments/test_files.py"),
    Mutant("pugd_optax/_norms.py", "factor = factor.astype(x.real.dtype)", "pass", "tests/test_norms.py"),
]  # fmt: skip


def survives(mutant: Mutant, copy: Path) -> bool:
    """Whether the tests pass with the edit."""
    path = copy / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        sys.exit(f"{mutant.file}: holds {mutant.old!r} {text.count(mutant.old)} times, not once; fix the list")
    path.write_text(text.replace(mutant.old, mutant.new))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", mutant.test]
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax"), "PYTHONPATH": str(copy)}
    done = subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True)
    path.write_text(text)
    if done.returncode not in (0, 1):
        sys.exit(f"{mutant.test}: pytest ended with {done.returncode}\n{done.stdout[-2000:]}")
    return done.returncode == 0


def main(word: str = "") -> int:
    """Try every mutant; the exit status is 1 where one survives."""
    chosen, alive = [mutant for mutant in MUTANTS if word in mutant.file], 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", ".cache", "results", "site"))
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
