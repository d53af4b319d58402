"""Wrong counts, windows and bounds of the offset rules, and arguments that no such rule accepts."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pugd_optax
from pugd_optax import classes
from pugd_optax.logits import additive
from tests.test_offset_rules import CLASSES, run

WRONG: Any = 0.2
CONFUSION: Any = classes.confusion(10)
SHORT: Any = np.float32(0.3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: classes.prior([3, 0, 1]), ValueError, r"counts=\[3\.0, 0\.0, 1\.0\]: expected numbers above 0"),
        (lambda: classes.prior([3, 1], tau=-1.0), ValueError, "tau=-1.0"),
        (
            lambda: pugd_optax.lpg(3, rule=classes.prior([3, 1])),
            ValueError,
            r"counts have the shape \(2,\): expected \(3,\)",
        ),
        (lambda: classes.confusion(0), ValueError, "total_steps=0"),
        (lambda: jax.jit(classes.confusion)(9), TypeError, "total_steps is traced"),
        (lambda: classes.confusion(10, bound=0.0), ValueError, r"bound=0\.0: expected a number above 0\."),
        (lambda: classes.confusion(10, bound=-1.0), ValueError, "bound=-1.0"),
        (lambda: classes.confusion(10, bound=float("nan")), ValueError, "bound=nan"),
        (lambda: classes.confusion(10, window=WRONG), TypeError, "window=0.2: expected two shares of training"),
        (lambda: classes.confusion(10, window=(0.2, 1.5)), ValueError, "window=1.5"),
        (lambda: classes.confusion(10, window=(0.3, 0.2)), ValueError, "holds none of the 10 steps"),
        (lambda: classes.confusion(4), ValueError, r"window=\(0.05, 0.2\) holds none of the 4 steps.*Fix: "),
        (lambda: classes.confusion(10, window=(0.5, 1.0)), ValueError, "leaves none after it of the 10 steps"),
        (lambda: pugd_optax.lpg(1, rule=classes.confusion(10)), ValueError, "num_classes=1"),
        (
            lambda: pugd_optax.lpg(3, eps=0.3, rule=classes.confusion(10)),
            ValueError,
            "eps=0.3 is for rules with one number",
        ),
        (
            lambda: pugd_optax.lpg(3, renormalize=True, rule=classes.confusion(10)),
            ValueError,
            "renormalize=True is for",
        ),
        (
            lambda: pugd_optax.lpg(3, eps=jnp.float32(0.3), rule=classes.confusion(10)),
            ValueError,
            "eps=Array.0.3.* is for",
        ),
        (lambda: pugd_optax.lpg(3, cap=SHORT, rule=classes.confusion(10)), ValueError, "cap=.*0.3.* is for"),
        (lambda: pugd_optax.lpg(3, d_eps=lambda t: t, rule=classes.confusion(10)), ValueError, "d_eps=.* is for"),
        (lambda: pugd_optax.lpl(3, rule=CONFUSION), TypeError, r"rule gives offsets.*Fix: pugd_optax\.lpg"),
        (
            lambda: run(pugd_optax.lpg(CLASSES, rule=classes.confusion(10), edit=additive)),
            ValueError,
            "with offsets, which are an edit of their own",
        ),
        (
            lambda: run(pugd_optax.lpg(CLASSES, rule=classes.confusion(10)), where=np.ones(3, bool)),
            ValueError,
            r"where has the shape \(3,\): expected \(12,\)",
        ),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_injected_defaults_are_no_arguments(dtype):
    """`optax.inject_hyperparams` passes every default as an array, under jit as a traced one."""
    make: Any = optax.inject_hyperparams(pugd_optax.lpg, static_args="num_classes", hyperparam_dtype=dtype)
    injected, plain = make(2, rule=classes.prior([2, 1])), pugd_optax.lpg(2, rule=classes.prior([2, 1]))
    x, w = jnp.array([[1.0, 0.5], [0.0, 2.0]]), jnp.ones((2, 2))
    step = lambda tx: jax.jit(lambda s: tx.update(w, s, w, logits_fn=lambda w: x @ w, labels=np.array([0, 1]))[0])
    np.testing.assert_array_equal(step(injected)(injected.init(w)), step(plain)(plain.init(w)))
    given = make(2, eps=0.3, rule=classes.prior([2, 1]))
    with pytest.raises(ValueError, match=r"eps=Array.* is for rules with one number"):
        given.init(w)
