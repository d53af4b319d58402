"""The state of every method consists of arrays that can be donated, mapped, scanned, saved and traced once."""

import chex
import jax
import optax

from tests.contract.given import (
    assert_tree_close,
    assert_tree_equal,
    build,
    descend,
    descending,
    every_method,
    updater,
)
from tests.problems import classifier, examples, extra_args


@every_method
def test_state_is_a_named_tuple_of_its_own_arrays(name):
    tx, params = build(name), classifier()
    state = tx.init(params)
    assert isinstance(state, tuple)
    assert hasattr(state, "_fields")
    leaves = jax.tree.leaves(state)
    assert all(isinstance(x, jax.Array) for x in leaves)
    assert not {id(x) for x in leaves} & {id(x) for x in jax.tree.leaves(params)}
    assert len({id(x) for x in leaves}) == len(leaves), "one array in two places cannot be donated"


@every_method
def test_init_under_jit_and_from_shapes(name):
    tx, params = build(name), classifier()
    state = tx.init(params)
    assert_tree_equal(state, jax.jit(tx.init)(params))
    shapes = jax.eval_shape(tx.init, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(lambda x: (x.shape, x.dtype), state)


@every_method
def test_parameters_and_state_can_be_donated(name):
    (tx, step), params = descending(name), classifier()
    state = tx.init(params)
    for _ in range(2):
        params, state, _ = step(params, state, examples())
    chex.assert_tree_all_finite(params)


@every_method
def test_map_params_finds_the_trees_of_the_state(name):
    tx, params = build(name), classifier()
    state = tx.init(params)
    assert_tree_equal(optax.tree.map_params(tx, lambda x: x, state), state)


@every_method
def test_scan_is_a_loop_and_the_loss_falls(name):
    tx, update = updater(name)
    data, params = examples(), classifier()

    def step(carry, _):
        params, state = carry
        u, state = update(params, state, data)
        return (descend(params, u), state), u

    scanned, outputs = jax.lax.scan(step, (params, tx.init(params)), length=20)
    carry = (params, tx.init(params))
    for _ in range(20):
        carry, u = step(carry, None)
    assert_tree_close(jax.tree.map(lambda x: x[-1], outputs), u, rtol=1e-3)
    assert_tree_close(scanned, carry, rtol=1e-3)
    value_fn = extra_args(data)["value_fn"]
    assert value_fn(carry[0]) < 0.9 * value_fn(params)


@every_method
def test_save_and_restore_continue_bit_for_bit(name, tmp_path):
    import orbax.checkpoint as ocp

    tx, update = updater(name)
    params, data = classifier(), examples()
    state = tx.init(params)
    for _ in range(2):
        _, state = update(params, state, data)
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, tx.init(params))
        restored = checkpointer.restore(
            tmp_path / "state",
            ocp.args.PyTreeRestore(shapes, restore_args=ocp.checkpoint_utils.construct_restore_args(shapes)),
        )
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert_tree_equal(update(params, state, data), update(params, restored, data))


@every_method
def test_one_trace_for_many_steps(name):
    tx, step = descending(name)
    params, state = classifier(), tx.init(classifier())
    for seed in range(4):
        params, state, _ = step(params, state, examples(seed=seed))
    chex.assert_tree_all_finite(params)
