"""Breaks of a string into hadrons: a toy of the Lund model, with exact densities and chains.

The first break of a string, as Pythia has it by default (manual pages ZSelection and PTSelection,
without their tail of large transverse momenta): px, py are normal with the width `SIGMA`,
and z given the transverse mass m_T follows (1/z) (1 - z)^a exp(-b m_T^2 / z). The setting of
MLhad (2203.04983) and HOMER (2410.06342).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jgen.arrays import double_array
from jgen.checks import check_fraction, check_positive, check_whole
from jgen.random import normal
from jgen.toys.toy import Toy
from jgen.typing import Key

SIGMA = 0.335
"""Width of px and of py [GeV]."""
PION, KAON = 0.13957, 0.49368
"""Masses of charged mesons [GeV]."""
_A, _B = 0.68, 0.98  # Pythia's defaults; b in 1 / GeV^2
# Equal steps in logit z, over which z's density falls to rounding at both ends.
_LOGITS = np.linspace(-12.0, 12.0, 1201)


def string_break(mass: float | Float[Array, ""], a: float = _A, b: float = _B) -> Toy:
    """First break of a string into a hadron: events (px [GeV], py [GeV], z).

    Normalised by the trapezoidal rule in logit z, whose error is that of rounding.

    Args:
      mass: of the hadron [GeV], positive; `PION` or `KAON`.
      a: power of 1 - z.
      b: of the exponential [1 / GeV^2].

    Raises:
      ValueError: for numbers that are not positive.
    """
    check_positive(mass=mass, a=a, b=b)

    def density(logit, transverse):
        """Logarithm of the density of logit z, not normalised; transverse is m_T^2."""
        # z and 1 - z are sigmoids, and the density of z times z (1 - z) that of its logit.
        return (a + 1) * jax.nn.log_sigmoid(-logit) - b * transverse * (1 + jnp.exp(-logit))

    def transverse_of(px, py):
        return mass**2 + px**2 + py**2

    def sample(key):
        key_p, key_z = jax.random.split(key)
        px, py = SIGMA * normal(key_p, (2,))
        grid = jnp.asarray(_LOGITS, px.dtype)
        values = density(grid, transverse_of(px, py))
        heights = jnp.exp(values - jnp.max(values))
        cumulative = jnp.append(0.0, jnp.cumsum(heights[1:] + heights[:-1]))
        drawn = jax.random.uniform(key_z) * cumulative[-1]
        return jnp.stack([px, py, jax.nn.sigmoid(jnp.interp(drawn, cumulative, grid))])

    def log_prob(x):
        px, py, z = x
        transverse = transverse_of(px, py)
        grid = jnp.asarray(_LOGITS, x.dtype)
        norm = jax.nn.logsumexp(density(grid, transverse)) + math.log(_LOGITS[1] - _LOGITS[0])
        inside = (z > 0) & (z < 1)
        z = jnp.where(inside, z, 0.5)
        of_z = a * jnp.log1p(-z) - jnp.log(z) - b * transverse / z - norm
        of_p = -(px**2 + py**2) / (2 * SIGMA**2) - math.log(2 * math.pi * SIGMA**2)
        return jnp.where(inside, of_p + of_z, -jnp.inf)

    return Toy(3, sample, log_prob)


class BreakMoments(NamedTuple):
    """Exact numbers of `string_break`.

    Attributes:
      entropy: of (px, py, z) in nats, momenta in GeV.
      mean: of z.
    """

    entropy: float
    mean: float


def break_moments(mass: float, a: float = _A, b: float = _B) -> BreakMoments:
    """Entropy and mean of z, by quadrature in double precision."""
    check_positive(mass=mass, a=a, b=b)
    # pT^2 / (2 sigma^2) is exponential.
    nodes, weights = np.polynomial.laguerre.laggauss(40)
    z, p = _distribution(mass**2 + 2 * nodes * SIGMA**2, a, b)
    density = p / (z * (1 - z) * (_LOGITS[1] - _LOGITS[0]))
    entropy = -np.sum(p * np.log(np.maximum(density, 1e-300)), axis=1)
    of_p = 1 + math.log(2 * math.pi * SIGMA**2)
    return BreakMoments(of_p + float(weights @ entropy), float(weights @ (p @ z)))


def mean_z(
    pt: Float[np.ndarray, " n"], mass: float, a: float = _A, b: float = _B
) -> Float[np.ndarray, " n"]:
    """Mean of z at transverse momenta [GeV]."""
    z, p = _distribution(mass**2 + double_array(pt, "pt") ** 2, a, b)
    return p @ z


def _distribution(transverse, a, b):
    """Z on the grid [cells] and the probabilities of its cells [n, cells]."""
    z = 1 / (1 + np.exp(-_LOGITS))
    log_p = -(a + 1) * np.log1p(np.exp(_LOGITS))
    log_p = log_p - b * transverse[:, None] * (1 + np.exp(-_LOGITS))
    p = np.exp(log_p - log_p.max(axis=1, keepdims=True))
    return z, p / p.sum(axis=1, keepdims=True)


class Chain(NamedTuple):
    """Hadrons of one string.

    Attributes:
      momenta: E + pz, px, py, E - pz [GeV], zeros beyond the last hadron.
      masses: of the hadrons [GeV].
      there: which hadrons there are.
      rest: of the string that is left, a vector like theirs.
    """

    momenta: Float[Array, "breaks 4"]
    masses: Float[Array, " breaks"]
    there: Bool[Array, " breaks"]
    rest: Float[Array, " 4"]


def fragment(
    draw_break: Callable[[Key, Float[Array, ""]], Float[Array, " 3"]],
    key: Key,
    energy: float,
    *,
    kaons: float = 0.2,
    least_mass: float = 2.0,
    most: int = 60,
) -> Chain:
    """Break hadrons off one end of a string at rest until little is left; momentum is conserved.

    Each takes the share z of E + pz and the transverse momentum (px, py) in the frame where the
    string has none, to which one comes by a transverse boost that leaves E + pz as it is. E - pz
    follows from its mass; the string keeps the rest. A break that would leave a mass below
    `least_mass` is the end. Deviations from Pythia: breaks are of one end and alike, one half of
    a hadron's transverse momentum does not come from the break before, and the last string is
    left as it is.

    Args:
      draw_break: (key, mass) -> (px, py, z): of `string_break`, or of a model.
      key: typed PRNG key.
      energy: of the string [GeV].
      kaons: probability that a hadron is a kaon, else it is a pion.
      least_mass: of what is left [GeV].
      most: breaks at most.

    Raises:
      ValueError: for numbers out of range.
    """
    check_positive(energy=energy, least_mass=least_mass)
    check_fraction(kaons=kaons)
    check_whole(most=most)

    def go_on(state, key):
        rest, alive = state
        key_flavour, key_break = jax.random.split(key)
        mass = jnp.where(jax.random.bernoulli(key_flavour, kaons), KAON, PION)
        px, py, z = draw_break(key_break, mass)
        plus = z * rest[0]
        transverse = jnp.stack([px, py]) + z * rest[1:3]
        minus = (mass**2 + jnp.sum(transverse**2)) / plus
        hadron = jnp.stack([plus, *transverse, minus])
        left = rest - hadron
        heavy = left[0] * left[3] - left[1] ** 2 - left[2] ** 2 > least_mass**2
        alive = alive & heavy & (left[3] > 0)
        rest = jnp.where(alive, left, rest)
        return (rest, alive), (jnp.where(alive, hadron, 0), mass, alive)

    start = jnp.array([energy, 0.0, 0.0, energy])
    state = start, jnp.asarray(True)
    (rest, _), hadrons = jax.lax.scan(go_on, state, jax.random.split(key, most))
    return Chain(*hadrons, rest)
