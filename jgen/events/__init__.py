"""Events of top pairs with extra jets: files, coordinates, generators, observables."""

from jgen.events.base import MIN_DISTANCE, acceptance, apart, event_base
from jgen.events.coordinates import (
    EPSILON,
    MIN_PT,
    UNIT,
    Coordinates,
    event_map,
    finite_events,
    fit_coordinates,
    log_jacobian,
    to_coordinates,
    to_events,
)
from jgen.events.files import NUM_TOPS, check_events, read_events, sample_path, write_events
from jgen.events.generator import SPURIONS, event_model, event_velocity
from jgen.events.observables import (
    RESONANCES,
    event_features,
    event_observables,
    observable_label,
    particle_names,
)

__all__ = [
    "EPSILON",
    "MIN_DISTANCE",
    "MIN_PT",
    "NUM_TOPS",
    "RESONANCES",
    "SPURIONS",
    "UNIT",
    "Coordinates",
    "acceptance",
    "apart",
    "check_events",
    "event_base",
    "event_features",
    "event_map",
    "event_model",
    "event_observables",
    "event_velocity",
    "finite_events",
    "fit_coordinates",
    "log_jacobian",
    "observable_label",
    "particle_names",
    "read_events",
    "sample_path",
    "to_coordinates",
    "to_events",
    "write_events",
]
