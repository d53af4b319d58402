"""Amplifying a class enhances it; dampening it suppresses its overfitting.

**Statement.** The abstract of LPG, https://arxiv.org/abs/2605.29494: amplified gradients of a class act as positive
augmentation, which enhances learning; dampened ones as negative augmentation, which suppresses overfitting.

**Setting.** Fashion-MNIST at 14 x 14, 1000 images for training, MLP 196-64-64-10 with ReLU, momentum 0.9, batch 100, 30
epochs, cosine learning rate, last epoch. The logit gradients of one class at a time are multiplied by 1 + s, s from
-0.9 to 0.9, for the whole training (`lpg` with a fixed sign); each of the ten classes in turn. Measured of that class:
training accuracy, test accuracy (recall), the gap of the two, the gap of the cross-entropy, and F1, which counts
examples of other classes that are taken for it too.

**Hyperparameters.** Learning rate and weight decay are plain SGD's best by accuracy on 2000 validation images, 5 seeds
with separate images; the strengths of the verdict, +-0.6, were fixed in advance. Verdict: other seeds, images from the
other half of the training set.

**Success criteria.** Differences to s = 0, paired by seed, mean over the ten classes. Paper: at s = 0.6 the class's
test accuracy is higher, of interest from 1 point; at s = -0.6 the gap of its accuracy is smaller, of interest from 1
point. Extra: at s = 0.6 its F1 is higher, of interest from 0.5 points; at s = -0.6 the gap of its cross-entropy is
smaller, of interest from 0.05; at either the accuracy over all classes loses less than 0.5 points.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pugd_optax
from experiments.claims.claim import Finding, Line, Panel, Rows, Scale
from experiments.claims.conditions import Condition, above, within
from experiments.claims.theory import images, tuning
from experiments.claims.theory.tuning import Chosen, choose
from experiments.report.stats import show

CLASSES, AT = 10, 0.6


class Size(NamedTuple):
    """How large the experiment is."""

    dataset: str
    examples: int
    epochs: int
    rates: tuple[float, ...]
    decays: tuple[float, ...]
    strengths: tuple[float, ...]
    choosing_seeds: int
    seeds: int

    @property
    def training(self) -> images.Training:
        """Network and length."""
        return images.classifier(self.dataset, (64, 64), self.epochs)


SIZES: dict[Scale, Size] = {
    "smoke": Size("digits", 200, 2, (0.1,), (1e-4,), (-AT, 0.0, AT), 1, 2),
    "full": Size(
        "fashion_mnist",
        1000,
        30,
        tuning.RATES,
        tuning.DECAYS,
        (-0.9, -AT, -0.3, 0.0, 0.3, AT, 0.9),
        5,
        10,
    ),
}


class Outcome(NamedTuple):
    """Of the class whose gradients were scaled, in percent but for the cross-entropy; and accuracy over all classes."""

    training: jax.Array
    test: jax.Array
    gap: jax.Array
    loss_gap: jax.Array
    f1: jax.Array
    overall: jax.Array


def run(scale: Scale, first_seed: int = 200, data_dir: Path | None = None) -> Finding:
    """Choose for plain SGD, then scale the gradients of one class at a time."""
    size = SIZES[scale]
    choosing, fresh = tuning.seeds(size.choosing_seeds, first_seed, size.seeds)
    tried = images.to_choose(size.dataset, data_dir, choosing, size.examples)
    measure = images.compiled(size.training, lambda key: optax.identity(), tried, choosing)
    chosen = choose(lambda **point: float(np.mean(measure(**point))), {"rate": size.rates, "decay": size.decays})
    found = _swept(size, images.to_judge(size.dataset, data_dir, fresh, size.examples), fresh, chosen)
    mean = {s: Outcome(*(values[i].mean(axis=1) for values in found)) for i, s in enumerate(size.strengths)}
    rows: Rows = {f"s = {s:g}": _columns(outcome) for s, outcome in mean.items()}
    choices = [chosen.choice("Fashion-MNIST", "plain")]
    return Finding(rows, _panels(mean, found, size), _conditions(mean), _reading(mean, chosen), choices)


def _swept(size: Size, parts: images.Parts, seeds: range, chosen: Chosen) -> Outcome:
    """Outcomes [strengths, seeds, classes]."""
    rate, decay = chosen.values["rate"], chosen.values["decay"]

    @jax.jit
    def solve(s: jax.Array, c: jax.Array, every: images.Runs, test: tuple[jax.Array, jax.Array]) -> Outcome:
        rule = lambda state: (jnp.sign(s) * (jnp.arange(CLASSES) == c), jnp.zeros(CLASSES))
        method = pugd_optax.lpg(CLASSES, jnp.abs(s), 0.0, rule=rule)

        def one(run: images.Runs) -> Outcome:
            params, _ = images.fit(size.training, method, rate, run, decay=decay)
            return _measured(params, c, (run.x, run.y), test, size)

        return jax.lax.map(one, every)

    given = jax.tree.map(jnp.asarray, (images.runs(size.training, parts, seeds), (parts.test_x, parts.test_y)))
    each = [[solve(jnp.float32(s), jnp.int32(c), *given) for c in range(CLASSES)] for s in size.strengths]
    stacked = [jax.tree.map(lambda *x: np.stack(x, axis=1), *of_classes) for of_classes in each]
    return jax.tree.map(lambda *x: np.stack(x), *stacked)


def _measured(params, c: jax.Array, train: tuple, test: tuple, size: Size) -> Outcome:
    def measure(x: jax.Array, y: jax.Array):
        logits = size.training.logits_fn(params, x)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        guess, own = jnp.argmax(logits, axis=-1), y == c
        hit, share = jnp.sum((guess == c) & own), jnp.sum(own)
        f1 = 200 * hit / (share + jnp.sum(guess == c))
        return 100 * hit / share, jnp.sum(losses * own) / share, f1, 100 * jnp.mean(guess == y)

    (train_recall, train_loss, _, _), (recall, loss, f1, overall) = measure(*train), measure(*test)
    return Outcome(train_recall, recall, train_recall - recall, loss - train_loss, f1, overall)


def _columns(outcome: Outcome) -> dict[str, list[float]]:
    names = ("training % of the class", "test % of the class", "gap", "gap of the loss", "F1 of the class", "test %")
    return {name: list(values) for name, values in zip(names, outcome, strict=True)}


def _panels(mean: dict[float, Outcome], found: Outcome, size: Size) -> list[Panel]:
    strengths = list(size.strengths)
    line = lambda name, what: Line(name, strengths, [list(getattr(mean[s], what)) for s in strengths])
    accuracies = [line(n, w) for n, w in (("training", "training"), ("test", "test"), ("F1 on the test set", "f1"))]
    change = found.test - found.test[strengths.index(0.0)]
    ends = [Line(f"class {c}", [0.0], [list(change[strengths.index(AT), :, c])]) for c in range(CLASSES)]
    return [
        Panel("The scaled class, mean over classes", "strength s", "%", accuracies),
        Panel("The scaled class, mean over classes", "strength s", "training % - test %", [line("gap", "gap")]),
        Panel("All classes", "strength s", "test accuracy, %", [line("one class scaled", "overall")]),
        Panel(f"Each class at s = {AT}", "change of its test accuracy, points", "", ends, kind="points"),
    ]


def _conditions(mean: dict[float, Outcome]) -> list[Condition]:
    low, plain, high = (mean[s] for s in (-AT, 0.0, AT))
    return [
        above("amplified: test accuracy of the class higher", high.test, plain.test, margin=1.0, unit="points"),
        above("dampened: gap of the class smaller", plain.gap, low.gap, margin=1.0, unit="points"),
        above("amplified: F1 of the class higher", high.f1, plain.f1, margin=0.5, kind="extra", unit="points"),
        above(
            "dampened: gap of the class's cross-entropy smaller",
            plain.loss_gap,
            low.loss_gap,
            margin=0.05,
            kind="extra",
        ),
        *(
            within(
                f"{name}: accuracy over all classes loses less than 0.5",
                end.overall,
                plain.overall,
                margin=0.5,
                kind="extra",
                unit="points",
            )
            for name, end in (("amplified", high), ("dampened", low))
        ),
    ]


def _reading(mean: dict[float, Outcome], chosen: Chosen) -> str:
    said = "; ".join(
        f"s = {s:g}: test {show(mean[s].test)}, gap {show(mean[s].gap)}, F1 {show(mean[s].f1)}" for s in (-AT, 0.0, AT)
    )
    return f"Of the scaled class: {said}. Chosen: {chosen}."
