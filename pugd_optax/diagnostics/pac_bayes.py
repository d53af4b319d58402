r"""A PAC-Bayes bound that holds at its stated confidence, including the error of estimating the risk under noise."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pugd_optax._checks import check_count, check_number, check_same
from pugd_optax._norms import widen
from pugd_optax.ascents import offset
from pugd_optax.noise import as_key, draw


def perturbed_risk(
    error_fn: Callable[[optax.Params], jax.Array],
    params: optax.Params,
    radius: float,
    key: jax.Array | int = 0,
    *,
    samples: int = 1000,
) -> jax.Array:
    r"""The mean error under Gaussian noise, $\hat{\mathbb{E}}_{\xi}\, L(w + \xi)$ with
    $\xi \sim \mathcal{N}(0, \tfrac{\rho^2}{d} I)$.

    The draws are independent, as `pac_bayes_bound` requires; those of `average_sharpness` come in pairs.

    Args:
      error_fn: `params -> error`, a scalar in [0, 1], such as the share of training examples that are misclassified.
      params: $w$.
      radius: $\rho \ge 0$, the root mean square length of the noise over all parameters.
      key: a PRNG key or an integer seed. Use a different one for every radius.
      samples: number of draws, each one evaluation of the error, at least 1.

    Returns:
      A scalar.

    Raises:
      ValueError, TypeError: if an argument is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> wrong = lambda w: jnp.mean(w[0] * jnp.array([-1.0, 0.5, 2.0]) < 0)
      >>> print(f"{perturbed_risk(wrong, jnp.array([0.1]), radius=0.2):.2f}")
      0.43
    """
    check_number("radius", radius, low=0)
    check_count("samples", samples, low=1)
    key, scale = as_key(key), radius / np.sqrt(_size(params))
    times = lambda x: jnp.asarray(scale, widen(x).dtype) * widen(x)
    one = lambda i: jnp.asarray(error_fn(offset(params, jax.tree.map(times, draw(key, i, params)))))
    return jnp.mean(jax.lax.map(one, jnp.arange(samples)).astype(jnp.float32))


def pac_bayes_bound(
    risk: jax.typing.ArrayLike,
    params: optax.Params,
    prior: optax.Params,
    radius: jax.typing.ArrayLike,
    num_examples: int,
    *,
    samples: int | None,
    confidence: float = 0.975,
    sampling_confidence: float = 0.99,
) -> np.ndarray:
    r"""An upper bound on the risk, on new data, of parameters under Gaussian noise of a given radius.

    For the binary $\mathrm{kl}(q \| p) = q \ln\frac{q}{p} + (1 - q) \ln\frac{1 - q}{1 - p}$ and its inverse
    $\mathrm{kl}^{-1}(q, c) = \max\{p : \mathrm{kl}(q \| p) \le c\}$,

    $$\mathbb{E}_{Q} L_{\mathcal{D}} \le \mathrm{kl}^{-1}\Big(\mathbb{E}_{Q} L_S,\;
        \frac{\mathrm{KL} + \ln(2 k \sqrt{n} / \delta)}{n}\Big), \qquad
      \mathbb{E}_{Q} L_S \le \mathrm{kl}^{-1}\Big(\hat L,\; \frac{\ln(k / \delta')}{m}\Big), \qquad
      \mathrm{KL} = \frac{d\, \|w - w_0\|^2}{2 \rho^2}$$

    with $Q = \mathcal{N}(w, \sigma^2 I)$, $P = \mathcal{N}(w_0, \sigma^2 I)$ and $\sigma = \rho / \sqrt{d}$. The first
    inequality fails with probability $\delta$ over the draw of the $n$ examples, the second with probability $\delta'$
    over the $m$ draws of the noise, so both hold with $1 - \delta - \delta'$ at least, for all $k$ radii at once.
    A larger radius increases the empirical risk and lowers the KL term; flat minima allow larger radii.

    Args:
      risk: $\hat L$, the training risk under the noise in [0, 1], the mean of `samples` independent draws:
        `perturbed_risk(error_fn, params, radius, key, samples=samples)`. A number, or one for every radius.
      params: $w$.
      prior: $w_0$, chosen before the examples were seen, such as the initial parameters; a tree like the parameters.
      radius: $\rho > 0$, a number, or the $k$ radii of a grid that was **fixed before** the examples were seen. The
        bounds of a grid hold simultaneously, so the smallest of them is a valid bound; passing only one picked radius
        is not valid.
      num_examples: $n \ge 1$.
      samples: $m \ge 1$, the number of draws for each number of `risk`; None if it is exact, for example in closed
        form.
      confidence: $1 - \delta$ in (0, 1).
      sampling_confidence: $1 - \delta'$ in (0, 1); the defaults are those of Dziugaite and Roy, .965 together.

    Returns:
      The bounds as float64, in the shape of `radius`, at most 1. A bound of 1 says nothing, which is the usual case for
      networks at small radii. It is computed on the host, outside of jit.

    Raises:
      ValueError, TypeError: if an argument is out of its range, or prior and parameters differ in shape.

    Example:
      >>> import jax.numpy as jnp
      >>> w, start = jnp.array([0.3]), jnp.array([0.0])
      >>> bounds = pac_bayes_bound([0.05, 0.1], w, start, radius=[0.1, 0.3], num_examples=1000, samples=2000)
      >>> bounds.round(3), bounds.min().round(3)
      (array([0.115, 0.172]), np.float64(0.115))

    References:
      Langford and Caruana, (Not) Bounding the True Error, NeurIPS 2001, whose $\ln(2 / \delta')$ is two-sided;
      Dziugaite and Roy, Computing Nonvacuous Generalization Bounds, UAI 2017, https://arxiv.org/abs/1703.11008;
      Maurer, A Note on the PAC Bayesian Theorem, https://arxiv.org/abs/cs/0411099
    """
    radius = np.asarray(radius, np.float64)
    _check(risk, radius, num_examples, samples, {"confidence": confidence, "sampling_confidence": sampling_confidence})
    check_same("prior", prior, "params", params, "pass the parameters that training started from")
    risk = np.asarray(risk, np.float64)
    if samples is not None:
        risk = kl_inverse(risk, np.log(radius.size / (1 - sampling_confidence)) / samples)
    kl = _size(params) * _squared_distance(params, prior) / (2 * radius**2)
    return kl_inverse(risk, (kl + np.log(2 * radius.size * np.sqrt(num_examples) / (1 - confidence))) / num_examples)


def kl_inverse(q: np.ndarray, bound: np.ndarray) -> np.ndarray:
    r"""The largest $p \ge q$ with $\mathrm{kl}(q \| p) \le c$, by bisection in float64; 1 for a c that is NaN.

    Example:
      >>> kl_inverse(np.array(0.0), np.array(0.5)).round(4)  # 1 - exp(-c)
      np.float64(0.3935)
    """
    q, bound = np.broadcast_arrays(np.asarray(q, np.float64), np.asarray(bound, np.float64))
    low, high = q.copy(), np.ones_like(q)
    for _ in range(60):
        middle = (low + high) / 2
        below = ~(_binary_kl(q, middle) > bound)
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return high


def _binary_kl(q: np.ndarray, p: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return _times_log(q, p) + _times_log(1 - q, 1 - p)


def _times_log(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`-a log(b / a)`, or 0 if `a` is 0; from the difference if they are close, where the terms cancel."""
    logarithm = np.where(abs(b - a) < a / 2, np.log1p((b - a) / a), np.log(b / a))
    return np.where(a > 0, -a * logarithm, 0)


def _squared_distance(params: optax.Params, prior: optax.Params) -> float:
    """The squared distance; twice that of complex numbers, whose parts each have half of the variance of the noise."""
    wide = lambda x: np.asarray(x, np.complex128 if jnp.iscomplexobj(x) else np.float64)
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(prior), strict=True)
    return float(sum((1 + jnp.iscomplexobj(w)) * np.sum(np.abs(wide(w) - wide(w0)) ** 2) for w, w0 in pairs))


def _check(
    risk: jax.typing.ArrayLike, radius: np.ndarray, num_examples: int, samples: int | None, confidences: dict
) -> None:
    check_count("num_examples", num_examples, low=1)
    if samples is not None:
        check_count("samples", samples, low=1)
    for name, value in confidences.items():
        check_number(name, value, low=0, below=1)
        if not value:
            raise ValueError(f"{name}=0: expected a number in (0, 1). Fix: {name}=0.99.")
    if radius.ndim > 1 or not radius.size or not (np.isfinite(radius) & (radius > 0)).all():
        raise ValueError(f"radius={radius.tolist()}: expected a radius > 0, or a grid. Fix: radius=[0.1, 0.3, 1].")
    if np.shape(risk) != radius.shape:
        raise ValueError(
            f"risk has the shape {np.shape(risk)}, radius has {radius.shape}. Fix: one risk for every radius."
        )
    if not ((np.asarray(risk) >= 0) & (np.asarray(risk) <= 1)).all():
        raise ValueError(f"risk={np.asarray(risk).tolist()}: expected numbers in [0, 1]. Fix: an error rate.")


def _size(params: optax.Params) -> int:
    return sum(jnp.size(x) for x in jax.tree.leaves(params))
