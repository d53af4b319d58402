"""Whatever comes in: random trees, huge and tiny values, numbers that are not finite, and words of a command line."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from experiments.cli import options
from experiments.config.errors import UsageError
from experiments.training import optimizer
from pugd_optax.per_example import signs
from tests.problems import classifier, examples, extra_args
from tests.test_contract import all_finite, build, every_method, plain

SHAPES = [(), (0,), (1,), (3,), (2, 3), (2, 0, 3), (1, 1, 2, 2)]
DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16]
LEAVES = st.tuples(st.sampled_from(SHAPES), st.sampled_from(DTYPES))
TREES = st.recursive(LEAVES, lambda children: st.lists(children, max_size=3), max_leaves=6)
SCALES = [0.0, 1e-38, 1e-20, 1.0, 1e9, 1e18]
"""Of gradients and parameters; the square of the largest still fits float32."""

X, Y = jnp.linspace(-1.0, 1.0, 6), jnp.arange(6) % 3


def arguments_for(params: Any) -> dict[str, Any]:
    """Every extra argument, for parameters of any structure; bounded functions, so that nothing overflows by itself."""

    def feature(p):
        parts = [jnp.sum(jnp.sin(w.astype(jnp.float32))) for w in jax.tree.leaves(p)]
        return sum(parts, start=jnp.zeros(()))

    def logits_fn(p):
        return jnp.sin(feature(p) * X)[:, None] * jnp.arange(3.0)[None, :]

    def losses_fn(p):
        return jnp.log1p(jnp.exp(jnp.sin(feature(p)) * X))

    value_fn = lambda p: jnp.mean(losses_fn(p))
    gradients = {"grad_fn": jax.grad(value_fn), "value_fn": value_fn}
    return gradients | {"logits_fn": logits_fn, "losses_fn": losses_fn, "labels": Y}


def made_to_fit(name: str, params: Any) -> Any:
    """The method, with what its defaults would look for in a network: norm layers, and layers to follow."""
    given = {"sam_on": {"mask": jax.tree.map(lambda w: True, params)}, "pegr": {"penalty": signs(0)}}
    return build(name, **given.get(name, {}))


def kinds(tree: Any) -> Any:
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


@every_method
@settings(max_examples=4)
@given(tree=TREES)
def test_random_trees_keep_their_shapes_and_dtypes(name, tree):
    """Zero-size leaves, scalars, lists in lists, mixed dtypes, and the tree without a leaf."""
    is_leaf = lambda x: isinstance(x, tuple)
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(*leaf), tree, is_leaf=is_leaf)
    if name == "layerwise_noise" and not jax.tree.leaves(params):
        return  # it refuses a tree without a tensor to choose
    tx = made_to_fit(name, params)
    state = jax.eval_shape(tx.init, params)
    u, after = jax.eval_shape(lambda g, s, p: tx.update(g, s, p, **arguments_for(p)), params, state, params)
    assert kinds(u) == kinds(params)
    assert after == state


@functools.cache
def compiled(name: str):
    """One tree with a leaf of every kind, so that values alone differ from draw to draw."""
    params = [jnp.ones(shape, dtype) for shape, dtype in itertools.product(SHAPES[:5], (jnp.float32, jnp.bfloat16))]
    tx = made_to_fit(name, params)
    return params, tx, jax.jit(lambda g, s, p: tx.update(g, s, p, **arguments_for(p)))


@every_method
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_finite_numbers_give_no_nan(name, seed):
    """Gradients and parameters of any size, each leaf its own, zeros among them; the state stays finite too."""
    like, tx, update = compiled(name)
    random = np.random.default_rng(seed)
    draw = lambda w: np.asarray(random.choice(SCALES) * random.normal(size=w.shape), w.dtype)
    grads, params = (jax.tree.map(draw, like) for _ in range(2))
    state = tx.init(params)
    for _ in range(2):
        u, state = update(grads, state, params)
        assert kinds(u) == kinds(like)
    assert not any(np.isnan(np.asarray(x, np.float32)).any() for x in jax.tree.leaves((u, plain(state))))


PLACES = ("gradient", "perturbed gradient", "loss", "example")


@functools.cache
def injected(name: str):
    """The method on the classifier, with something to add to the gradient and to every further gradient."""
    tx = build(name)

    def spoil(tree, amount):
        return tree | {"gain": tree["gain"] + amount}

    @jax.jit
    def update(params, state, data, to_first, to_others):
        extra = extra_args(data)
        grads = spoil(extra["grad_fn"](params), to_first)
        return tx.update(grads, state, params, **extra | {"grad_fn": lambda p: spoil(extra["grad_fn"](p), to_others)})

    return tx, update


@every_method
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("place", PLACES)
def test_broken_numbers_end_as_documented(name, place, bad):
    """The table of docs/pages/finite.md: what the step gives, and that the next one is as if nothing had happened."""
    tx, update = injected(name)
    params, data = classifier(), examples(scale=bad if place == "loss" else 1.0)
    if place == "example":
        data["x"] = data["x"].at[0, 0].set(bad)
    first, others = (bad if place == p else 0.0 for p in PLACES[:2])
    u, state = update(params, tx.init(params), data, first, others)
    if place == "gradient":
        rest = u if reevaluates(name) else {k: v for k, v in u.items() if k != "gain"}
        assert all_finite(rest) is (name not in KEEPS_G), "the gradient at w stands for the one that is broken"
    if place == "perturbed gradient" and reads_grad_fn(name):
        assert not all_finite(u), "a broken gradient is not hidden"
    if place == "example":
        assert not all_finite(u)
    v, _ = update(params, state, examples(), 0.0, 0.0)
    assert all_finite(v)


def reevaluates(name: str) -> bool:
    """Whether the gradient is evaluated again on the first step."""
    return name not in ("anti_pgd", "perturbed_gradient_descent", "rst", "ae_sam")


def reads_grad_fn(name: str) -> bool:
    return reevaluates(name) and name not in ("lpg", "lpl", "pegr", "functional_sam", "focal_sam", "imb_sam")


KEEPS_G = ("focal_sam", "gnp", "gradient_regularization", "gsam", "imb_sam", "wsam")
"""Methods whose output is the incoming gradient and something: what is broken there stays broken."""


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
    """The message of the refusal, if it is one; another kind of error would be a traceback."""
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
    """The library's own checks are ValueError and TypeError; `job.prepare` shows their first line."""

    def chain():
        config = options.train_config(list(itertools.chain(*pairs)))
        return optimizer.build(config, steps_per_epoch=2, num_classes=3)

    assert "without a word" not in refused(chain, (UsageError, ValueError, TypeError))
