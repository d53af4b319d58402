"""Signal and noise in two patches, and a two-layer CNN that learns from them: the model of PEGR's paper.

An example consists of a patch y mu and a patch of Gaussian noise orthogonal to mu. The CNN has ten filters per class, a
cubed ReLU and a fixed second layer.
"""

import jax
import jax.numpy as jnp
import optax

from experiments.claims.theory.descent import descend

EXAMPLES, FILTERS, RATE, STEPS = 20, 10, 0.1, 1000


def examples(key: jax.Array, n: int, mu: jax.typing.ArrayLike, dimension: int) -> tuple[jax.Array, jax.Array]:
    """Patches [n, 2, dimension], the signal along the first axis and the noise across it; labels -1 and 1."""
    noise_key, label_key = jax.random.split(key)
    y = jax.random.rademacher(label_key, (n,), float)
    noise = jax.random.normal(noise_key, (n, dimension)).at[:, 0].set(0)
    return jnp.stack([jnp.zeros_like(noise).at[:, 0].set(mu * y), noise], axis=1), y


def start(key: jax.Array, dimension: int) -> jax.Array:
    """Filters [class, filter, dimension]; the first class is 1, the second -1."""
    return 0.01 * jax.random.normal(key, (2, FILTERS, dimension))


def network(w: jax.Array, x: jax.Array) -> jax.Array:
    """The output [n]; its sign is the predicted label."""
    by_class = jnp.mean(jnp.sum(jax.nn.relu(jnp.einsum("npd,jrd->npjr", x, w)) ** 3, axis=1), axis=-1)
    return by_class[:, 0] - by_class[:, 1]


def losses(w: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """Logistic loss of each example."""
    return jax.nn.softplus(-y * network(w, x))


def error(w: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """Share of wrong answers; NaN, not 0, for a network that has diverged."""
    f = network(w, x)
    return jnp.where(jnp.all(jnp.isfinite(f)), jnp.mean(y * f <= 0), jnp.nan)


def train(method: optax.GradientTransformation, w: jax.Array, x: jax.Array, y: jax.Array, **watched):
    """Full-batch gradient descent from `w`: the last filters, and the recorded values."""
    return descend(optax.chain(method, optax.sgd(RATE)), lambda w: losses(w, x, y), w, STEPS, **watched)


def signal(w: jax.Array, mu: jax.typing.ArrayLike) -> jax.Array:
    """<w, j mu> of every filter of class j, [class, filter]."""
    return w[:, :, 0] * mu * jnp.array([[1.0], [-1.0]])


def noise(w: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """<w, xi> of every example's noise with every filter of its own class, [class, filter, n], 0 for the other."""
    own = (1 + y[None] * jnp.array([[1.0], [-1.0]])) / 2
    return jnp.einsum("jrd,nd->jrn", w, x[:, 1]) * own[:, None]
