"""Numbers of every size, and NaN and infinity at every position, for every method.

One program a method: a step, mapped over the cases, with what spoils each of them as its input.
"""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.contract.given import every_method, plain
from tests.test_fuzz import arguments_for, kinds, made_to_fit

PARAMS = {"matrix": jnp.ones((2, 3)), "short": jnp.ones(3, jnp.bfloat16), "gain": jnp.ones(())}
WITHIN = (0.0, 1e-45, 1e-38, 1e-30, 1e-20, 1e-10, 1e-3, 1.0, 1e3, 1e10, 1e18)
"""Sizes in the documented range: their squares may underflow, but do not overflow."""
BEYOND = (0.0, 1e-38, 1.0, 1e19, 1e20, 1e25, 1e30, 1e38)
SQUARED = ("pegr",)
"""Methods whose objective contains a squared gradient, which is not finite beyond the range."""
CASES = 256


class Case(NamedTuple):
    """What a step is given.

    Attributes:
      grads: the gradient.
      params: the parameters.
      sizes: [examples] what losses and logits are multiplied by; logits by no more than a million.
      to_others: is added to one entry of every further gradient.
    """

    grads: Any
    params: Any
    sizes: jax.Array
    to_others: jax.Array


@functools.cache
def mapped_step(name: str) -> Any:
    """A compiled `(cases, states) -> outputs, states`, and a function that gives the initial states."""
    make = functools.partial(made_to_fit, name)
    init = lambda params: make(params).init(params)

    def step(case: Case, state: Any):
        extra = arguments_for(case.params)
        losses_fn = lambda p: case.sizes * extra["losses_fn"](p)
        logits_fn = lambda p: jnp.minimum(case.sizes, 1e6)[:, None] * extra["logits_fn"](p)
        value_fn = lambda p: jnp.mean(losses_fn(p))

        def grad_fn(p):
            g = jax.grad(value_fn)(p)
            return g | {"gain": g["gain"] + case.to_others}

        functions = {"losses_fn": losses_fn, "logits_fn": logits_fn, "value_fn": value_fn, "grad_fn": grad_fn}
        return make(case.params).update(case.grads, state, case.params, **extra | functions)

    cheap = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(jax.vmap(step), compiler_options=cheap), jax.vmap(init)


def drawn(seed: int, scales: tuple[float, ...]) -> Any:
    """A random tree for every case, with leaves of different sizes and some zeros."""
    random = np.random.default_rng(seed)

    def leaf(w: jax.Array) -> jax.Array:
        size = random.choice(scales, (CASES, *[1] * w.ndim))
        return jnp.asarray(size * random.uniform(-1, 1, (CASES, *w.shape)), w.dtype)

    return jax.tree.map(leaf, PARAMS)


def holds(tree: Any, test: Any) -> np.ndarray:
    """Whether the test holds for all numbers of a tree, with shape [cases]."""
    fine = [np.reshape(test(np.asarray(x, np.float32)), (CASES, -1)).all(1) for x in jax.tree.leaves(plain(tree))]
    return np.logical_and.reduce(fine)


@every_method
def test_any_size_of_gradient_parameters_and_loss(name):
    """Two steps give finite values within the documented range, and no NaN beyond it."""
    step, init = mapped_step(name)
    for scales, test in ((WITHIN, np.isfinite), (BEYOND, lambda x: ~np.isnan(x)))[: 1 if name in SQUARED else 2]:
        sizes = jnp.tile(jnp.abs(drawn(2, scales)["gain"])[:, None], (1, 6))
        case = Case(drawn(0, scales), drawn(1, scales), sizes, jnp.zeros(CASES))
        state = init(case.params)
        for _ in range(2):
            u, state = step(case, state)
        assert kinds(u) == kinds(case.grads)
        wrong = np.flatnonzero(~holds((u, state), test))
        assert not len(wrong), jax.tree.map(lambda x, i=wrong[0]: x[i], (case, u, plain(state)))


PLACES = ("nowhere", "gradient", "perturbed gradient", "both", "parameters", "loss", "example")
BROKEN = list(itertools.product(PLACES, (np.nan, np.inf, -np.inf)))
KEEPS_G = ("focal_sam", "gnp", "gradient_regularization", "gsam", "imb_sam", "wsam")
"""Methods whose output includes the incoming gradient, so non-finite entries in it remain."""


def reevaluates(name: str) -> bool:
    """Whether the method evaluates the gradient again on the first step."""
    return name not in ("anti_pgd", "perturbed_gradient_descent", "rst", "ae_sam")


def reads_grad_fn(name: str) -> bool:
    return reevaluates(name) and name not in ("lpg", "lpl", "pegr", "functional_sam", "focal_sam", "imb_sam")


def spoiled(*places: str) -> jax.Array:
    """The non-finite number of each case with one at these places, else 0; shape [cases]."""
    there = [bad if place in places else 0.0 for place, bad in BROKEN]
    return jnp.asarray(there + [0.0] * (CASES - len(there)), jnp.float32)


def clean() -> Case:
    everywhere = lambda value: jax.tree.map(lambda w: jnp.full((CASES, *w.shape), value, w.dtype), PARAMS)
    return Case(everywhere(0.1), everywhere(0.5), jnp.ones((CASES, 6)), jnp.zeros(CASES))


def broken() -> Case:
    """The clean cases, with one non-finite number at one place in each of the first ones."""
    add = lambda tree, amount: tree | {"gain": tree["gain"] + amount}
    case, example = clean(), jnp.zeros((CASES, 6)).at[:, 0].set(spoiled("example"))
    return Case(
        grads=add(case.grads, spoiled("gradient", "both", "parameters")),
        params=add(case.params, spoiled("parameters")),
        sizes=case.sizes + spoiled("loss")[:, None] + example,
        to_others=spoiled("perturbed gradient", "both"),
    )


@every_method
def test_broken_numbers_end_as_documented(name):
    """The step behaves as the table of docs/pages/finite.md says, and the next one is as if nothing had happened."""
    step, init = mapped_step(name)
    u, state = step(broken(), init(clean().params))
    finite, rest = (holds(tree, np.isfinite) for tree in (u, {k: v for k, v in u.items() if k != "gain"}))
    for i, (place, bad) in enumerate(BROKEN):
        if place == "nowhere":
            assert finite[i]
        if place == "gradient":
            stands = finite[i] if reevaluates(name) else rest[i]
            assert stands == (name not in KEEPS_G), "the gradient at w stands for the one that is broken"
        if place == "perturbed gradient" and reads_grad_fn(name):
            assert not finite[i], "a broken gradient is not hidden"
        if place == "both" and reads_grad_fn(name):
            assert not finite[i]
        if place in ("loss", "example") and (reads_grad_fn(name) or (reevaluates(name) and bad != np.inf)):
            assert not finite[i], "logits of infinite size are still logits"
    after, _ = step(clean(), state)
    assert holds(after, np.isfinite).all()
