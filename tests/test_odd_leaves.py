"""Parameters and keys of unusual kinds: Python numbers, empty trees, raw keys, losses without forward mode."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pugd_optax
from pugd_optax import diagnostics, per_example
from pugd_optax.noise import as_key
from tests.contract.given import build, every_method
from tests.problems import classifier, examples, extra_args

W = {"a": 0.5, "b": -1.5}
quartic = lambda p: sum(x**4 for x in jax.tree.leaves(p))


@pytest.mark.parametrize(
    "tx",
    [pugd_optax.nso(0.1), pugd_optax.gradient_regularization(0.1, 0.1, "central"), pugd_optax.sam(), pugd_optax.pugd()],
    ids=["nso", "central", "sam", "pugd"],
)
def test_python_numbers_are_parameters(tx):
    arrays = jax.tree.map(jnp.float32, W)
    run = lambda w: tx.update(jax.grad(quartic)(w), tx.init(w), w, grad_fn=jax.grad(quartic))[0]
    chex.assert_trees_all_equal(run(W), run(arrays))


def test_per_example_norms_of_python_numbers():
    """Also where a function of the parameters is combined with the data."""
    x = jnp.array([1.0, 2.0, -3.0])
    norms = per_example.norms(lambda p: jnp.exp(p["a"]) * x * p["b"], W)
    np.testing.assert_allclose(norms, np.abs(x) * np.exp(0.5) * np.hypot(1, 1.5), rtol=1e-6)


@every_method
def test_an_empty_tree_passes(name):
    extra = extra_args(examples())
    losses_fn, logits_fn = (lambda p, of=extra[k]: of(classifier()) for k in ("losses_fn", "logits_fn"))
    tx = build(name, **{"mask": lambda p: p} if name == "sam_on" else {})
    given = {"grad_fn": lambda p: p, "losses_fn": losses_fn, "logits_fn": logits_fn, "labels": extra["labels"]}
    for _ in range(2):
        assert tx.update({}, tx.init({}), {}, **given)[0] == {}


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_raw_keys_of_either_generator_and_of_numpy(impl):
    key = jax.random.key(3, impl=impl)
    raw = jax.random.key_data(key)
    for given in (key, raw, np.asarray(raw)):
        assert jax.random.key_impl(as_key(given)) == impl
        np.testing.assert_array_equal(jax.random.key_data(as_key(given)), raw)


@jax.custom_vjp
def square(x):
    """Like flash attention, with a forward rule that calls the function itself: it has no forward mode."""
    return x**2


square.defvjp(lambda x: (square(x), x), lambda x, g: (2 * g * x,))
LOSSES = [
    lambda w: jnp.sum(square(w) ** 2),
    lambda w: jnp.sum(jax.lax.scan(lambda x, _: (square(x), None), w, length=2)[0]),
]


@pytest.mark.parametrize("run", [lambda f, *args: f(*args), lambda f, *args: jax.jit(f)(*args)], ids=["eager", "jit"])
@pytest.mark.parametrize("loss", LOSSES, ids=["plain", "scan"])
def test_exact_regularization_where_the_loss_has_no_forward_mode(loss, run):
    """The Hessian product is taken by reverse mode twice."""
    w = jnp.array([1.0, -2.0])
    tx = pugd_optax.gradient_regularization(0.1, scheme="exact")
    u, _ = run(lambda w: tx.update(jax.grad(loss)(w), tx.init(w), w, grad_fn=jax.grad(loss)), w)
    np.testing.assert_allclose(u, 4 * w**3 + 0.1 * 12 * w**2 * 4 * w**3, rtol=1e-6)
    np.testing.assert_allclose(diagnostics.leading_eigenvalue(loss, w, jnp.ones(2))[0], 48, rtol=1e-5)


@pytest.mark.parametrize("run", [lambda f, *args: f(*args), lambda f, *args: jax.jit(f)(*args)], ids=["eager", "jit"])
def test_signs_where_the_losses_have_no_forward_mode(run):
    """The gradient of the squared norm of one weighted sum of losses, here of w**4 * x."""
    w, x = jnp.array([1.0, -2.0]), jnp.array([[1.0, 2.0], [-1.0, 0.5], [3.0, 1.0]])
    losses = lambda square: lambda w: (square(w) ** 2) @ x.T
    of = lambda square: lambda w: per_example.signs(3)(losses(square), w)[1]
    np.testing.assert_allclose(run(jax.grad(of(square)), w), jax.grad(of(jnp.square))(w), rtol=1e-6)


@pytest.mark.parametrize("name", ["lpg", "lpl", "pegr", "sam_on"])
def test_inject_hyperparams_without_static_arguments(name):
    """Non-numeric arguments default to None, as Optax would call a function as a schedule."""
    needed = {"lpg": (3,), "lpl": (3,), "pegr": (0.1,), "sam_on": ()}[name]
    function, params, extra = getattr(pugd_optax, name), classifier(), extra_args(examples())
    injected, plain = optax.inject_hyperparams(function)(*needed), function(*needed)
    run = lambda tx: tx.update(extra["grad_fn"](params), tx.init(params), params, **extra)[0]
    chex.assert_trees_all_close(run(injected), run(plain), rtol=1e-6)
