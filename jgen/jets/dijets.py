"""Events of two jets in HDF5: the features that searches for a resonance look at.

A file holds `features` (n, 5) in the order of `DIJET_FEATURES`, which is that of the LHC Olympics
R&D features, and `label` (n,), 1 of signal and 0 of background.
"""

import os
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from jaxtyping import Float, Int

from jgen.arrays import cast_array, real_array
from jgen.checks import check_whole
from jgen.files import atomic_path
from jgen.tables import hdf5_dataset, open_hdf5, read_rows

DIJET_FEATURES = ("mjj", "mj1", "dm", "tau21_1", "tau21_2")
"""Columns: mass of both jets [TeV], mass of the lighter jet [TeV], by how much the other one is
heavier [TeV], and tau_2 / tau_1 of the lighter and of the heavier jet."""


class Dijets(NamedTuple):
    """Events on the host.

    Attributes:
      features: m_jj, m_j1 and dm [TeV], tau21_1, tau21_2.
      labels: 1 of signal, 0 of background.
    """

    features: Float[np.ndarray, "n 5"]
    labels: Int[np.ndarray, " n"]


def sample_dijets_path() -> Path:
    """Path of the bundled Pythia dijets; see `data/README.md`."""
    return Path(str(files("jgen.jets").joinpath("data", "pythia_dijets.h5")))


def read_dijets(path: str | os.PathLike) -> Dijets:
    """Read a file of dijets.

    Raises:
      FileNotFoundError: if it does not exist.
      ValueError: if it is not usable; the message says why.
    """
    names = ("features", "label")
    with open_hdf5(path) as file:
        events = Dijets(*(read_rows(hdf5_dataset(file, name, names)) for name in names))
    check_dijets(events, path)
    features = cast_array(events.features, f"{path}: features")
    return Dijets(features, events.labels.astype(np.int8, copy=False))


def write_dijets(path: str | os.PathLike, events: Dijets, *, bits: int = 24) -> None:
    """Write a file of dijets; it appears under its name only when it is complete.

    Args:
      path: of the file.
      events: to be written, in float32.
      bits: that count of the features' significant ones; fewer than all 24 are rounded and take
        less space, 12 by 0.012 % at most.

    Raises:
      ValueError: if `check_dijets` refuses them, or for another number of bits.
    """
    check_whole(1, 24, bits=bits)
    check_dijets(events, path)
    features = cast_array(np.asarray(events.features), f"{path}: features")
    mantissa, exponent = np.frexp(features)
    rounded = np.ldexp(np.round(np.ldexp(mantissa, bits)), exponent - bits).astype(np.float32)
    options = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
        file.create_dataset("features", data=rounded, **options)
        file.create_dataset("label", data=np.asarray(events.labels, np.int8), **options)


def check_dijets(events: Dijets, source: object = "dijets") -> None:
    """Refuse events that cannot be right.

    Raises:
      ValueError: for wrong shapes, no events, values that are not finite, masses below zero or not
        in TeV, a heavier jet first, ratios outside of 0 to 1, or labels other than 0 and 1.
    """
    features = real_array(events.features, f"{source}: features", booleans=False)
    labels = real_array(events.labels, f"{source}: labels", booleans=False)
    if features.shape != (len(labels), len(DIJET_FEATURES)) or labels.ndim != 1:
        raise ValueError(
            f"{source}: features {features.shape} and labels {labels.shape} do not belong "
            f"together; they must be (n, {len(DIJET_FEATURES)}) and (n,)"
        )
    if len(labels) == 0:
        raise ValueError(f"{source}: no events; at least one is needed")
    high = np.array([np.inf, np.inf, np.inf, 1, 1])
    bad = ~(np.isfinite(features) & (features >= 0) & (features <= high))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"{source}: {DIJET_FEATURES[column]} of event {row} is {features[row, column]}; masses "
            "must be finite and not negative, dm that of the heavier jet above the lighter one, "
            "and tau21 from 0 to 1"
        )
    middle = float(np.median(features[:, 0]))
    if not 0.02 < middle < 20:
        unit = "GeV" if middle >= 20 else "PeV"
        raise ValueError(
            f"{source}: the median m_jj is {middle:.4g}, which looks like {unit}; masses must be "
            "in TeV"
        )
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(
            f"{source}: labels must be 0 of background and 1 of signal, got "
            f"{labels[~np.isin(labels, (0, 1))][0]}"
        )
