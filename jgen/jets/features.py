"""Features of whole jets in HDF5: transverse momentum, mass and ratios of N-subjettiness.

A file of features holds `features` (n, 4) in the order of `FEATURES` and `label` (n,). It is made
of a file of jets with constituents by `compute_features`.
"""

import os
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import h5py
import jax
import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from jgen.arrays import cast_array, real_array
from jgen.files import atomic_path
from jgen.jets.substructure import n_subjettiness
from jgen.tables import hdf5_dataset, open_hdf5, read_rows

FEATURES = ("pt", "mass", "tau21", "tau32")
"""Columns: pT and mass in GeV, tau_2 / tau_1 and tau_3 / tau_2."""
LABELS = ("gluon", "light quark", "top", "W", "Z", "H->bb")
"""What a jet's label counts: the particle it came from."""
# With fewer constituents tau_3 is zero, and with it the ratio: no density holds such an atom.
_LEAST_CONSTITUENTS = 4
_CHUNK = 100  # jets of one call


class JetFeatures(NamedTuple):
    """A set of jets on the host.

    Attributes:
      features: pT [GeV], mass [GeV], tau21, tau32.
      labels: index in `LABELS`.
    """

    features: Float[np.ndarray, "n 4"]
    labels: Int[np.ndarray, " n"]


def sample_path() -> Path:
    """Path of the features of the bundled Pythia jets; see `data/README.md`."""
    return Path(str(files("jgen.jets").joinpath("data", "pythia_jet_features.h5")))


def read_features(path: str | os.PathLike) -> JetFeatures:
    """Read a file of features.

    Raises:
      FileNotFoundError: if it does not exist.
      ValueError: if it is not usable; the message says why.
    """
    features, labels = _read(path, "features", "label")
    check_features(JetFeatures(features, labels), path)
    return JetFeatures(
        cast_array(features, f"{path}: features"), labels.astype(np.int8, copy=False)
    )


def write_features(path: str | os.PathLike, jets: JetFeatures) -> None:
    """Write a file of features; it appears under its name only when it is complete.

    Raises:
      ValueError: if `check_features` refuses them.
    """
    check_features(jets, path)
    options = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
        file.create_dataset(
            "features", data=cast_array(np.asarray(jets.features), f"{path}: features"), **options
        )
        file.create_dataset("label", data=np.asarray(jets.labels, np.int8), **options)


def check_features(jets: JetFeatures, source: object = "jets") -> None:
    """Refuse features that cannot be right.

    Raises:
      ValueError: for wrong shapes, an empty set, NaN, a momentum, mass or ratio that is not
        positive, or an unknown label.
    """
    features = real_array(jets.features, f"{source}: features", booleans=False)
    labels = real_array(jets.labels, f"{source}: labels")
    if features.shape != (len(labels), len(FEATURES)) or labels.ndim != 1:
        raise ValueError(
            f"{source}: features {features.shape} and labels {labels.shape} do not belong "
            f"together; they must be (n, {len(FEATURES)}) and (n,)"
        )
    if len(labels) == 0:
        raise ValueError(f"{source}: no jets; at least one is needed")
    if not (np.isfinite(features) & (features > 0)).all():
        row, column = np.argwhere(~(np.isfinite(features) & (features > 0)))[0]
        raise ValueError(
            f"{source}: {FEATURES[column]} of jet {row} is {features[row, column]}; features must "
            "be positive and finite, with momenta and masses in GeV"
        )
    check_units(features[:, 0], source)
    check_labels(labels, source)


def check_units(pt: np.ndarray, source: object) -> None:
    """Jets have more than a few GeV of pT, and no collider makes any of 20 TeV."""
    middle = float(np.median(pt))
    if not 2 < middle < 2e4:
        raise ValueError(
            f"{source}: the median pT is {middle:.4g}, which looks like "
            f"{'TeV' if middle < 2 else 'MeV'}; momenta and masses must be in GeV"
        )


def check_labels(labels: np.ndarray, source: object) -> None:
    """Before they are cast, which would make a class of 256, of 0.9 and of NaN."""
    known = np.isin(labels, np.arange(len(LABELS)))
    if labels.dtype.kind not in "iuf" or not known.all():
        bad = labels.dtype if labels.dtype.kind not in "iuf" else labels[~known][0]
        raise ValueError(
            f"{source}: labels must be 0 to {len(LABELS) - 1}, for {LABELS}, got {bad}"
        )


def compute_features(
    path: str | os.PathLike, radius: float = 0.8, *, progress: bool = True
) -> JetFeatures:
    """Features of jets with constituents, a few milliseconds a jet on one core.

    pT and mass are those of the file, of all constituents; the ratios are those of the
    constituents that it holds. Jets of fewer than four constituents, whose tau_3 is zero, are left
    out.

    Args:
      path: HDF5 file with `kin` (n, constituents, 3), pT [GeV], eta and phi relative to the jet,
        zero padded; `jet` (n, 5), pT, eta, phi, mass and number of constituents; `label` (n,).
      radius: of the jets, which divides out of the ratios but for rounding.
      progress: show a progress bar.

    Raises:
      FileNotFoundError: if the file does not exist.
      ValueError: if it has another layout.
    """
    kin, jet, label = _read(path, "kin", "jet", "label")
    if kin.ndim != 3 or kin.shape[2] != 3 or jet.shape != (len(kin), 5):
        raise ValueError(
            f"{path}: kin {kin.shape} and jet {jet.shape} must be (n, constituents, 3) and (n, 5)"
        )
    check_labels(label, path)
    check_units(jet[:, 0], path)
    share = float(np.median(kin[..., 0].sum(axis=1, dtype=np.float64) / jet[:, 0]))
    if not 0.1 < share < 10:
        raise ValueError(
            f"{path}: constituents have {share:.2g} of the jets' pT in the median; both must be in "
            "GeV"
        )
    # Constituents first, so that cutting the padding cuts nothing else.
    kin = np.take_along_axis(kin, np.argsort(-kin[..., 0], axis=1)[..., None], axis=1)
    counts = (kin[..., 0] > 0).sum(axis=1)
    taus = np.zeros((len(kin), 3), np.float32)
    one = lambda constituents: n_subjettiness(constituents, (1, 2, 3), radius)
    # One jet after the other: a batch of distance matrices would leave the cache.
    many = jax.jit(lambda constituents: jax.lax.map(one, constituents))
    with tqdm(total=len(kin), unit="jet", disable=not progress) as bar:
        # Clustering goes with the third power of the width: padding is cut where jets are small.
        for width in range(32, kin.shape[1] + 32, 32):
            rows = np.flatnonzero((counts <= width) & (counts > width - 32))
            for first in range(0, len(rows), _CHUNK):
                some = rows[first : first + _CHUNK]
                cut = kin[some, :width]
                padded = np.zeros((_CHUNK, width, 3), np.float32)
                padded[: len(some), : cut.shape[1]] = cut
                taus[some] = np.asarray(many(padded))[: len(some)]
                bar.update(len(some))
    keep = counts >= _LEAST_CONSTITUENTS
    tau1, tau2, tau3 = taus[keep].T
    columns = (jet[keep, 0], jet[keep, 3], tau2 / tau1, tau3 / tau2)
    return JetFeatures(np.stack(columns, axis=1).astype(np.float32), label[keep].astype(np.int8))


def _read(path: str | os.PathLike, *names: str) -> list[np.ndarray]:
    """Data sets of a file, all of the same length."""
    with open_hdf5(path) as file:
        return [read_rows(hdf5_dataset(file, name, names)) for name in names]
