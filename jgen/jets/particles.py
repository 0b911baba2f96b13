"""Constituents with their kinds, charges and impact parameters, as a model learns them.

A particle is three momenta, two impact parameters and one of eight charge states, which is its kind
and its charge at once. Beyond kinematics: 2312.00123.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int8

from jgen.checks import check_positive, check_whole
from jgen.estimate import Estimate
from jgen.jets.constituents import PARTICLES, Constituents, in_order
from jgen.metrics import quantile_divergence
from jgen.models import MixedEvent, mixed_events
from jgen.random import numpy_generator
from jgen.typing import Key

CHARGE_STATES = ("h+", "h-", "h0", "photon", "e+", "e-", "mu+", "mu-")
"""Kinds and charges of particles."""
PARTICLE_FEATURES = ("eta", "phi", "log pT", "d0", "dz")
"""Numbers of a particle."""
_PID = np.array([1, 1, 2, 3, 4, 4, 5, 5], np.int8)
_CHARGE = np.array([1, -1, 0, 0, 1, -1, 1, -1], np.int8)
DISPLACED = 0.1
"""An impact parameter [mm] that most tracks from the primary vertex do not reach."""


def defined_features() -> Bool[np.ndarray, "8 5"]:
    """Which of `PARTICLE_FEATURES` each of `CHARGE_STATES` has: neutrals no impact parameters."""
    table = np.ones((len(CHARGE_STATES), len(PARTICLE_FEATURES)), bool)
    table[_CHARGE == 0, 3:] = False
    return table


def charge_states(jets: Constituents) -> Int8[np.ndarray, "num rows"]:
    """Index in `CHARGE_STATES` of each constituent, zero in padding.

    Raises:
      ValueError: for jets without kinds and charges, or charges that kinds do not have.
    """
    if jets.pid is None or jets.charge is None or jets.impact is None:
        raise ValueError("these jets have no kinds, charges and impact parameters of constituents")
    there = np.arange(jets.pid.shape[1]) < jets.n[:, None]
    match = (jets.pid[..., None] == _PID) & (jets.charge[..., None] == _CHARGE)
    bad = there & ~match.any(axis=-1)
    if bad.any():
        pid, charge = int(jets.pid[bad][0]), int(jets.charge[bad][0])
        raise ValueError(
            f"{bad.sum()} constituents are none of {', '.join(CHARGE_STATES)}; the first has pid "
            f"{pid} of {', '.join(PARTICLES)} and charge {charge}"
        )
    return np.where(there, match.argmax(axis=-1), 0).astype(np.int8)


class ParticleMap(NamedTuple):
    """Jets to events of mean zero and width one, and back; `particle_map` makes it.

    Attributes:
      mean: of (eta, phi, log pT, s(d0), s(dz)), the latter of charged particles.
      std: their standard deviations.
      impact_unit: [mm] of s(x) = asinh(x / impact_unit).
      pt_range: smallest and largest pT relative to the jet's.
    """

    mean: Float[np.ndarray, " 5"]
    std: Float[np.ndarray, " 5"]
    impact_unit: float
    pt_range: tuple[float, float]

    def forward(self, jets: Constituents) -> MixedEvent:
        """Events of points [num, rows, 5], zero where there is nothing, and states [num, rows]."""
        states = charge_states(jets)
        z = (_features(jets, self.impact_unit) - self.mean) / self.std
        there = np.arange(states.shape[1]) < jets.n[:, None]
        there = there[..., None] & defined_features()[states]
        return mixed_events(np.where(there, z, 0), states, len(CHARGE_STATES))

    def inverse(self, events: MixedEvent, jets: Constituents) -> Constituents:
        """Jets with other particles.

        Those beyond the n-th are left out, pT is set to the range of the training, impact
        parameters of neutrals to zero, and particles are ordered by pT (2312.00123).

        Args:
          events: as of `forward`.
          jets: with numbers of points, labels, and whatever else is not of the particles.
        """
        there = np.arange(events.states.shape[1]) < jets.n[:, None]
        states = np.where(there, events.states, 0).astype(int)
        y = np.asarray(events.points, np.float64) * self.std + self.mean
        low, high = np.log(self.pt_range)
        pt = np.exp(np.clip(y[..., 2], low, high))
        points = np.stack([y[..., 0], y[..., 1], pt], axis=-1)
        impact = self.impact_unit * np.sinh(y[..., 3:])
        has_track = there & (_CHARGE[states] != 0)
        made = jets._replace(
            points=np.where(there[..., None], points, 0).astype(np.float32),
            pid=np.where(there, _PID[states], 0).astype(np.int8),
            charge=np.where(there, _CHARGE[states], 0).astype(np.int8),
            impact=np.where(has_track[..., None], impact, 0).astype(np.float32),
        )
        return in_order(made, None, "generated jets")


def particle_map(jets: Constituents, impact_unit: float = 0.01) -> ParticleMap:
    """The map of jets like these.

    Args:
      jets: those of a training, with kinds, charges and impact parameters.
      impact_unit: [mm] where s(d0) turns from linear to logarithmic; far above all impact
        parameters s is linear, and their width is that of the tails.
    """
    check_positive(impact_unit=impact_unit)
    states = charge_states(jets)
    there = np.arange(states.shape[1]) < jets.n[:, None]
    values = _features(jets, impact_unit)
    columns = there[..., None] & defined_features()[states]
    chosen = [values[..., i][columns[..., i]] for i in range(len(PARTICLE_FEATURES))]
    if not all(len(one) > 1 and np.ptp(one) > 0 for one in chosen):
        raise ValueError("these jets have no charged particles, or all particles are the same")
    pt = jets.points[there][:, 2]
    mean, std = (np.array([f(one) for one in chosen]) for f in (np.mean, np.std))
    return ParticleMap(mean, std, impact_unit, (float(pt.min()), float(pt.max())))


def _features(jets: Constituents, impact_unit: float) -> Float[np.ndarray, "num rows 5"]:
    points = jets.points.astype(np.float64)
    log_pt = np.log(np.where(points[..., 2:] > 0, points[..., 2:], 1))
    impact = np.arcsinh(jets.impact.astype(np.float64) / impact_unit)
    return np.concatenate([points[..., :2], log_pt, impact], axis=-1)


def particle_numbers(jets: Constituents) -> dict[str, float]:
    """What jets say about their particles, in the mean over all.

    The fraction of each of `PARTICLES`; of charged ones "displaced", the fraction whose d0 is
    beyond `DISPLACED`; and "charge" and "charge width", mean and standard deviation of the sum
    of charges of a jet.
    """
    there = np.arange(jets.points.shape[1]) < jets.n[:, None]
    charge_states(jets)  # that they are there
    pid, d0 = jets.pid[there], jets.impact[..., 0][there]
    shares = np.bincount(pid, minlength=len(PARTICLES)) / len(pid)
    total = jets.charge.sum(axis=1, where=there, dtype=np.int64)
    has_track = jets.charge[there] != 0
    return {
        **dict(zip(PARTICLES[1:], map(float, shares[1:]), strict=True)),
        "displaced": float(np.mean(np.abs(d0[has_track]) > DISPLACED)) if has_track.any() else 0.0,
        "charge": float(total.mean()),
        "charge width": float(total.std()),
    }


def particle_divergences(reference: Constituents, generated: Constituents) -> dict[str, float]:
    """`quantile_divergence` of pT and eta of all particles, and of d0 of charged ones."""
    values = []
    for jets in (reference, generated):
        there = np.arange(jets.points.shape[1]) < jets.n[:, None]
        points = jets.points[there]
        d0 = jets.impact[..., 0][there & (jets.charge != 0)]
        values.append({"KLD pT": points[:, 2], "KLD eta": points[:, 0], "KLD d0": d0})
    return {name: quantile_divergence(values[0][name], values[1][name]) for name in values[0]}


def compare_particles(
    reference: Constituents, generated: Constituents, key: Key, num_bootstrap: int = 20
) -> dict[str, Estimate]:
    """`particle_numbers` of generated jets and their `particle_divergences` from true ones.

    Errors are those of jets drawn again, of both samples.

    Args:
      reference: true jets.
      generated: others.
      key: of the resampling.
      num_bootstrap: resamplings.
    """
    check_whole(2, num_bootstrap=num_bootstrap)
    rng = numpy_generator(key)
    again = lambda jets: jets.take(rng.integers(len(jets.n), size=len(jets.n)))

    def measured(reference, generated):
        return particle_numbers(generated) | particle_divergences(reference, generated)

    once = measured(reference, generated)
    replicas = [measured(again(reference), again(generated)) for _ in range(num_bootstrap)]
    spread = lambda name: float(np.std([replica[name] for replica in replicas]))
    return {name: Estimate(value, spread(name)) for name, value in once.items()}
