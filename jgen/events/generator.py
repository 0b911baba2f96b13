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
published, the plain transformer sees phi as it is, so that its velocity jumps where phi does; one
that is told what is known sees differences of phi alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.checks import check_positive
from jgen.events.base import MIN_DISTANCE, event_base
from jgen.events.coordinates import Coordinates, check_coordinates, of_momenta, seen_momenta
from jgen.events.known import known_of
from jgen.generative_model import GenerativeModel
from jgen.models import geodesic_flow_matching
from jgen.nets import BEAMS, TIME, LGATrConfig, LLoCaConfig, Network, lgatr, lloca
from jgen.nets.lorentz.geometric_algebra import embed_vector, extract_vector
from jgen.physics import azimuth, pseudorapidity, wrapped
from jgen.solvers import OdeSolver, RungeKutta
from jgen.solvers.likelihood import Divergence

_FREQUENCIES = np.random.default_rng(0).normal(size=4)
SPURIONS = (*BEAMS, TIME)
"""Both beams and the direction of time: what leaves rotations about the beam as the symmetry."""


def event_velocity(
    config: LGATrConfig | LLoCaConfig,
    coordinates: Coordinates,
    *,
    time_width: float = 30.0,
    informed: bool = False,
    min_distance: float = MIN_DISTANCE,
) -> Network:
    """Velocity field apply(params, t, z [n, 4], cond) -> [n, 4] in the coordinates of events.

    Args:
      config: of L-GATr, or of LLoCa, which with the symmetry "identity" is a plain transformer.
      coordinates: of the events.
      time_width: standard deviation of the frequencies of the eight features sin, cos(2 pi w t);
        30 as published, smaller ones for velocities that change less with time. It is no parameter:
        a trained model is made again with the same one, and with the same coordinates.
      informed: whether networks see what is known of all events and velocities are corrected by
        it, see `jgen.events.known`. All that they see is then of events without the mean of the
        path from the base to data, whose velocity is added. Vectors are then helped by two more
        scalars, which are velocities of phi and eta too, and the plain transformer sees no phi but
        in what is known.
      min_distance: of particles, which informed networks know.

    Raises:
      ValueError: for a width or sizes that are not positive.
    """
    check_positive(time_width=time_width)
    _check_parts(config, coordinates)
    frequencies = 2 * np.pi * time_width * _FREQUENCIES
    known = known_of(coordinates, min_distance) if informed else None
    scalars, plain = coordinates.num + 2 * len(frequencies), False
    scalars += known.num_features if informed else 0
    made = (1, 4 + known.num_gains if informed else 2)
    if isinstance(config, LGATrConfig):
        network = lgatr((1 + len(SPURIONS), scalars), made, config)
        call = _of_multivectors(network)
    else:
        plain = config.symmetry == "identity"
        options = {} if plain else {
            "features": _local_features(coordinates), "edges": coordinates.edges,
            "spurions": SPURIONS,
        }  # fmt: skip
        network = lloca(scalars, made, config, **options)
        call = network.apply

    def apply(params, t, z, cond=None):
        if cond is not None:
            raise ValueError("generators of events take no condition; leave cond out")
        if informed:
            z = known.centred(t, z)
        angles = jnp.asarray(frequencies, z.dtype) * jnp.asarray(t, z.dtype)
        time = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])
        time = jnp.broadcast_to(time, (coordinates.num, len(time)))
        s = jnp.concatenate([jnp.eye(coordinates.num, dtype=z.dtype), time], axis=1)
        if informed:
            s = jnp.concatenate([s, known.features(t, z)], axis=1)
        if plain:
            # What is known is told without a direction that has no meaning.
            vectors, numbers = call(params, z.at[:, 1].set(0) if informed else z, s)
            angular = vectors[:, 0, 1:3]
        else:
            with jax.enable_x64(True):
                p = seen_momenta(coordinates, z.astype(jnp.float64))
            vectors, numbers = call(params, p, s)
            angular = _angular(p, vectors[:, 0])
        if informed:
            angular += numbers[:, 2:4]
        v = jnp.concatenate([numbers[:, :1], angular, numbers[:, 1:2]], axis=1)
        return known.corrected(t, z, v, 1 + numbers[:, 4:]) if informed else v

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


def turned_towards(x0: Float[Array, "n 4"], x1: Float[Array, "n 4"]) -> Float[Array, "n 4"]:
    """Coordinates x0 turned about the beam, and half around across it, to be near those of x1.

    What both beams leave as they are is a symmetry of base and data alike, so that turned events
    of the base are as probable as others and only their partners are chosen (2306.15030).
    """

    def turned(x0):
        apart = x1[:, 1] - x0[:, 1]
        angle = jnp.arctan2(jnp.sum(jnp.sin(apart)), jnp.sum(jnp.cos(apart)))
        return x0.at[:, 1].set(wrapped(x0[:, 1] + angle))

    def far(x0):
        apart = x1 - x0
        return jnp.sum(apart.at[:, 1].set(wrapped(apart[:, 1])) ** 2)

    one, other = turned(x0), turned(x0 * jnp.array([[1, -1, -1, 1]], x0.dtype))
    return jnp.where(far(one) < far(other), one, other)


def event_model(
    config: LGATrConfig | LLoCaConfig,
    coordinates: Coordinates,
    *,
    time_width: float = 30.0,
    informed: bool = False,
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
    `event_base` and its continuation. Short trainings want a `time_width` of 0.3 or so, and to be
    `informed`: networks then see what is known of events, which corrects their velocities, and
    events of the base are turned towards the data before they are joined by a path.

    Args:
      config: network, see `event_velocity`.
      coordinates: of the events.
      time_width: of the frequencies of time.
      informed: all of that, or as published.
      min_distance: of particles in the base, see `event_base`.
      solver: of the sampling, see `geodesic_flow_matching`, which takes all that follow.
      likelihood_solver: of `log_prob`.
      divergence: "exact" or "hutchinson".
      num_probes: of the Hutchinson estimate.
    """
    return geodesic_flow_matching(
        event_velocity(
            config, coordinates, time_width=time_width, informed=informed, min_distance=min_distance
        ),
        event_base(coordinates, min_distance),
        coordinates.periodic,
        align=turned_towards if informed else None,
        solver=solver,
        likelihood_solver=likelihood_solver,
        divergence=divergence,
        num_probes=num_probes,
    )
