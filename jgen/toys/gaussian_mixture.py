"""Gaussian mixtures, and everything that a diffusion model of them would have to learn.

On a Gaussian path x_t = alpha x1 + sigma x0 a mixture stays a mixture, so that the marginals, the
score, the velocity and the mean E[x1 | x_t] are known at every time: what samplers, predictions and
likelihoods are tested against.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Real

from jgen.paths import Path, Prediction, interpolate
from jgen.random import normal
from jgen.toys.gaussian import normal_log_prob
from jgen.toys.toy import Toy


class GaussianMixture(NamedTuple):
    """Normal components with independent coordinates.

    Attributes:
      fractions: of the components [k], of sum one.
      means: of the components [k, dim].
      widths: standard deviations [k, dim].
    """

    fractions: Float[Array, " k"]
    means: Float[Array, "k dim"]
    widths: Float[Array, "k dim"]


def gaussian_mixture(
    means: Real[np.ndarray, "k dim"],
    widths: Real[np.ndarray, "..."],
    fractions: Real[np.ndarray, " k"] | None = None,
) -> GaussianMixture:
    """A mixture of k components in float64 numpy.

    Args:
      means: of the components.
      widths: their standard deviations, of a shape that broadcasts with that of `means`.
      fractions: of the components, scaled to the sum one; equal unless given.

    Raises:
      ValueError: for other shapes, or widths and fractions that are not positive.
    """
    means = np.asarray(means, np.float64)
    if means.ndim != 2 or means.size == 0:
        raise ValueError(f"means need the shape [components, dimensions], got {means.shape}")
    widths = np.broadcast_to(np.asarray(widths, np.float64), means.shape)
    fractions = np.ones(len(means)) if fractions is None else np.asarray(fractions, np.float64)
    if fractions.shape != means.shape[:1]:
        raise ValueError(f"{len(means)} means need as many fractions, got {fractions.shape}")
    if not (np.all(widths > 0) and np.all(fractions > 0)):
        raise ValueError("widths and fractions must be positive")
    return GaussianMixture(fractions / fractions.sum(), means, widths)


def mixture_toy(mixture: GaussianMixture) -> Toy:
    """Events and density of a mixture."""
    fractions, means, widths = (jnp.asarray(a) for a in mixture)

    def sample(key):
        key_component, key_normal = jax.random.split(key)
        k = jax.random.choice(key_component, len(fractions), p=fractions)
        return means[k] + widths[k] * normal(key_normal, means.shape[1:], means.dtype)

    return Toy(means.shape[1], sample, lambda x: logsumexp(_log_joint(mixture, x)))


def mixture_on_path(mixture: GaussianMixture, path: Path, t: Float[Array, ""]) -> GaussianMixture:
    """The distribution of x_t, exact for noise of any kind of path."""
    alpha, sigma = path.alpha(t), path.sigma(t)
    widths = jnp.sqrt((alpha * mixture.widths) ** 2 + sigma**2)
    return GaussianMixture(mixture.fractions, alpha * mixture.means, widths)


def mixture_prediction(
    mixture: GaussianMixture, path: Path, kind: Prediction
) -> Callable[[Float[Array, ""], Float[Array, " dim"]], Float[Array, " dim"]]:
    """(t, x) -> what a perfect network of this kind predicts, one of those of `jgen.paths`.

    Noise and data are averages over the components' posterior,

        E[x0 | x] = sum_k p(k | x) sigma (x - alpha m_k) / (alpha^2 w_k^2 + sigma^2),
        E[x1 | x] = sum_k p(k | x) [m_k + alpha w_k^2 (x - alpha m_k) / (alpha^2 w_k^2 + sigma^2)],

    which both hold where alpha or sigma vanish; the rest is linear in them.
    """

    def prediction(t, x):
        alpha, sigma = path.alpha(t), path.sigma(t)
        at_t = mixture_on_path(mixture, path, t)
        shares = jax.nn.softmax(_log_joint(at_t, x))[:, None]
        pull = (x[None] - at_t.means) / at_t.widths**2
        noise = sigma * jnp.sum(shares * pull, axis=0)
        data = jnp.sum(shares * (mixture.means + alpha * mixture.widths**2 * pull), axis=0)
        return interpolate(path, t, noise, data, kind)[1]

    return prediction


def _log_joint(mixture, x):
    """Logarithms of fraction times density of each component [k]."""
    each = normal_log_prob(x[None], mixture.means, mixture.widths)
    return jnp.log(mixture.fractions) + jnp.sum(each, axis=1)
