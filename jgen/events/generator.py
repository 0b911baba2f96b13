"""Velocities of events by a transformer, L-GATr or LLoCa, and the model that flows by them.

All three see every particle's slot and the time as scalars. Equivariant ones see four-momenta and
make a four-vector and two scalars of each: the vector is a velocity in momentum space, which the
derivative of the coordinates turns into those of phi and eta, and the scalars are the velocities of
log pT and log m^2, where that derivative is large (2411.00446, 2508.14898). The plain transformer
makes the same numbers of the coordinates themselves.

Deviations from the published code: the linear layer behind the features of time is left out, since
another one follows; local momenta of LLoCa enter as (log pT, phi, eta, log m^2) without the cut on
pT, which has no meaning in a local frame.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.checks import check_positive
from jgen.events.base import MIN_DISTANCE, event_base
from jgen.events.coordinates import (
    Coordinates,
    four_momenta,
    of_momenta,
)
from jgen.generative_model import GenerativeModel
from jgen.models import geodesic_flow_matching
from jgen.nets import BEAMS, TIME, LGATrConfig, LLoCaConfig, Network, lgatr, lloca
from jgen.nets.geometric_algebra import embed_vector, extract_vector
from jgen.physics import azimuth, pseudorapidity
from jgen.solvers import OdeSolver, RungeKutta
from jgen.solvers.likelihood import Divergence

_FREQUENCIES = np.random.default_rng(0).normal(size=4)
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
        angles = jnp.asarray(frequencies, z.dtype) * t
        time = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])
        time = jnp.broadcast_to(time, (coordinates.num, len(time)))
        s = jnp.concatenate([jnp.eye(coordinates.num, dtype=z.dtype), time], axis=1)
        if plain:
            vectors, numbers = call(params, z, s)
            angular = vectors[:, 0, 1:3]
        else:
            with jax.enable_x64(True):
                p = four_momenta(coordinates, z)
            vectors, numbers = call(params, p, s)
            angular = _angular(p, vectors[:, 0])
        return jnp.concatenate([numbers[:, :1], angular, numbers[:, 1:]], axis=1)

    return Network(network.init, apply, 0)


def _of_multivectors(network):
    """L-GATr as a function of momenta [n, 4] and scalars, with spurions as further channels."""
    spurions = jnp.concatenate([embed_vector(jnp.array(p)) for p in SPURIONS], axis=-1)

    def call(params, p, s):
        own = embed_vector(p.astype(s.dtype))
        others = jnp.broadcast_to(spurions.astype(s.dtype), (len(p), *spurions.shape))
        x, numbers = network.apply(params, jnp.concatenate([own, others], axis=-1), s)
        return jnp.moveaxis(extract_vector(x), -1, 1), numbers

    return call


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
        return (of_momenta(p, 0.0) - shift) / scale

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

        coordinates = fit_coordinates(events)
        model = event_model(LLoCaConfig(), coordinates)
        fitted = fit(model, Batch(to_coordinates(coordinates, events)), key, config)
        more = to_events(coordinates, draw(model, fitted.one, key, 10_000))

    `preprocessed(model, event_map(coordinates))` has the same parameters and gives events in GeV,
    with their density in four-momentum space.

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
