"""Code shared by the claims on short trainings: disjoint images, training steps, and grids that extend."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from experiments.claims import catalog
from experiments.claims.ledger import Ledger
from experiments.claims.theory import images
from experiments.claims.theory.tuning import choose
from experiments.claims.workspace import Workspace
from experiments.config.errors import UsageError

FRESH = 7_000
SEEDS = range(FRESH, FRESH + 3)


def rows_of(x: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in x.reshape(-1, x.shape[-1])}


def test_images_of_choosing_validation_and_verdict_are_apart():
    tried, final = (draw("digits", None, SEEDS, 200) for draw in (images.to_choose, images.to_judge))
    parts = [rows_of(x) for x in (tried.x, tried.test_x, final.x, final.test_x)]
    for i, one in enumerate(parts):
        assert not any(one & other for other in parts[i + 1 :])
    assert not np.array_equal(tried.x[0], tried.x[1])


def test_flips_a_share_of_the_labels_to_other_classes():
    parts = images.to_judge("digits", None, SEEDS, 200)
    wrong = images.flipped(parts, 0.2, SEEDS).y != parts.y
    np.testing.assert_array_equal(wrong.sum(axis=1), 40)


def test_one_full_batch_step_is_gradient_descent_with_decay():
    x, y = jax.random.normal(jax.random.key(0), (1, 20, 6)), np.arange(20)[None] % 10
    training = images.Training(lambda key: images.mlp(key, (6, 4, 10)), 1, 20)
    run = jax.tree.map(lambda a: jnp.asarray(a[0]), images.runs(training, images.Parts(x, y, x[0], y[0]), [FRESH]))
    loss_fn = lambda w: optax.softmax_cross_entropy_with_integer_labels(images.logits(w, run.x), run.y).mean()
    expected = jax.tree.map(lambda w, g: w - 0.1 * (g + 0.01 * w), run.start, jax.grad(loss_fn)(run.start))
    found, _ = images.fit(training, optax.identity(), 0.1, run, decay=0.01)
    chex.assert_trees_all_close(found, expected, atol=1e-6)


def test_every_epoch_takes_every_example_once_in_an_order_of_its_own():
    parts = images.to_judge("digits", None, SEEDS, 200)
    order = images.runs(images.Training(lambda key: (), 2, 40), parts, SEEDS).order
    assert order.shape == (3, 2, 5, 40)
    np.testing.assert_array_equal(np.sort(order.reshape(6, 200)), np.tile(np.arange(200), (6, 1)))
    assert len(rows_of(order.reshape(6, 200))) == 6


def test_grid_extends_beyond_the_edge_that_wins():
    chosen = choose(lambda a, b: -abs(np.log(a / 8)) - abs(b - 2), {"a": (1.0, 2.0), "b": (1.0, 2.0, 3.0)})
    assert chosen.values == {"a": 8.0, "b": 2.0}
    assert chosen.tried == {"a": [1.0, 2.0, 4.0, 8.0, 16.0], "b": [1.0, 2.0, 3.0]}
    assert not chosen.ends


def test_what_was_not_tried_has_no_score_on_the_page():
    assert choose(lambda a: 90.0, {"a": (1.0,)}).choice("", "").validation == []
    assert choose(lambda a: a, {"a": (1.0, 2.0)}, reach=0).choice("", "").validation == [2.0]


def test_grid_that_may_not_extend_far_enough_says_so():
    chosen = choose(lambda a: a, {"a": (1.0, 2.0)}, reach=2)
    assert chosen.values == {"a": 8.0}
    assert str(chosen) == "a 8 (at the end of the grid: a)"


def test_what_diverges_is_not_chosen():
    assert choose(lambda a: np.nan if a > 1 else a, {"a": (0.5, 1.0, 2.0)}).values == {"a": 1.0}


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UsageError, match="pass --data-dir or set PUGD_DATA_DIR"):
        catalog.claims()["pegr.real"].run("full")
    ledger = Ledger(tmp_path / "ledger", "pegr.real")
    with pytest.raises(UsageError, match=f"{tmp_path}/mnist/train-images-idx3-ubyte: no such file"):
        catalog.find("pegr.real", "full", 200, Workspace(tmp_path, ledger, tmp_path, Console(quiet=True)))
