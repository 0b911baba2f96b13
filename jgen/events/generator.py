"""Velocities of events by a transformer, L-GATr or LLoCa, and the model that flows by them.

All three see every particle's slot and the time as scalars. Equivariant ones see four-momenta and
make a four-vector and two scalars of each: the vector is a velocity in momentum space, which the
derivative of the coordinates turns into those of phi and eta, and the scalars are the velocities of
log pT and log m^2, where that derivative is large (2411.00446, 2508.14898). The plain transformer
makes the same numbers of the coordinates themselves.

Deviations from the published code: the linear layer behind the features of time is left out, since
another one follows; local momenta of LLoCa enter as (log pT, phi, eta, log m^2) without the cut on
pT, which has no meaning in a local frame, with one scale of log m^2 for all slots; eta and log pT
that networks see end at 8 and 5 (30 TeV), where the code ends eta at 5 and exponents at 20. As
published, the plain transformer sees phi as it is, so that its velocity jumps where phi does.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.checks import check_positive
from jgen.events.base import MIN_DISTANCE, event_base
from jgen.events.coordinates import (
    UNIT,
    Coordinates,
    check_coordinates,
    of_momenta,
    to_momenta,
    unscaled,
)
from jgen.generative_model import GenerativeModel
from jgen.models import geodesic_flow_matching
from jgen.nets import BEAMS, TIME, LGATrConfig, LLoCaConfig, Network, lgatr, lloca
from jgen.nets.geometric_algebra import embed_vector, extract_vector
from jgen.physics import azimuth, pseudorapidity
from jgen.solvers import OdeSolver, RungeKutta
from jgen.solvers.likelihood import Divergence

_FREQUENCIES = np.random.default_rng(0).normal(size=4)
# Of log pT, phi, eta and log m^2: far beyond any event, where float64 still knows the mass.
_SEEN = (-np.inf, -np.inf, -8.0, -np.inf), (5.0, np.inf, 8.0, 10.0)
SPURIONS = (*BEAMS, TIME)
"""Both beams and the direction of time: what leaves rotations about the beam as the symmetry."""


def event_velocity(
    config: LGATrConfig | LLoCaConfig, coordinates: Coordinates, *, time_width: float = 30.0
) -> Network:
    """Velocity field apply(params, t, z [n, 4], cond) -> [n, 4] in the coordinates of events.

    Args:
      config: of L-GATr, or of LLoCa, which with the symmetry "identity" is a plain transformer.
      coordinates: of the events.
      time_width: standard deviation of the frequencies of the eight features sin, cos(2 pi w t);
        30 as published, smaller ones for velocities that change less with time. It is no parameter:
        a trained model is made again with the same one, and with the same coordinates.

    Raises:
      ValueError: for a width or sizes that are not positive.
    """
    check_positive(time_width=time_width)
    _check_parts(config, coordinates)
    frequencies = 2 * np.pi * time_width * _FREQUENCIES
    scalars, plain = coordinates.num + 2 * len(frequencies), False
    if isinstance(config, LGATrConfig):
        network = lgatr((1 + len(SPURIONS), scalars), (1, 2), config)
        call = _of_multivectors(network)
    else:
        plain = config.symmetry == "identity"
        options = {} if plain else {
            "features": _local_features(coordinates), "edges": coordinates.edges,
            "spurions": SPURIONS,
        }  # fmt: skip
        network = lloca(scalars, (1, 2), config, **options)
        call = network.apply

    def apply(params, t, z, cond=None):
        if cond is not None:
            raise ValueError("generators of events take no condition; leave cond out")
        angles = jnp.asarray(frequencies, z.dtype) * jnp.asarray(t, z.dtype)
        time = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])
        time = jnp.broadcast_to(time, (coordinates.num, len(time)))
        s = jnp.concatenate([jnp.eye(coordinates.num, dtype=z.dtype), time], axis=1)
        if plain:
            vectors, numbers = call(params, z, s)
            angular = vectors[:, 0, 1:3]
        else:
            p = _seen_momenta(coordinates, z)
            vectors, numbers = call(params, p, s)
            angular = _angular(p, vectors[:, 0])
        return jnp.concatenate([numbers[:, :1], angular, numbers[:, 1:]], axis=1)

    return Network(network.init, apply, 0)


def _check_parts(config, coordinates):
    if not isinstance(config, LGATrConfig | LLoCaConfig):
        raise ValueError(f"the network must be a LLoCaConfig or an LGATrConfig, got {config!r}")
    check_coordinates(coordinates)


def _of_multivectors(network):
    """L-GATr as a function of momenta [n, 4] and scalars, with spurions as further channels."""
    spurions = jnp.concatenate([embed_vector(jnp.array(p)) for p in SPURIONS], axis=-1)

    def call(params, p, s):
        own = embed_vector(p.astype(s.dtype))
        others = jnp.broadcast_to(spurions.astype(s.dtype), (len(p), *spurions.shape))
        x, numbers = network.apply(params, jnp.concatenate([own, others], axis=-1), s)
        return jnp.moveaxis(extract_vector(x), -1, 1), numbers

    return call


def _seen_momenta(coordinates, z):
    """Four-momenta in units, float64, of coordinates that are limited before they overflow."""
    with jax.enable_x64(True):
        parts = unscaled(coordinates, z.astype(jnp.float64))
        low, high = (jnp.broadcast_to(jnp.array(a), parts.shape) for a in _SEEN)
        return to_momenta(jnp.clip(parts, low, high), coordinates.min_pt / UNIT)


def _angular(p, velocity):
    """Velocities [n, 2] of phi and eta of momenta in float64 that have a velocity [n, 4]."""
    with jax.enable_x64(True):
        angles = lambda p: jnp.stack([azimuth(p), pseudorapidity(p)], axis=-1)
        made = jax.jvp(angles, (p,), (velocity.astype(p.dtype),))[1]
        return made.astype(velocity.dtype)


def _local_features(coordinates):
    """What LLoCa's transformer sees of local momenta: (log pT, phi, eta, scaled log m^2)."""
    shift = np.array([[0, 0, 0, coordinates.mean[:, 1].mean()]])
    scale = np.array([[1, 1, 1, coordinates.std[:, 1].mean()]])

    def features(p: Float[Array, "n 4"]) -> Float[Array, "n 4"]:
        return (of_momenta(p, 0.0, limited=True) - shift) / scale

    return features


def event_model(
    config: LGATrConfig | LLoCaConfig,
    coordinates: Coordinates,
    *,
    time_width: float = 30.0,
    min_distance: float = MIN_DISTANCE,
    solver: OdeSolver | None = None,
    likelihood_solver: RungeKutta | None = None,
    divergence: Divergence = "exact",
    num_probes: int = 1,
) -> GenerativeModel:
    """Flow matching of events in their coordinates, of `to_coordinates`.

        import jax
        from jgen import Batch, TrainConfig, draw, events, fit
        from jgen.nets import LLoCaConfig

        data = events.read_events()
        coordinates = events.fit_coordinates(data)
        model = events.event_model(LLoCaConfig(), coordinates)
        z = events.to_coordinates(coordinates, data)
        fitted = fit(model, Batch(z), jax.random.key(0), TrainConfig(200_000, 2048))
        made = draw(model, fitted.one, jax.random.key(1), 10_000)
        more, finite = events.finite_events(coordinates, made)

    `jgen.transforms.preprocessed(model, event_map(coordinates))` has the same parameters and gives
    events in GeV, with their density in four-momentum space per GeV^(4 n); that of papers, in units
    of 206.6 GeV, is `log_densities` of `model` plus `log_jacobian`. Densities are those of
    `event_base` and its continuation. Short trainings want a `time_width` of 0.3 or so.

    Args:
      config: network, see `event_velocity`.
      coordinates: of the events.
      time_width: of the frequencies of time.
      min_distance: of particles in the base, see `event_base`.
      solver: of the sampling, see `geodesic_flow_matching`, which takes all that follow.
      likelihood_solver: of `log_prob`.
      divergence: "exact" or "hutchinson".
      num_probes: of the Hutchinson estimate.
    """
    return geodesic_flow_matching(
        event_velocity(config, coordinates, time_width=time_width),
        event_base(coordinates, min_distance),
        coordinates.periodic,
        solver=solver,
        likelihood_solver=likelihood_solver,
        divergence=divergence,
        num_probes=num_probes,
    )
