"""Over twenty thousand steps, types, counters and memory use stay stable."""

import gc

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

import pugd_optax
from tests.conftest import QUICKLY
from tests.contract.given import plain
from tests.problems import classifier, examples, extra_args

STEPS, CHUNK = 20_000, 4_000
LONG_RUNS = {
    "rts_pugd": lambda: pugd_optax.rts_pugd(STEPS, scale="cosine"),
    "sam_low_variance": lambda: pugd_optax.sam(0.05, when=pugd_optax.timing.low_variance(1000)),
    "looksam": lambda: pugd_optax.looksam(every=10),
    "lpg": lambda: pugd_optax.lpg(3, inner=pugd_optax.sam(0.05)),
    "anti_pgd": lambda: pugd_optax.anti_pgd(0.01, key=0),
}


def types(tree):
    return jax.tree.map(jax.typeof, tree)


@pytest.mark.parametrize("name", LONG_RUNS)
@pytest.mark.slow
def test_nothing_drifts_in_a_long_run(name):
    """Runs in chunks with a donated state, on alternating batches so that gates and running means change."""
    tx = optax.chain(LONG_RUNS[name](), optax.sgd(1e-3, momentum=0.9))
    batches = jax.tree.map(lambda *x: jnp.stack(x), *(examples(seed=seed) for seed in range(4)))

    def step(carry, t):
        params, state = carry
        extra = extra_args(jax.tree.map(lambda x: x[t % 4], batches))
        updates, state = tx.update(extra["grad_fn"](params), state, params, **extra)
        return (optax.apply_updates(params, updates), state), None

    def chunk(carry):
        return jax.lax.scan(step, carry, jnp.arange(CHUNK))[0]

    chex.clear_trace_counter()
    run = jax.jit(chex.assert_max_traces(chunk, n=1), donate_argnums=0, compiler_options=QUICKLY)
    carry = (classifier(), tx.init(classifier()))
    before, alive = types(carry), []
    for _ in range(STEPS // CHUNK):
        carry = run(carry)
        gc.collect()
        alive.append(len(jax.live_arrays()))
    assert types(carry) == before
    chex.assert_tree_all_finite(carry[0])
    assert not any(jnp.isnan(x).any() for x in jax.tree.leaves(plain(carry[1])))
    assert alive[-1] - alive[0] < len(alive) - 1, "each chunk leaves an array that nobody needs any more"
    assert {int(count) for _, count in optax.tree.get_all_with_path(carry[1], "step")} == {STEPS}


def test_steps_leave_nothing_behind():
    """A Python loop over single steps does not leak memory."""
    tx, data = pugd_optax.pugd(0.1), examples()

    @jax.jit
    def update(params, state):
        extra = extra_args(data)
        return tx.update(extra["grad_fn"](params), state, params, **extra)

    params, alive = classifier(), []
    state = tx.init(params)
    for _ in range(200):
        _, state = update(params, state)
        alive.append(len(jax.live_arrays()))
    gc.collect()
    assert len(jax.live_arrays()) <= alive[0]
