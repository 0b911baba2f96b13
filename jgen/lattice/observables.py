"""What is measured on configurations of a scalar field, one [L, L] at a time, in lattice units.

Averages and their errors are for whoever knows where the configurations come from:
`jgen.inference.weighted_mean` for those of a model, `chain_mean` for those of a Markov chain.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.checks import check_whole
from jgen.typing import Energy


def magnetization(phi: Float[Array, "l l"]) -> Float[Array, ""]:
    """M = sum_x phi(x) / V. Its average is zero by symmetry; |M| and V M^2 are the observables."""
    return jnp.mean(phi)


def two_point(phi: Float[Array, "l l"]) -> Float[Array, "l l"]:
    """G(r) = sum_x phi(x) phi(x + r) / V by displacement r; <G> is <phi(r) phi(0)>."""
    return jnp.fft.ifft2(spectrum(phi)).real


def spectrum(phi: Float[Array, "l l"]) -> Float[Array, "l l"]:
    """|sum_x exp(-i p x) phi(x)|^2 / V by momentum p, the Fourier transform of `two_point`.

    At p = 0 it is V M^2, whose average is the susceptibility.
    """
    return jnp.abs(jnp.fft.fft2(phi)) ** 2 / phi.size


def correlator(phi: Float[Array, "l l"]) -> Float[Array, " l"]:
    """C(t) = sum_r G(r, t), both directions averaged: it falls as cosh(m (t - L / 2))."""
    power = spectrum(phi)
    # The sum over one direction is momentum zero in it.
    return jnp.fft.ifft(power[0] + power[:, 0]).real / 2


def second_moment_length(
    susceptibility: Float[Array, ""], first: Float[Array, ""], length: int
) -> Float[Array, ""]:
    """Correlation length sqrt(G(0) / G(p) - 1) / (2 sin(p / 2)) at the first momentum 2 pi / L.

    NaN where noise has the susceptibility below `first`.

    Args:
      susceptibility: average of `spectrum` at momentum zero.
      first: its average at the first momentum, both directions averaged.
      length: L, sites along a side.

    Raises:
      ValueError: for fewer than two sites.
    """
    check_whole(2, length=length)
    ratio = susceptibility / first - 1
    return jnp.sqrt(ratio) / (2 * np.sin(np.pi / length))


def observables(phi: Float[Array, "l l"], energy: Energy) -> dict[str, Array]:
    """The usual numbers of one configuration.

    phi_squared     sum_x phi^2 / V
    magnetization   M
    abs_M           |M|
    V_M_squared     V M^2, the susceptibility
    first_momentum  `spectrum` at 2 pi / L
    action_density  S / V
    correlator      C(t) [l]
    """
    power = spectrum(phi)
    m = magnetization(phi)
    return {
        "phi_squared": jnp.mean(phi**2),
        "magnetization": m,
        "abs_M": jnp.abs(m),
        "V_M_squared": phi.size * m**2,
        "first_momentum": (power[0, 1] + power[1, 0]) / 2,
        "action_density": energy(phi, None) / phi.size,
        "correlator": correlator(phi),
    }
