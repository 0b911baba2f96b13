"""Flows of lattice fields: checkerboard couplings and a continuous flow with all symmetries."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.bijectors import (
    TrainableBijector,
    affine,
    compose,
    continuous,
    masked_coupling,
    stacked,
    standardize,
)
from jgen.bijectors.continuous import VelocityAndDivergence
from jgen.checks import check_depths, check_positive, check_whole, check_widths
from jgen.lattice.symmetries import (
    displacement_orbits,
    kernel_from_momenta,
    kernel_orbits,
)
from jgen.nets import Network
from jgen.nets.dense import matmul
from jgen.random import normal
from jgen.solvers import RungeKutta, runge_kutta

_FREQUENCY = 0.8
"""Of the sines at the start: their period holds the base, normal with width one, to four sigma."""


def checkerboard_flow(
    length: int, depth: int = 8, *, hidden: tuple[int, ...] = (8, 8), scale: float = 0.4
) -> TrainableBijector:
    """Affine couplings that move even and odd sites in turn (1904.12072, Sec. III).

    The parameters of a site come from convolutions of the other sites, 3x3 and periodic. All layers
    are the identity at the start, on fields in units of `scale`: with random scales instead,
    `depth` of which multiply, such flows did not train.

    Deviations from the paper: before the couplings white noise becomes a free field with a trained
    spectrum, which saves many of them (at L = 8, after 600 steps, 8 layers then have a higher bound
    on log Z than 16 without). Its convolutions are free, here the weights of all nearest and of all
    diagonal neighbours are the same, shifts are odd in the field and scales even. So the flow
    commutes with rotations, reflections and phi -> -phi, at a third of the cost, and with
    translations by two sites.

    Args:
      length: sites along a side; even, or the checkerboard would not close.
      depth: layers.
      hidden: channels of the convolutions between the field and the parameters.
      scale: size of the field where training starts.

    Raises:
      ValueError: if the length is odd or not positive, or there are no layers or no channels.
    """
    check_whole(2, 256, length=length)
    if length % 2:
        raise ValueError(f"a checkerboard closes on lattices of even length, got {length}")
    check_widths(1, hidden=hidden)
    check_depths(depth=depth)
    check_positive(scale=scale)
    network = _odd_convolutions(hidden)
    even = np.indices((length, length)).sum(axis=0) % 2 == 0
    masks = np.stack([even if layer % 2 else ~even for layer in range(depth)])
    layers = stacked(lambda mask: masked_coupling(network, affine(), mask), masks)
    start = standardize(np.float32(0), np.float32(scale))
    return compose(start, layers, _free_field(length))


def _odd_convolutions(hidden: tuple[int, ...]) -> Network:
    """Shift (odd in the field) and log-scale (even) of every site, from isotropic convolutions."""
    widths = (1, *hidden)

    def init(key):
        keys = jax.random.split(key, len(hidden))
        sizes = zip(keys, widths[:-1], widths[1:], strict=True)
        return {
            "convolutions": [normal(k, (3 * n, m)) / math.sqrt(3 * n) for k, n, m in sizes],
            "shift": jnp.zeros((3 * hidden[-1], 1)),
            "log_scale": jnp.zeros((3 * hidden[-1], 1)),
            "bias": jnp.zeros(()),
        }

    def apply(params, phi, cond=None):
        x = phi[..., None]
        for weights in params["convolutions"]:
            # Without a bias an odd function of odd functions is odd.
            x = jnp.tanh(matmul(_isotropic(x), weights))
        shift = matmul(_isotropic(x), params["shift"])
        log_scale = matmul(_isotropic(x**2), params["log_scale"]) + params["bias"]
        return jnp.concatenate([shift, log_scale], -1)

    return Network(init, apply, 0)


def _isotropic(x: Float[Array, "l l c"]) -> Float[Array, "l l c3"]:
    """A site, the sum of its nearest and that of its diagonal neighbours, channel by channel."""
    both = lambda x, axis: jnp.roll(x, 1, axis) + jnp.roll(x, -1, axis)
    rows = both(x, 0)
    return jnp.concatenate([x, (rows + both(x, 1)) / 2, both(rows, 1) / 2], -1)


def _free_field(length: int) -> TrainableBijector:
    """The linear map of white noise to a free field with a trained spectrum, and its inverse."""
    orbits, volume = kernel_orbits(length), length**2
    from_momenta = kernel_from_momenta(length)
    multiplicity = np.bincount(displacement_orbits(length).ravel())

    def run(params, x, sign):
        kernel = jnp.exp(sign * params["log_scale"]) @ from_momenta
        y = matmul(x.reshape(volume), kernel[orbits]).reshape(length, length)
        return y, sign * multiplicity @ params["log_scale"]

    return TrainableBijector(
        lambda key: {"log_scale": jnp.zeros(len(multiplicity))},
        lambda params, x, cond=None, key=None: run(params, x, -1),
        lambda params, z, cond=None, key=None: run(params, z, 1),
        num_cond=0,
    )


def equivariant_velocity(
    length: int, *, num_frequencies: int = 5, num_times: int = 5
) -> tuple[Network, VelocityAndDivergence]:
    r"""A velocity with all symmetries of the lattice, and its divergence in closed form.

        v(x, t) = sum_y sum_n C_n(x - y, t) h_n(phi(y)),
        div v   = sum_n C_n(0, t) sum_x h_n'(phi(x)),

    h_0 = phi and h_n = sin(n w phi) / n (2207.00283, Sec. 3). The kernels C_n have one value for
    every orbit of displacements, so v commutes with translations, rotations and reflections; the
    functions are odd, so it commutes with phi -> -phi. Only the kernels at displacement zero enter
    the divergence, which costs less than the velocity. All of it is zero at the start.

    Deviations from the paper: harmonics of one trained frequency w instead of frequencies of their
    own, which need one sine and one cosine a site; kernels that are polynomials in cos(pi t), of
    full rank in time, frequency and momentum. Parameters are the kernels' eigenvalues, one for each
    orbit of momenta: with values by displacement, of which V add up at momentum zero, Adam's first
    steps were far too large, and the training at L = 8 ran off into fields that the solver does not
    resolve. The kernel is applied as a matrix of all sites, V^2 numbers, which is fast on small
    lattices; Fourier transforms would be on large ones.

    Args:
      length: sites along a side.
      num_frequencies: harmonics.
      num_times: functions cos(k pi t), k = 0, 1, ..., of each kernel.

    Returns:
      The network apply(params, t, phi, cond) -> v, and (params, t, phi, cond) -> (v, div v) for
      `jgen.bijectors.continuous`. No condition enters.

    Raises:
      ValueError: if a number is not positive.
    """
    check_whole(1, 256, length=length)
    check_depths(num_frequencies=num_frequencies, num_times=num_times)
    orbits, volume = kernel_orbits(length), length**2
    from_momenta = kernel_from_momenta(length)

    def init(key):
        shape = (num_times, 1 + num_frequencies, len(from_momenta))
        return {"frequency": jnp.full((), _FREQUENCY), "eigenvalues": jnp.zeros(shape)}

    def both(params, t, phi, cond=None):
        values, slopes = _odd_functions(phi.reshape(volume), params["frequency"], num_frequencies)
        times = jnp.cos(jnp.pi * t * jnp.arange(num_times))
        kernel = jnp.tensordot(times, params["eigenvalues"], 1) @ from_momenta
        velocity = matmul(jnp.concatenate(values), kernel[:, orbits].reshape(-1, volume))
        divergence = kernel[:, 0] @ jnp.stack([jnp.sum(slope) for slope in slopes])
        return velocity.reshape(length, length), divergence

    return Network(init, lambda *arguments: both(*arguments)[0], 0), both


def _odd_functions(phi: Float[Array, " v"], frequency: Array, num: int):
    """Phi and sin(n w phi) / n, n = 1 ... num, and their derivatives, by Chebyshev's recursion."""
    sin, cos = jnp.sin(frequency * phi), jnp.cos(frequency * phi)
    sines, cosines = [jnp.zeros_like(sin), sin], [jnp.ones_like(cos), cos]
    for _ in range(num - 1):
        sines.append(2 * cos * sines[-1] - sines[-2])
        cosines.append(2 * cos * cosines[-1] - cosines[-2])
    values = [phi, *(sines[n] / n for n in range(1, num + 1))]
    return values, [jnp.ones_like(phi), *(frequency * c for c in cosines[1:])]


def equivariant_flow(
    length: int,
    *,
    num_frequencies: int = 5,
    num_times: int = 5,
    scale: float = 0.4,
    solver: RungeKutta | None = None,
) -> TrainableBijector:
    """The continuous flow of `equivariant_velocity`, from a base with the same symmetries.

    Log-determinants are those of the differential equation, not of its discretisation: train with
    steps so fine that halving them changes no weight, or the training exploits their error and the
    "bound" on log Z comes out above log Z.

    Args:
      length: sites along a side.
      num_frequencies: harmonics.
      num_times: functions of time of each kernel.
      scale: size of the field where training starts; the velocity is one of phi / scale.
      solver: Runge-Kutta method; rk4 with 16 steps unless given.

    Raises:
      ValueError: as `equivariant_velocity`.
    """
    check_positive(scale=scale)
    network, both = equivariant_velocity(
        length, num_frequencies=num_frequencies, num_times=num_times
    )
    solver = runge_kutta("rk4", 16) if solver is None else solver
    layer = continuous(network, solver=solver, divergence=both)
    return compose(standardize(np.float32(0), np.float32(scale)), layer)
