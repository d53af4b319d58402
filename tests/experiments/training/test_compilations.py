"""The number of programs that a run of two seeds compiles."""

import os
import re
import subprocess
import sys

import pytest

RUN = "train --model mlp --method pugd --train-size 100 --val-size 50 --epochs 2 --batch 50 --seeds 2 --jobs 1"


@pytest.mark.slow
def test_a_run_compiles_a_dozen_programs(tmp_path):
    """`jnp.asarray` would compile a program `stage` for every shape of NumPy array; only one scalar still needs it."""
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_LOG_COMPILES": "1", "PUGD_CACHE_DIR": str(tmp_path / "cache")}
    words = [sys.executable, "-m", "experiments", *RUN.split(), "--no-tensorboard", "--out", str(tmp_path / "run")]
    ran = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    compiled = re.findall(r"Finished XLA compilation of jit\((\S+?)\) in", ran.stderr)
    assert {"call", "initial", "_evaluate_chunk"} <= {*compiled}
    assert compiled.count("stage") <= 1
    assert len(compiled) <= 12, compiled
