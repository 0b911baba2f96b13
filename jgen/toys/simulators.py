"""Simulators with known posteriors: tasks of the benchmark of simulation-based inference.

gaussian_linear, gaussian_mixture, two_moons and slcp of `sbibm` (2101.04653), with their
likelihoods, which inference must not use, and with exact draws of their posteriors.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from jgen.checks import check_known
from jgen.inference.posteriors import LogLikelihood, sample_posterior
from jgen.inference.priors import Prior, normal_prior, uniform_prior
from jgen.random import stream
from jgen.toys.gaussian import normal_log_prob
from jgen.typing import Key


class Simulator(NamedTuple):
    """A prior, a simulator, and what is known of the posterior.

    Attributes:
      prior: of theta.
      simulate: (key, theta) -> x [n], one simulation.
      log_likelihood: (theta, x) -> log p(x | theta) in nats.
      posterior: (key, x, num) -> [num, dim], draws of p(theta | x) on the host.
    """

    prior: Prior
    simulate: Callable[[Key, Float[Array, " dim"]], Float[Array, " n"]]
    log_likelihood: LogLikelihood
    posterior: Callable[[Key, np.ndarray, int], Float[np.ndarray, "num dim"]]


def gaussian_linear(dim: int = 10) -> Simulator:
    """Theta ~ N(0, 0.1), x ~ N(theta, 0.1) (variances): the posterior is N(x / 2, 0.05)."""
    width = math.sqrt(0.1)
    prior = normal_prior(np.zeros(dim), np.full(dim, width))

    def posterior(key, x, num):
        return x / 2 + math.sqrt(0.05) * np.asarray(jax.random.normal(key, (num, dim)))

    return Simulator(
        prior,
        lambda key, theta: theta + width * jax.random.normal(key, theta.shape),
        lambda theta, x: jnp.sum(normal_log_prob(x, theta, width)),
        posterior,
    )


def gaussian_mixture() -> Simulator:
    """Theta uniform in [-10, 10]^2, x from N(theta, 1) or N(theta, 0.1) (widths), half each."""
    prior = uniform_prior(np.full(2, -10.0), np.full(2, 10.0))
    widths = 1.0, 0.1

    def around(key, centre):
        key_width, key_shift = jax.random.split(key)
        width = jnp.where(jax.random.bernoulli(key_width), *widths)
        return centre + width * jax.random.normal(key_shift, (2,))

    def log_likelihood(theta, x):
        each = [jnp.sum(normal_log_prob(x, theta, width)) for width in widths]
        return logsumexp(jnp.stack(each)) - math.log(2)

    return Simulator(prior, around, log_likelihood, _rejected(prior, around))


def two_moons() -> Simulator:
    """Theta uniform in [-1, 1]^2; x on a thin half circle that |theta_1 + theta_2| moves left.

    x = (r cos a + 1/4, r sin a) + (-|theta_1 + theta_2|, theta_2 - theta_1) / sqrt(2), with a
    uniform in (-pi/2, pi/2) and r ~ N(0.1, 0.01): the posterior is two moons.
    """
    prior = uniform_prior(np.full(2, -1.0), np.full(2, 1.0))

    def half_circle(key):
        key_angle, key_radius = jax.random.split(key)
        angle = math.pi * (jax.random.uniform(key_angle) - 0.5)
        radius = 0.1 + 0.01 * jax.random.normal(key_radius)
        return jnp.stack([radius * jnp.cos(angle) + 0.25, radius * jnp.sin(angle)])

    def centre(theta):
        total, difference = theta[0] + theta[1], theta[1] - theta[0]
        return jnp.stack([-jnp.abs(total), difference]) / math.sqrt(2)

    def log_likelihood(theta, x):
        u, v = x - centre(theta) - jnp.array([0.25, 0.0])
        # The point where both vanish has no gradient, and no probability.
        square = jnp.maximum(u**2 + v**2, 1e-12)
        radius = jnp.sqrt(square)
        inside = normal_log_prob(radius, 0.1, 0.01) - 0.5 * jnp.log(square) - math.log(math.pi)
        # Left of the circle's centre the likelihood is zero; in logarithms, hardly anything.
        return jnp.where(u > 0, inside, -1e4)

    def proposal(key, x):
        key_point, key_sign = jax.random.split(key)
        shift = math.sqrt(2) * (x - half_circle(key_point))
        sign = 2.0 * jax.random.bernoulli(key_sign) - 1
        # Of both solutions of theta_1 + theta_2 = +-|...|; there is none where that is negative.
        total = jnp.where(shift[0] <= 0, sign * shift[0], jnp.nan)
        return 0.5 * jnp.stack([total - shift[1], total + shift[1]])

    simulate = lambda key, theta: half_circle(key) + centre(theta)
    return Simulator(prior, simulate, log_likelihood, _rejected(prior, proposal))


def slcp() -> Simulator:
    """Simple likelihood, complex posterior: four points of a normal with five parameters.

    theta uniform in [-3, 3]^5: means, roots of the standard deviations, and the inverse hyperbolic
    tangent of the correlation. The posterior has four modes, of the signs of theta_3 and theta_4.
    Draws of it are those of `sample_posterior` with the likelihood, and random signs.
    """
    prior = uniform_prior(np.full(5, -3.0), np.full(5, 3.0))
    smallest = 1e-6  # added to both variances, as in the published code

    def normal_of(theta):
        widths, correlation = theta[2:4] ** 2, jnp.tanh(theta[4])
        off = correlation * widths[0] * widths[1]
        variances = widths**2 + smallest
        return theta[:2], variances, off

    def simulate(key, theta):
        mean, (first, second), off = normal_of(theta)
        e = jax.random.normal(key, (4, 2))
        scale = jnp.sqrt(first)
        rest = jnp.sqrt(jnp.maximum(second - off**2 / first, 0.0))
        shift = jnp.stack([scale * e[:, 0], off / scale * e[:, 0] + rest * e[:, 1]], axis=1)
        return (mean[None] + shift).ravel()

    def log_likelihood(theta, x):
        mean, (first, second), off = normal_of(theta)
        a, b = (x.reshape(4, 2) - mean[None]).T
        slope = off / first
        rest = second - off * slope
        # Conditionally on the first component, so that nothing cancels at large correlations.
        return jnp.sum(
            normal_log_prob(a, 0.0, jnp.sqrt(first))
            + normal_log_prob(b, slope * a, jnp.sqrt(jnp.maximum(rest, smallest)))
        )

    def posterior(key, x, num):
        draws = sample_posterior(
            prior, log_likelihood, x, stream(key, "chains"), num, candidates=4_000_000, moves=40
        )
        signs = 2 * jax.random.bernoulli(stream(key, "signs"), shape=(num, 2)) - 1
        return np.concatenate([draws[:, :2], draws[:, 2:4] * np.asarray(signs), draws[:, 4:]], 1)

    return Simulator(prior, simulate, log_likelihood, posterior)


def _rejected(prior, proposal):
    """Draws of `proposal(key, x)` that lie in the prior's support; NaN is nowhere."""

    @jax.jit
    def proposals(keys, x):
        theta = jax.vmap(proposal, in_axes=(0, None))(keys, x)
        return theta, jax.vmap(prior.log_prob)(theta)

    def posterior(key, x, num):
        found, round_ = [], 0
        while sum(map(len, found)) < num:
            keys = jax.random.split(jax.random.fold_in(key, round_), 2 * num + 100)
            theta, log_prior = map(np.asarray, proposals(keys, jnp.asarray(x)))
            found.append(theta[np.isfinite(log_prior)])
            round_ += 1
            if round_ == 100:
                raise ValueError(f"x = {x} is not possible under this prior")
        return np.concatenate(found)[:num]

    return posterior


SIMULATORS = {
    "gaussian_linear": gaussian_linear,
    "gaussian_mixture": gaussian_mixture,
    "two_moons": two_moons,
    "slcp": slcp,
}
"""The tasks by their published names."""


def observations(name: str) -> Float[np.ndarray, "10 n"]:
    """The published observations of a task of `SIMULATORS` (sbibm, 2101.04653)."""
    check_known(SIMULATORS, name=name)
    text = (Path(__file__).parent / "data" / "sbibm_observations.json").read_text()
    return np.array(json.loads(text)[name], np.float32)
