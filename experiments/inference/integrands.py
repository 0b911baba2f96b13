"""What `integration` integrates, each with the exact value: toys, and two cross-sections in pb."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgen import toys
from jgen.bijectors import Bijector, grid
from jgen.inference import Integrand
from jgen.physics import (
    GEV2_TO_PB,
    gluons_to_top,
    muon_pair,
    muon_pair_cross_section,
    quarks_to_top,
    top_cross_sections,
    toy_parton_density,
    two_body_volume,
)

MUON_S, PROTON_S, TOP_MASS = 189.0**2, 13_000.0**2, 172.5
_LEAST_LOG_TAU = math.log(4 * TOP_MASS**2 / PROTON_S)


class Target(NamedTuple):
    """An integral.

    Attributes:
      dim: of the cube.
      integrand: (x) -> f.
      exact: the integral.
      mappings: from x to the cube, a channel each; none where x is in the cube.
      flat_deviation: of flat points in the cube, where it is known.
    """

    dim: int
    integrand: Integrand
    exact: float
    mappings: tuple[Bijector, ...] = ()
    flat_deviation: float | None = None

    @property
    def in_cube(self) -> Integrand:
        """The integrand in the cube of the first mapping, its derivative included."""
        return _in_cube(self.integrand, self.mappings[0]) if self.mappings else self.integrand


@functools.lru_cache(maxsize=32)
def _in_cube(integrand: Integrand, mapping: Bijector) -> Integrand:
    def value(u):
        x, log_det = mapping.inverse(u, None)
        f = integrand(x)
        return jnp.where(f == 0, 0, f * jnp.exp(log_det))

    return value


def _toy(toy: toys.ToyIntegrand) -> Target:
    return Target(toy.dim, toy.value, toy.integral, (), toy.flat_deviation)


def _muons() -> Target:
    """e+ e- -> mu+ mu- at 189 GeV in the cosine and the azimuth."""
    factor = GEV2_TO_PB * two_body_volume(MUON_S**0.5) / (4 * math.pi) / (2 * MUON_S)
    box = grid(np.array([[-1.0, 1.0], [0.0, 2 * math.pi]]))
    integrand = lambda x: factor * muon_pair(MUON_S, x[0])
    return Target(2, integrand, GEV2_TO_PB * muon_pair_cross_section(MUON_S), (box,))


def _top(num_channels: int) -> Target:
    """Quarks and gluons -> t tbar at 13 TeV in (log tau, y, cosine), all with one toy density."""
    return Target(3, top_integrand, top_total(), (central(), forward())[:num_channels])


def top_integrand(x: jax.Array) -> jax.Array:
    """D sigma / d(log tau) dy dc in pb, both processes added."""
    tau, y, cosine = jnp.exp(x[0]), x[1], x[2]
    s = tau * PROTON_S
    first, second = (toy_parton_density(jnp.exp(0.5 * x[0] + sign * y)) for sign in (1, -1))
    square = quarks_to_top(s, cosine, TOP_MASS) + gluons_to_top(s, cosine, TOP_MASS)
    # Of |M|^2 / (2 s) dPhi_2, dPhi_2 = beta / (16 pi) dc.
    return GEV2_TO_PB * tau * first * second * _beta(x[0]) / (32 * math.pi * s) * square


def top_total(num: int = 200) -> float:
    """The same by quadrature of the totals in closed form, to 1e-9.

    With log tau = (1 - v^2) log tau_0, so that the root at the threshold is smooth.
    """
    nodes, weights = np.polynomial.legendre.leggauss(num)
    v, step = (nodes + 1) / 2, weights / 2
    log_tau = _LEAST_LOG_TAU * (1 - v**2)
    rapidity = -0.5 * log_tau[:, None] * nodes
    both = np.exp(0.5 * log_tau[:, None] + np.stack([rapidity, -rapidity]))
    luminosity = np.prod(both**-1.5 * (1 - both) ** 4, axis=0) @ weights * -0.5 * log_tau
    tau = np.exp(log_tau)
    hard = sum(top_cross_sections(tau * PROTON_S, TOP_MASS))
    jacobian = -2 * v * _LEAST_LOG_TAU * tau
    return float(GEV2_TO_PB * np.sum(step * jacobian * luminosity * hard))


def _beta(log_tau):
    # Not zero at the threshold, where logarithms of it are taken.
    return jnp.sqrt(jnp.maximum(1 - jnp.exp(_LEAST_LOG_TAU - log_tau), 1e-6))


def central() -> Bijector:
    """Flat in log tau, y and the cosine: what an s-channel wants."""
    flat = lambda beta: (lambda c: 0.5 * (c + 1), lambda u: 2 * u - 1, lambda c: math.log(2.0))
    return _partonic(flat)


def forward() -> Bijector:
    """Flat in log tau, y and the rapidity of the top, as 1 / (1 - beta^2 c^2) of the t-channel."""

    def steep(beta):
        reach = jnp.arctanh(beta)
        return (
            lambda c: 0.5 * (jnp.arctanh(beta * c) / reach + 1),
            lambda u: jnp.tanh(reach * (2 * u - 1)) / beta,
            lambda c: jnp.log(2 * reach / beta) + jnp.log1p(-((beta * c) ** 2)),
        )

    return _partonic(steep)


def _partonic(angle: Callable) -> Bijector:
    """From (log tau, y, c) to the cube; `angle` is (beta) -> (c -> u, u -> c, c -> log dc/du)."""

    def log_det(x):
        volume = math.log(-_LEAST_LOG_TAU) + jnp.log(-x[0])
        return volume + angle(_beta(x[0]))[2](x[2])

    def to_cube(x, cond=None):
        u = [1 - x[0] / _LEAST_LOG_TAU, 0.5 - x[1] / x[0], angle(_beta(x[0]))[0](x[2])]
        return jnp.stack(u), -log_det(x)

    def from_cube(u, cond=None):
        log_tau = _LEAST_LOG_TAU * (1 - u[0])
        x = [log_tau, log_tau * (0.5 - u[1]), angle(_beta(log_tau))[1](u[2])]
        return jnp.stack(x), log_det(jnp.stack(x))

    return Bijector(to_cube, from_cube, num_cond=0)


@functools.cache
def target(name: str) -> Target:
    """A target by its name."""
    return TARGETS[name]()


TARGETS = {
    "camel-2": lambda: _toy(toys.camel(2)),
    "camel-4": lambda: _toy(toys.camel(4)),
    "camel-8": lambda: _toy(toys.camel(8)),
    "camel-16": lambda: _toy(toys.camel(16)),
    "ring": lambda: _toy(toys.cut_ring()),
    "muons": _muons,
    "top": lambda: _top(1),
    "top-channels": lambda: _top(2),
}
