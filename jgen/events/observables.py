"""Observables of events of a top pair and extra jets; momenta (E, px, py, pz) [GeV], host arrays.

Particles are b1, q1, q2, b2, q3, q4 and extra jets, see `jgen.events.files`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jgen.events.files import NUM_TOPS, check_events
from jgen.physics import azimuth, delta_r, mass, pseudorapidity, transverse_momentum

RESONANCES = {
    "tt": (0, 1, 2, 3, 4, 5),
    "t": (0, 1, 2),
    "tbar": (3, 4, 5),
    "W+": (1, 2),
    "W-": (4, 5),
}
"""Particles whose sum it is."""
_TEX = {"tt": r"t\bar{t}", "t": "t", "tbar": r"\bar{t}", "W+": "W^+", "W-": "W^-"}


def particle_names(num: int) -> tuple[str, ...]:
    """Names of so many particles: b1, q1, q2, b2, q3, q4, j1, j2, ..."""
    own = ("b1", "q1", "q2", "b2", "q3", "q4")
    return own[:num] + tuple(f"j{i + 1}" for i in range(num - NUM_TOPS))


def event_observables(events: Float[np.ndarray, "num n 4"]) -> dict[str, Float[np.ndarray, " num"]]:
    """Everything by name, in double precision.

    m_RESONANCE and pt_RESONANCE [GeV] of `RESONANCES`, pt_PARTICLE and m_PARTICLE [GeV], and
    dr_PARTICLE_PARTICLE of every two.

    Raises:
      ValueError: for events that `check_events` refuses, or of fewer than six particles.
    """
    events = _checked(events)
    names = particle_names(events.shape[1])
    pairs = list(zip(*np.triu_indices(len(names), 1), strict=True))
    columns = _computed(events)
    found = {}
    for i, name in enumerate(RESONANCES):
        found |= {f"m_{name}": columns["m_sum"][:, i], f"pt_{name}": columns["pt_sum"][:, i]}
    for i, name in enumerate(names):
        found |= {f"pt_{name}": columns["pt"][:, i], f"m_{name}": columns["m"][:, i]}
    for i, (a, b) in enumerate(pairs):
        found[f"dr_{names[a]}_{names[b]}"] = columns["dr"][:, i]
    return found


def observable_label(name: str) -> str:
    """An observable of `event_observables` for the axis of a figure.

    Raises:
      ValueError: for another name.
    """
    kind, *of = name.split("_")
    if kind not in ("m", "pt", "dr") or len(of) != (2 if kind == "dr" else 1) or not all(of):
        raise ValueError(
            f"an observable is a name of event_observables, such as m_tt, got {name!r}"
        )
    who = ",".join(_TEX.get(one, f"{one[0]}_{one[1:]}") for one in of)
    symbol, unit = {"m": ("m", " [GeV]"), "pt": ("p_T", " [GeV]"), "dr": (r"\Delta R", "")}[kind]
    return f"${symbol}({who})$" + unit


def event_features(events: Float[np.ndarray, "num n 4"]) -> Float[np.ndarray, "num features"]:
    """What the classifiers of 2508.14898 see: 59 numbers for six particles.

    pT, phi, eta and m of all particles, dR of every two, and pT, phi, eta and m of `RESONANCES`.
    """
    columns = _computed(_checked(events))
    names = ("pt", "phi", "eta", "m", "dr", "pt_sum", "phi_sum", "eta_sum", "m_sum")
    return np.concatenate([columns[name] for name in names], axis=1)


def _checked(events):
    events = check_events(events)
    if events.shape[1] < NUM_TOPS:
        raise ValueError(
            f"events of a top pair have {NUM_TOPS} particles at least, got {events.shape[1]}"
        )
    return events


def _computed(events):
    """All columns by kind, in double precision."""
    with jax.enable_x64(True):
        return {name: np.asarray(a) for name, a in _columns(jnp.asarray(events)).items()}


@jax.jit
def _columns(p):
    first, second = np.triu_indices(p.shape[1], 1)
    sums = jnp.stack([p[:, list(rows)].sum(axis=1) for rows in RESONANCES.values()], axis=1)
    kinds = {"pt": transverse_momentum, "phi": azimuth, "eta": pseudorapidity, "m": mass}
    found = {name: kind(p) for name, kind in kinds.items()}
    found |= {f"{name}_sum": kind(sums) for name, kind in kinds.items()}
    return found | {"dr": delta_r(p[:, first], p[:, second])}
