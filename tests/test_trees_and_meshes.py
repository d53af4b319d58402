"""Every method on all kinds of trees, complex numbers, explicit meshes and in `MultiSteps`, without compilation."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

from pugd_optax import methods, timing, value_and_grad
from tests.contract.given import RESTING, arguments, each, every_method, numeric, required
from tests.test_fuzz import arguments_for, kinds, made_to_fit


class Pair(NamedTuple):
    """A plain NamedTuple as a container."""

    first: Any
    second: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    """A dataclass registered with JAX as a container."""

    kernel: Any
    bias: Any


@flax.struct.dataclass
class Block:
    """A Flax struct as a container, with a static field."""

    layer: Any
    rest: Any
    name: str = flax.struct.field(pytree_node=False, default="block")


def every_container() -> Any:
    """Nested containers with scalar, empty and None leaves, and three dtypes."""
    leaf = jax.ShapeDtypeStruct
    state = nnx.State({"scale": nnx.Param(leaf((2,), jnp.float32)), "inner": {"w": nnx.Param(leaf((), jnp.float16))}})
    layer = Layer(kernel=leaf((3, 2), jnp.float32), bias=None)
    return Pair(Block(layer, [leaf((0, 3), jnp.bfloat16), (), {}]), {"state": state, "gain": leaf((1,), jnp.bfloat16)})


def types(tree: Any) -> Any:
    """The structure of a tree, and the shape, dtype, weak type and sharding of each leaf."""
    avals = [jax.typeof(x) for x in jax.tree.leaves(tree)]
    return jax.tree.structure(tree), [(x.shape, x.dtype, x.weak_type, str(x)) for x in avals]


def check_types(make: Callable[[Any], Any], params: Any) -> None:
    """Checks while tracing that outputs have the types of the parameters and the state keeps its types."""

    def two_steps(params):
        tx = make(params)
        state = tx.init(params)
        for _ in range(2):
            u, after = tx.update(params, state, params, **arguments_for(params))
            assert types(u) == types(params)
            assert types(after) == types(state)

    jax.eval_shape(two_steps, params)


@every_method
def test_any_tree_keeps_its_containers(name):
    check_types(functools.partial(made_to_fit, name), every_container())


@every_method
def test_multi_steps_around_a_method(name):
    """`optax.MultiSteps` around a method accumulates without a change of types."""
    params = {"w": jax.ShapeDtypeStruct((2, 3), jnp.bfloat16), "gain": jax.ShapeDtypeStruct((), jnp.float32)}
    check_types(lambda p: optax.MultiSteps(made_to_fit(name, p), 4).gradient_transformation(), params)


@every_method
def test_on_an_explicit_mesh_output_and_state_lie_where_they_lay(name):
    """With parameters split over eight devices, outputs and state keep their sharding."""
    if name == "esam" and jax.__version_info__ < (0, 8):
        pytest.skip("JAX 0.7 draws random numbers without a sharding")
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))
    place = lambda shape, *spec: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, P(*spec)))
    params = {"w": place((2, 8, 4), None, "x"), "bias": place((16,), "x"), "gain": place(())}
    with jax.set_mesh(mesh):
        check_types(functools.partial(made_to_fit, name), params)


REAL_ALONE = ("pegr",)
"""Methods that refuse complex parameters with an error."""


@each([name for name in methods.__all__ if name not in REAL_ALONE])
def test_complex_parameters_keep_their_types(name):
    params = {"w": jax.ShapeDtypeStruct((2, 3), jnp.complex64), "gain": jax.ShapeDtypeStruct((), jnp.float32)}
    check_types(functools.partial(made_to_fit, name), params)


@each([name for name in methods.__all__ if name not in REAL_ALONE])
def test_injected_numbers_stay_real_next_to_complex_parameters(name):
    """`optax.inject_hyperparams` gives numbers the dtype of the parameters."""
    static = set(arguments(name)) - set(numeric(name)) - {"sigma", "step", "strength"}
    inject = optax.inject_hyperparams(getattr(methods, name), static_args=static)
    params = {"w": jax.ShapeDtypeStruct((2, 3), jnp.complex64), "gain": jax.ShapeDtypeStruct((), jnp.float32)}
    check_types(lambda params: inject(**required(name)), params)


@every_method
def test_more_parameters_than_int32_counts(name):
    params = {"w": jax.ShapeDtypeStruct((2**31 + 8,), jnp.bfloat16), "gain": jax.ShapeDtypeStruct((), jnp.float32)}
    check_types(functools.partial(made_to_fit, name), params)


@each([name for name in methods.__all__ if name != "ae_sam"])  # whose gate reads the gradient of one device
def test_a_local_perturbation_returns_one_state_for_all_devices(name):
    """Inside `shard_map`, types record that the averaged state is the same on every device, with a gate too."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    params = {"w": jax.ShapeDtypeStruct((2, 3), jnp.float32), "gain": jax.ShapeDtypeStruct((), jnp.float32)}
    others = {"axis_name": "x"} if name in ("lpg", "lpl") else {}
    tx = made_to_fit(name, params, **({"when": timing.every(2)} if name in RESTING else others))

    def step(params, state, x):
        of_batch = lambda function: lambda p: function(p) * jnp.mean(x)
        functions = {k: of_batch(v) if callable(v) else v for k, v in arguments_for(params).items()}
        vg = value_and_grad(lambda p, x: functions["value_fn"](p), tx, axis_name="x")
        return vg(params, state, x, extra_args={k: functions[k] for k in ("logits_fn", "losses_fn", "labels")})

    alike = jax.shard_map(step, mesh=mesh, in_specs=(P(), P(), P("x")), out_specs=P())
    state = jax.eval_shape(tx.init, params)
    _, grads, after = jax.eval_shape(alike, params, state, jax.ShapeDtypeStruct((8,), jnp.float32))
    assert types(grads) == types(params)
    assert kinds(after) == kinds(state)
