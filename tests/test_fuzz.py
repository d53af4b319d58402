"""Fuzz tests: random trees, huge, tiny and non-finite values, and random command-line settings."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from hypothesis import given, settings, strategies as st

from experiments.cli import options
from experiments.config.errors import UsageError
from experiments.training import optimizer
from pugd_optax.per_example import signs
from tests.contract.given import build, every_method

SHAPES = [(), (0,), (1,), (3,), (2, 3), (2, 0, 3), (1, 1, 2, 2)]
DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16]
LEAVES = st.tuples(st.sampled_from(SHAPES), st.sampled_from(DTYPES))
TREES = st.recursive(LEAVES, lambda children: st.lists(children, max_size=3), max_leaves=6)

X, Y = jnp.linspace(-1.0, 1.0, 6), jnp.arange(6) % 3


def arguments_for(params: Any) -> dict[str, Any]:
    """All extra arguments for parameters of any structure; the functions are bounded, so they do not overflow."""

    def feature(p):
        parts = [jnp.sum(jnp.sin(jnp.real(w).astype(jnp.float32))) for w in jax.tree.leaves(p)]
        return sum(parts, start=jnp.zeros(()))

    def logits_fn(p):
        return jnp.sin(feature(p) * X)[:, None] * jnp.arange(3.0)[None, :]

    def losses_fn(p):
        return jnp.log1p(jnp.exp(jnp.sin(feature(p)) * X))

    value_fn = lambda p: jnp.mean(losses_fn(p))
    gradients = {"grad_fn": jax.grad(value_fn), "value_fn": value_fn}
    return gradients | {"logits_fn": logits_fn, "losses_fn": losses_fn, "labels": Y}


def made_to_fit(name: str, params: Any, **given: Any) -> Any:
    """The method, with a mask or penalty in place of defaults that need normalization or known layers."""
    fitting = {"sam_on": {"mask": jax.tree.map(lambda w: True, params)}, "pegr": {"penalty": signs(0)}}
    return build(name, **(fitting.get(name, {}) | given))


def kinds(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@every_method
@settings(max_examples=4)
@given(tree=TREES)
def test_random_trees_keep_their_shapes_and_dtypes(name, tree):
    """Shapes and dtypes are kept for zero-size leaves, scalars, nested lists, mixed dtypes and the empty tree."""
    is_leaf = lambda x: isinstance(x, tuple)
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(*leaf), tree, is_leaf=is_leaf)
    tx = made_to_fit(name, params)
    state = jax.eval_shape(tx.init, params)
    u, after = jax.eval_shape(lambda g, s, p: tx.update(g, s, p, **arguments_for(p)), params, state, params)
    assert kinds(u) == kinds(params)
    assert after == state


WORDS = [
    "--lr",
    "--epochs",
    "--method",
    "--method.radius",
    "--method.when",
    "--method.mask",
    "--method.scale",
    "--optimizer",
    "--optimizer.b1",
    "--momentum",
    "--weight-decay",
    "--noise",
    "--batch",
    "--resume",
    "--dtype",
]
VALUES = [
    "-",
    "0",
    "-1",
    "3",
    "1e400",
    "nan",
    "inf",
    "0.5",
    "true",
    "none",
    ":",
    "::",
    "a=b",
    "--",
    "[1]",
    "pugd",
    "sam",
    "lpg",
    "rts_pugd",
    "adamw",
    "cosine:0.1:0.0",
    "cosine:",
    "cosine:a",
    "cosine:0.1:0.0:x=1",
    "quarter:sin:2:0.01",
    "linear:1",
    "after:0.5",
    "after:2",
    "every:0",
    "between:0.5:0.1",
    "low_variance",
    "bernoulli:2",
    "matrices",
    "symmetric:0.2",
    "warmup_cosine_decay:0:0.1:0.05",
    "norm_ratio",
    "piecewise_constant",
]
PAIRS = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(VALUES) | st.text(max_size=8)), max_size=5)


def refused(build: Callable[[], Any], expected: tuple[type[Exception], ...]) -> str:
    """The message of an expected error, or an empty string if there is none; other errors propagate."""
    try:
        build()
    except expected as error:
        return str(error).strip() or "an error without a word"
    return ""


@settings(max_examples=60)
@given(pairs=PAIRS)
def test_words_become_settings_or_one_line(pairs):
    message = refused(lambda: options.train_config(list(itertools.chain(*pairs))), (UsageError,))
    assert len(message.splitlines()) <= 1


@settings(max_examples=60)
@given(pairs=PAIRS)
def test_settings_become_a_chain_or_a_refusal(pairs):
    """Settings give a chain or an error with a message: UsageError, or ValueError and TypeError from the library."""

    def chain():
        config = options.train_config(list(itertools.chain(*pairs)))
        return optimizer.build(config, steps_per_epoch=2, num_classes=3)

    assert "without a word" not in refused(chain, (UsageError, ValueError, TypeError))
