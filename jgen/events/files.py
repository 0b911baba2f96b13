"""Events of a top pair and extra jets in files, as arrays (E, px, py, pz) in GeV.

Particles are b1, q1, q2, b2, q3, q4 and extra jets: the first three are one top quark's, q1 and q2
its W boson's. The public layout of 2509.08048 has one array (N, 4 (6 + n)) for each number n of
extra jets, as the dataset `ttbar+{n}jet` of one HDF5 file, or as a .npy file.
"""

import itertools
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float

from jgen.arrays import cast_array, finite_array
from jgen.checks import check_whole
from jgen.files import atomic_path
from jgen.tables import hdf5_dataset, open_hdf5, open_table, read_rows

NUM_TOPS = 6
"""Particles of the top pair."""
# Of an energy that was stored in float32, from rounding.
_ROUNDING = 2.0**-22
_FEW, _ORDERED = 100, 10_000  # Fewer tell nothing of their order, more tell nothing new.
_W_MASS = 80.4  # [GeV]
_LARGEST = 1e4  # of a median energy [GeV]


def sample_path() -> Path:
    """Path of the bundled Pythia events; see `data/README.md`."""
    return Path(str(files("jgen.events").joinpath("data", "pythia_ttbar.h5")))


def read_events(
    path: str | os.PathLike | None = None, num_jets: int = 0
) -> Float[np.ndarray, "num n 4"]:
    """Events with so many extra jets, in the precision of the file.

    Args:
      path: HDF5 with `ttbar+{n}jet` (N, 4 (6 + n)) or with `jets` (N, 6 + n, 4), or .npy of either
        shape; the bundled sample unless given.
      num_jets: extra jets.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it has no events of so many jets, or `check_events` refuses them.
    """
    check_whole(0, 100, num_jets=num_jets)
    path = sample_path() if path is None else Path(path)
    if path.is_file() and h5py.is_hdf5(path):
        with open_hdf5(path) as file:
            name, own = f"ttbar+{num_jets}jet", "jets"
            if name not in file and own in file:
                name = own
            found = hdf5_dataset(file, name, booleans=False)
            _check_shape(found.shape, num_jets, f"{path}: {name}")
            events = read_rows(found)
    else:
        events = _particles_of_npy(path)
        if events is None:
            events = np.ascontiguousarray(open_table(path)[:])
        _check_shape(events.shape, num_jets, path)
    events = events.reshape(len(events), -1, 4)
    check_events(events, str(path))
    return events


def write_events(path: str | os.PathLike, events: Mapping[int, Float[np.ndarray, "_ _ 4"]]) -> None:
    """Write {number of extra jets: events} in the public layout, float32, compressed.

    The file appears under its name only when it is complete.

    Raises:
      ValueError: for events of another number of jets, or that `check_events` refuses.
    """
    if not isinstance(events, Mapping) or not events:
        raise ValueError("events to write are {number of extra jets: events}, such as {0: events}")
    arrays = {}
    for num_jets, some in events.items():
        check_whole(0, 100, num_jets=num_jets)
        some = check_events(some, f"{path}: {num_jets} jets")
        _check_shape(some.shape, num_jets, path)
        arrays[f"ttbar+{num_jets}jet"] = cast_array(some.reshape(len(some), -1), str(path))
    options = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, **options)


def check_events(events: object, name: str = "events") -> Float[np.ndarray, "num n 4"]:
    """Events in double precision, refused if they are none.

    Raises:
      ValueError: for another shape, numbers that are not finite, energies below the momentum by
        more than single precision explains, particles along the beam, or six particles or more
        of which others than q1 and q2, q3 and q4 have the mass of a W boson.
    """
    if np.ndim(events) == 2 and np.shape(events)[1] % 4 == 0:
        raise ValueError(f"{name} have the shape {np.shape(events)}: reshape them to [num, n, 4]")
    events = finite_array(events, name, 3)
    if events.shape[2] != 4 or not events.shape[1]:
        raise ValueError(
            f"{name} must be an array [events, particles, 4] of (E, px, py, pz) in GeV, got the "
            f"shape {events.shape}"
        )
    energy, momentum = events[..., 0], np.linalg.norm(events[..., 1:], axis=-1)
    bad = energy < momentum * (1 - _ROUNDING)
    if bad.any():
        event, particle = np.argwhere(bad)[0]
        raise ValueError(
            f"{name}: {bad.any(axis=1).sum()} of {len(events)} events have a particle with an "
            f"energy below its momentum, first particle {particle} of event {event} with E = "
            f"{energy[event, particle]:g} and |p| = {momentum[event, particle]:g}; the order must "
            "be (E, px, py, pz), in float32 at least"
        )
    if (middle := np.median(energy)) > _LARGEST:
        raise ValueError(
            f"{name} have a median energy of {middle:.3g} GeV, which looks like MeV: divide by 1000"
        )
    if energy.size >= 20 and (events[..., 1] > 0).all():
        raise ValueError(
            f"{name} have no px below zero, which looks like (E, pT, eta, phi): make them "
            "(E, px, py, pz), with jgen.physics.four_vector if there is a mass"
        )
    along = (np.hypot(events[..., 1], events[..., 2]) == 0).any(axis=1)
    if along.any():
        raise ValueError(
            f"{name} have particles along the beam, or without momentum, in {along.sum()} of "
            f"{len(events)} events, first event {along.argmax()}; drop them"
        )
    _check_order(events[:_ORDERED], name)
    return events


def _check_order(events, name):
    """Refuse events where others than q1 and q2, q3 and q4 are clearly those of W bosons."""
    if events.shape[1] < NUM_TOPS or len(events) < _FEW:
        return
    own, shares = {(1, 2), (4, 5)}, {}
    for a, b in itertools.combinations(range(events.shape[1]), 2):
        energy, *momentum = (events[:, a] + events[:, b]).T
        mass = np.sqrt(np.maximum(energy**2 - np.sum(np.square(momentum), axis=0), 0))
        shares[a, b] = np.mean(np.abs(mass - _W_MASS) < 10)
    least = min(own, key=shares.get)
    most = max(shares.keys() - own, key=shares.get)
    # Of other pairs a fifth at most is there by chance, of those of a W boson two fifths or more.
    if shares[most] > max(0.3, 2 * shares[least]):
        raise ValueError(
            f"{name}: particles {most[0]} and {most[1]}, counted from 0, have the mass of a W "
            f"boson in {100 * shares[most]:.0f} % of events, {least[0]} and {least[1]} in "
            f"{100 * shares[least]:.0f} %; the order must be b1, q1, q2, b2, q3, q4, then jets"
        )


def _particles_of_npy(path):
    """An array [events, particles, 4], which is no table; None for everything else."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError):
        return None  # for `open_table`, which says what is wrong
    return read_rows(array) if getattr(array, "ndim", 0) == 3 else None


def _check_shape(shape, num_jets, where):
    num, flat = NUM_TOPS + num_jets, 4 * (NUM_TOPS + num_jets)
    if not shape[0]:
        raise ValueError(f"{where} has the shape {tuple(shape)}: there are no events in it")
    if tuple(shape[1:]) not in ((num, 4), (flat,)):
        raise ValueError(
            f"{where} has the shape {tuple(shape)}, but events with {num_jets} extra jets are "
            f"[events, {flat}] or [events, {num}, 4]: choose another number of jets"
        )
