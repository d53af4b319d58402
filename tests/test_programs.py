"""Counts of branches, equations, additions, temporaries and collectives in a compiled step, without timing."""

import collections
import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

from pugd_optax import methods
from tests.contract.given import RESTING, build, each, every_method
from tests.tiers import FEW, slow_but

GATES = ("ae_sam", "looksam", "rst", "rts_pugd")
"""Methods with a gate; the tests tell them while tracing that the step is active."""
NOISE = ("anti_pgd", "layerwise_noise", "noise_injection", "nso", "perturbed_gradient_descent")
GIVEN: dict[str, dict[str, Any]] = {"sam_on": {"mask": lambda params: jax.tree.map(lambda w: w.ndim == 1, params)}}


TODAYS_COMPILER = pytest.mark.skipif(jax.__version_info__ < (0, 8), reason="older compilers fuse less")


class Network(NamedTuple):
    """A tanh MLP with two leaves per layer, and one batch; with `residual`, layers of equal width are residual."""

    params: list[dict[str, jax.Array]]
    inputs: jax.Array
    labels: jax.Array
    residual: bool = False

    def logits(self, params: Any) -> jax.Array:
        h = self.inputs
        for layer in params:
            out = jnp.tanh(h @ layer["kernel"] + jnp.expand_dims(layer["bias"], range(h.ndim - 1)))
            h = h + out if self.residual and h.shape == out.shape else out
        return h

    def losses(self, params: Any) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(self.logits(params), self.labels)

    def gradient(self, params: Any) -> Any:
        return jax.grad(lambda p: self.losses(p).mean())(params)


@functools.cache
def network(*widths: int, batch: int = 8) -> Network:
    keys = jax.random.split(jax.random.key(0), len(widths) - 1)
    layer = lambda key, a, b: {"kernel": jax.random.normal(key, (a, b)) / a**0.5, "bias": jnp.zeros(b)}
    params = [layer(*sizes) for sizes in zip(keys, widths[:-1], widths[1:], strict=True)]
    inputs = jnp.sin(jnp.arange(float(batch * widths[0]))).reshape(batch, widths[0])
    return Network(params, inputs, jnp.arange(batch) % 3)


def deep(leaves: int, width: int) -> Network:
    return network(*[width] * (leaves // 2), 3)


class Step(NamedTuple):
    """A training step, and the function that initialises its optimizer state."""

    run: Callable[[Any, Any], tuple[Any, Any]]
    init: Callable[[Any], Any]


def with_method(name: str, base: optax.GradientTransformation, net: Network, **given: Any) -> Step:
    """The method in front of the base optimizer; a gate is told that the step is active."""
    tx = optax.chain(build(name, **GIVEN.get(name, {})), base)
    extra = {"grad_fn": net.gradient, "losses_fn": net.losses, "logits_fn": net.logits, "labels": net.labels}
    extra |= ({"active": True} if name in GATES else {}) | given

    def run(params, state):
        updates, state = tx.update(net.gradient(params), state, params, **extra)
        return optax.apply_updates(params, updates), state

    return Step(run, tx.init)


def by_hand(there: Callable[[Network, Any], Any], base: optax.GradientTransformation, net: Network) -> Step:
    """A step that applies the base optimizer to a hand-written gradient."""

    def run(params, state):
        updates, state = base.update(there(net, params), state, params)
        return optax.apply_updates(params, updates), state

    return Step(run, base.init)


def two_gradients(net: Network, params: Any) -> Any:
    g = net.gradient(params)
    share = 0.05 / optax.tree.norm(g)
    return net.gradient(jax.tree.map(lambda w, x: w + share * x, params, g))


def fisher_gradient(net: Network, params: Any) -> Any:
    g = net.gradient(params)
    scaled = jax.tree.map(lambda x: x / (1 + 0.2 * x * x), g)
    share = 0.1 / jnp.sqrt(optax.tree.vdot(g, scaled))
    return net.gradient(jax.tree.map(lambda w, x: w + share * x, params, scaled))


def filtered_gradient(net: Network, params: Any) -> Any:
    """The gradient of ZSharp, with its threshold on the z-scores found by bisection."""
    g = net.gradient(params)
    scores = jax.tree.map(lambda x: jnp.abs(x - x.mean()) / x.std(), g)
    keep = 0.05 * optax.tree.size(g)

    def halve(_, bounds):
        middle = sum(bounds) / 2
        few = sum(jnp.sum(z > middle) for z in jax.tree.leaves(scores)) <= keep
        return jnp.where(few, bounds[0], middle), jnp.where(few, middle, bounds[1])

    top = jnp.max(jnp.stack([z.max() for z in jax.tree.leaves(scores)]))
    bar = jax.lax.fori_loop(0, 32, halve, (0 * top, top))[1]
    kept = jax.tree.map(lambda x, z: jnp.where(z > bar, x, 0), g, scores)
    kept = jax.lax.cond(optax.tree.norm(kept) > 0, lambda: kept, lambda: g)
    share = 0.05 / optax.tree.norm(kept)
    return net.gradient(jax.tree.map(lambda w, x: w + share * x, params, kept))


def noisy_gradient(net: Network, params: Any) -> Any:
    noise = optax.tree.random_like(jax.random.key(0), params, jax.random.normal)
    return net.gradient(jax.tree.map(lambda w, x: w + 0.05 * x, params, noise))


def penalised_gradient(net: Network, params: Any) -> Any:
    """The gradient of PEGR, with per-example norms from the inputs and output gradients of the layers."""
    batch = len(net.labels)

    def forward(params, shifts):
        h, entered = net.inputs, []
        for layer, shift in zip(params, shifts, strict=True):
            entered.append(h)
            h = jnp.tanh(h @ layer["kernel"] + layer["bias"][None] + shift)
        return optax.softmax_cross_entropy_with_integer_labels(h, net.labels).sum(), entered

    def objective(params):
        shifts = [jnp.zeros((batch, len(layer["bias"]))) for layer in params]
        (total, entered), back = jax.value_and_grad(forward, argnums=1, has_aux=True)(params, shifts)
        square = lambda h, d: jnp.sum((1 + jnp.sum(h**2, 1)) * jnp.sum(d**2, 1))
        return (total + 0.05 * sum(map(square, entered, back))) / batch

    return jax.grad(objective)(params)


def own_gradient(name: str) -> Callable[[Network, Any], Any]:
    """The gradient that a user would write by hand."""
    own = {"pegr": penalised_gradient, "fisher_sam": fisher_gradient, "zsharp": filtered_gradient}
    return own.get(name, noisy_gradient if name in NOISE else two_gradients)


def primitives(step: Step, params: Any) -> collections.Counter[str]:
    """The number of times each primitive occurs in the step, inner programs included."""
    counts: collections.Counter[str] = collections.Counter()

    def visit(jaxpr: Any) -> None:
        for equation in jaxpr.eqns:
            counts[equation.primitive.name] += 1
            for parameter in jax.tree.leaves(equation.params):
                inner = getattr(parameter, "jaxpr", parameter)
                if hasattr(inner, "eqns"):
                    visit(inner)

    visit(jax.make_jaxpr(step.run)(params, step.init(params)).jaxpr)
    return counts


def compiled(step: Step, params: Any, **options: Any) -> Any:
    """The compiled step, without optimised machine code, which halves the time and does not change the program."""
    lowered = jax.jit(step.run, donate_argnums=(0, 1), **options).lower(params, step.init(params))
    return lowered.compile({"xla_backend_optimization_level": 0})


def assert_no_branch(counts: collections.Counter[str]) -> None:
    assert counts["cond"] == counts["optimization_barrier"] == 0


@functools.cache
def equations_by_hand(there: Callable[[Network, Any], Any]) -> int:
    net = deep(40, 32)
    return primitives(by_hand(there, optax.adamw(1e-3), net), net.params).total()


@every_method
def test_equations_are_those_of_a_step_by_hand(name):
    """A step has no branch or barrier, and at most 1.5 times the equations of a step written by hand."""
    net, base = deep(40, 32), optax.adamw(1e-3)
    counts = primitives(with_method(name, base, net), net.params)
    assert_no_branch(counts)
    assert counts.total() <= 1.5 * equations_by_hand(own_gradient(name))


@each([*RESTING, "ae_sam", "rst"])
def test_an_idle_step_is_one_branch_without_a_second_gradient(name):
    def never(params: Any) -> Any:
        raise AssertionError("traced")

    net, base = deep(6, 4), optax.sgd(0.1)
    counts = primitives(with_method(name, base, net, active=False, grad_fn=never), net.params)
    assert_no_branch(counts)
    assert counts["dot_general"] == primitives(by_hand(Network.gradient, base, net), net.params)["dot_general"]


@pytest.mark.parametrize("name", slow_but(FEW, methods.__all__))
def test_additions_grow_with_the_leaves(name):
    """Additions grow linearly with the leaves, as a global sum is computed once, not in every kernel that reads it."""

    def additions(leaves: int) -> int:
        net = deep(leaves, 4)
        return compiled(with_method(name, optax.adamw(1e-3), net), net.params).as_text().count(" add(")

    assert 12 < additions(24) <= 2.2 * additions(12)


def kernels(program: str) -> set[str]:
    """The distinct fused computations up to names; XLA compiles each of them once."""
    bodies = re.findall(r"^%fused_computation.*?\n(.*?)^}", program, re.DOTALL | re.MULTILINE)
    return {re.sub(r", metadata=\{[^}]*\}|(?<=[a-z_])[.\d]+\b|_\d+\.\d+", "", body) for body in bodies}


def test_pegr_compiles_the_layers_of_a_deep_network_once():
    """The gradient along a residual stream is summed once, not again in every product that reads it."""

    def program(leaves: int) -> str:
        net = deep(leaves, 4)._replace(residual=True)
        net = net._replace(inputs=jnp.stack([net.inputs] * 16, 1), labels=jnp.stack([net.labels] * 16, 1))
        losses_fn = lambda params: net.losses(params).mean(1)
        return compiled(with_method("pegr", optax.sgd(0.1), net, losses_fn=losses_fn), net.params).as_text()

    small, large = program(12), program(24)
    assert large.count(" = ") <= 2.05 * small.count(" = ")
    assert 12 < len(kernels(large)) <= len(kernels(small)) + 2


@TODAYS_COMPILER
@pytest.mark.parametrize(("name", "copies"), [("sam", 1.3), ("pugd", 2.3)])
def test_temporaries_of_a_wide_network(name, copies):
    """The temporaries of a step are at most this many copies of the parameters."""
    net = network(784, 512, 512, 512, 10, batch=128)
    step = with_method(name, optax.sgd(0.1, momentum=0.9), net)
    size = sum(x.nbytes for x in jax.tree.leaves(net.params))
    assert compiled(step, net.params).memory_analysis().temp_size_in_bytes <= copies * size


@TODAYS_COMPILER
@pytest.mark.parametrize(("name", "reads"), [("sam", 1), ("pugd", 5)])
def test_passes_over_the_parameters_of_a_wide_network(name, reads):
    """Memory traffic in copies of the parameters, beyond that of two gradients without a norm."""
    net, base = network(784, 512, 512, 512, 10, batch=128), optax.sgd(0.1, momentum=0.9)
    unscaled = lambda net, w: net.gradient(jax.tree.map(lambda w, g: w + 1e-3 * g, w, net.gradient(w)))
    moved = lambda step: compiled(step, net.params).cost_analysis()["bytes accessed"]
    extra = moved(with_method(name, base, net)) - moved(by_hand(unscaled, base, net))
    assert extra <= (reads + 0.3) * sum(x.nbytes for x in jax.tree.leaves(net.params))


COLLECTIVE = re.compile(r" (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(-start)?\(")


@TODAYS_COMPILER
@pytest.mark.parametrize("name", ["sam", "pugd"])
def test_sharded_parameters_take_two_collectives_more(name):
    """Compared with two gradients, a step adds one collective per norm for any number of leaves."""
    net, base = network(16, 16, 16, 16, 8), optax.sgd(0.1, momentum=0.9)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:8]), "model", axis_types=(AxisType.Auto,))
    params = jax.device_put(net.params, NamedSharding(mesh, P("model")))
    unscaled = lambda net, w: net.gradient(jax.tree.map(lambda w, g: w + 1e-3 * g, w, net.gradient(w)))

    def collectives(step: Step) -> int:
        return len(COLLECTIVE.findall(compiled(step, params).as_text()))

    floor = collectives(by_hand(unscaled, base, net))
    assert 0 < floor < collectives(with_method(name, base, net)) <= floor + 2
