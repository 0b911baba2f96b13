"""Jets with their constituents as a value, and the files and arrays that they come in.

Constituents are sets of points: padded arrays with a number of points a jet, as `jgen.sets` has
them. Momenta are relative to the jet, in JetNet's order.
"""

import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from jaxtyping import Float, Int, Int8

from jgen.arrays import real_array
from jgen.checks import check_whole
from jgen.files import atomic_path
from jgen.jets.features import LABELS, check_labels, check_units
from jgen.tables import hdf5_dataset, open_hdf5, read_rows

PARTICLES = ("padding", "charged hadron", "neutral hadron", "photon", "electron", "muon")
"""What a constituent's `pid` counts."""


class Constituents(NamedTuple):
    """Jets with constituents on the host, the leading ones in pT, by falling pT.

    Attributes:
      points: eta and phi relative to the jet's, pT over the jet's pT; zeros beyond the n-th.
      n: numbers of points.
      total: numbers of constituents before the leading ones were taken.
      jets: pT [GeV], eta, phi and mass [GeV] of the jets.
      labels: index in `classes`.
      classes: what the jets came from.
      pid: index in `PARTICLES`; None where it is not known, as the rest.
      charge: in units of the positron's.
      impact: d0 and dz [mm], zero of neutrals.
    """

    points: Float[np.ndarray, "num rows 3"]
    n: Int[np.ndarray, " num"]
    total: Int[np.ndarray, " num"]
    jets: Float[np.ndarray, "num 4"]
    labels: Int[np.ndarray, " num"]
    classes: tuple[str, ...]
    pid: Int8[np.ndarray, "num rows"] | None = None
    charge: Int8[np.ndarray, "num rows"] | None = None
    impact: Float[np.ndarray, "num rows 2"] | None = None

    def take(self, rows: np.ndarray | slice) -> "Constituents":
        """Some of the jets."""
        some = {
            name: value[rows] if isinstance(value, np.ndarray) else value
            for name, value in self._asdict().items()
        }
        return Constituents(**some)

    def leading(self, rows: int) -> "Constituents":
        """At most so many constituents of each jet.

        Raises:
          ValueError: for no constituents.
        """
        if rows < 1:
            raise ValueError(f"at least one constituent of a jet is needed, got {rows}")
        cut = {
            name: None if getattr(self, name) is None else getattr(self, name)[:, :rows]
            for name in ("points", "pid", "charge", "impact")
        }
        return self._replace(n=np.minimum(self.n, rows).astype(np.int32), **cut)

    def of(self, *names: str) -> "Constituents":
        """Jets of some classes, which then are all classes, in the order given.

        Raises:
          ValueError: for a class that there is not.
        """
        if not names or set(names) - set(self.classes):
            raise ValueError(f"classes must be of {', '.join(self.classes)}, got {names}")
        old = [self.classes.index(name) for name in names]
        some = self.take(np.isin(self.labels, old))
        new = np.zeros(len(self.classes), np.int8)
        new[old] = np.arange(len(names))
        return some._replace(labels=new[some.labels], classes=names)


def sample_jets_path() -> Path:
    """Path of the bundled jets of constituents, gluons and tops; see `data/README.md`."""
    return Path(str(files("jgen.jets").joinpath("data", "pythia_jets_30.h5")))


def read_jets(path: str | os.PathLike, rows: int | None = None) -> Constituents:
    """Read a file of jets with constituents in this project's layout.

    `kin` (num, rows, 3): pT [GeV], eta and phi relative to the jet, zero padded; `jet` (num, 5): pT
    [GeV], eta, phi, mass [GeV], number of constituents; `label` (num,) in `LABELS`; and, where it
    has them, `pid` and `charge` (num, rows) and `ip` (num, rows, 2), d0 and dz [mm].

    Args:
      path: of the file.
      rows: leading constituents of each jet; all unless given.

    Raises:
      FileNotFoundError: if it does not exist.
      ValueError: if it has another layout; the message says what is wrong.
    """
    names = ("kin", "jet", "label")
    with open_hdf5(path) as file:
        kin, jet, label = (read_rows(hdf5_dataset(file, name, names)) for name in names)
        more = {
            name: read_rows(hdf5_dataset(file, name)) if name in file else None
            for name in ("pid", "charge", "ip")
        }
    if kin.ndim != 3 or kin.shape[2] != 3 or jet.shape != (len(kin), 5) or not len(kin):
        raise ValueError(
            f"{path}: kin {kin.shape} and jet {jet.shape} must be (num, rows, 3) and (num, 5)"
        )
    check_labels(label, path)
    check_units(jet[:, 0], path)
    pt = np.asarray(kin[..., 0], np.float32)
    points = np.stack([kin[..., 1], kin[..., 2], pt / jet[:, :1]], axis=-1).astype(np.float32)
    return in_order(
        Constituents(
            points,
            _counts(points),
            jet[:, 4].astype(np.int32),
            jet[:, :4].astype(np.float32),
            label.astype(np.int8),
            LABELS,
            more["pid"],
            more["charge"],
            None if more["ip"] is None else more["ip"].astype(np.float32),
        ),
        rows,
        path,
    )


def write_jets(path: str | os.PathLike, jets: Constituents, *, bits: int = 11) -> None:
    """Write jets in the layout that `read_jets` reads, momenta and impact parameters in float16.

    Args:
      path: of the file, which appears when it is complete.
      jets: with classes of `LABELS`.
      bits: that count of those numbers' significant ones; fewer than all 11 are rounded and take
        less space, 8 by 0.2 % at most.

    Raises:
      ValueError: for classes that are none of `LABELS`, or another number of bits.
    """
    check_whole(1, 11, bits=bits)
    if unknown := set(jets.classes) - set(LABELS):
        raise ValueError(f"classes must be of {', '.join(LABELS)}, got {sorted(unknown)}")
    codes = np.array([LABELS.index(name) for name in jets.classes], np.int8)
    kin = jets.points[..., [2, 0, 1]].copy()
    kin[..., 0] *= jets.jets[:, :1]
    columns = {
        "kin": _rounded(kin, bits),
        "jet": np.column_stack([jets.jets, jets.total]).astype(np.float32),
        "label": codes[jets.labels],
        "pid": jets.pid,
        "charge": jets.charge,
        "ip": None if jets.impact is None else _rounded(jets.impact, bits),
    }
    options = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
        for name, values in columns.items():
            if values is not None:
                file.create_dataset(name, data=values, **options)


def read_jetnet(paths: Mapping[str, str | os.PathLike], rows: int | None = None) -> Constituents:
    """Read files of JetNet (2106.11535), each of which holds jets of one class.

    `particle_features` (num, 30 or 150, 4): eta_rel, phi_rel, pT_rel and mask; `jet_features`
    (num, 4): pT [GeV], eta, mass [GeV] and number of particles. The jets' phi is not in it, zero
    stands there.

    Args:
      paths: class -> its file, {"g": "g150.hdf5", "t": "t150.hdf5"}.
      rows: leading constituents of each jet; all unless given.

    Raises:
      FileNotFoundError: if one does not exist.
      ValueError: if one has another layout, or they have different numbers of rows; the message
        says what is wrong.
    """
    if not paths:
        raise ValueError("there are no files: give a class with the path of its file")
    read = [_one_jetnet(path) for path in paths.values()]
    if len({particles.shape[1] for particles, _ in read}) > 1:
        raise ValueError(f"files of 30 and of 150 particles do not go together: {paths}")
    labels = np.repeat(np.arange(len(read), dtype=np.int8), [len(jets) for _, jets in read])
    particles, jets = (np.concatenate(columns) for columns in zip(*read, strict=True))
    points = np.where(particles[..., 3:] > 0.5, particles[..., :3], 0).astype(np.float32)
    total, zero = jets[:, 3].astype(np.int32), np.zeros(len(jets))
    kinematics = np.stack([jets[:, 0], jets[:, 1], zero, jets[:, 2]], axis=1).astype(np.float32)
    made = Constituents(points, _counts(points), total, kinematics, labels, tuple(paths))
    return in_order(made, rows, ", ".join(map(str, paths.values())))


def _one_jetnet(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    names = ("particle_features", "jet_features")
    with open_hdf5(path) as file:
        particles, jets = (read_rows(hdf5_dataset(file, name, names)) for name in names)
    if particles.ndim != 3 or particles.shape[2] != 4 or jets.shape != (len(particles), 4):
        raise ValueError(
            f"{path}: particle_features {particles.shape} and jet_features {jets.shape} must be "
            "(num, rows, 4) and (num, 4)"
        )
    check_units(jets[:, 0], path)
    return particles, jets


def write_jetnet(path: str | os.PathLike, jets: Constituents) -> None:
    """Write jets in JetNet's layout, of any classes; for programs that read it."""
    mask = np.arange(jets.points.shape[1]) < jets.n[:, None]
    particles = np.concatenate([jets.points, mask[..., None]], axis=-1).astype(np.float32)
    features = np.column_stack([jets.jets[:, [0, 1, 3]], jets.n]).astype(np.float32)
    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
        file.create_dataset("particle_features", data=particles, compression="gzip")
        file.create_dataset("jet_features", data=features)


def check_constituents(jets: Constituents, source: object = "jets") -> None:
    """Refuse jets that cannot be right.

    Raises:
      ValueError: for arrays that do not belong together, values that are not finite, momenta that
        are negative, jets without constituents, points that are none or labels without a class.
    """
    num, rows = jets.points.shape[:2]
    shapes = {"n": (num,), "total": (num,), "jets": (num, 4), "labels": (num,)}
    shapes |= {"pid": (num, rows), "charge": (num, rows), "impact": (num, rows, 2)}
    for name, shape in shapes.items():
        values = getattr(jets, name)
        if values is None:
            continue
        if real_array(values, f"{source}: {name}").shape != shape:
            raise ValueError(
                f"{source}: {name} has the shape {np.shape(values)}, but {num} jets of {rows} rows "
                f"need {shape}"
            )
        if not np.isfinite(np.asarray(values, np.float32)).all():
            raise ValueError(f"{source}: {name} holds values that are not finite")
    if not np.isfinite(jets.points).all() or (jets.points[..., 2] < 0).any():
        raise ValueError(f"{source}: momenta must be finite, and pT not negative")
    points = jets.points[..., 2] > 0
    if not (points == (np.arange(rows) < jets.n[:, None])).all():
        row = int(np.argmax((points != (np.arange(rows) < jets.n[:, None])).any(axis=1)))
        raise ValueError(
            f"{source}: jet {row} has {jets.n[row]} constituents, but the rows with pT are others"
        )
    if num == 0 or jets.n.min() < 1 or (jets.total < jets.n).any():
        raise ValueError(f"{source}: every jet needs a constituent, and no more of them than total")
    if not np.isin(jets.labels, np.arange(len(jets.classes))).all():
        raise ValueError(f"{source}: labels must be 0 to {len(jets.classes) - 1}")
    share = float(np.median(jets.points[..., 2].sum(axis=1)))
    if not 0.1 < share < 10:
        raise ValueError(
            f"{source}: constituents have {share:.2g} of the jets' pT in the median; pT of points "
            "must be relative to the jet, or both in GeV in a file"
        )


def _rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """In float16, with zeros beyond the first `bits` significant bits."""
    mantissa, exponent = np.frexp(values.astype(np.float16).astype(np.float32))
    return np.ldexp(np.round(np.ldexp(mantissa, bits)), exponent - bits).astype(np.float16)


def _counts(points: np.ndarray) -> np.ndarray:
    return (points[..., 2] > 0).sum(axis=1).astype(np.int32)


def in_order(jets: Constituents, rows: int | None = None, source: object = "jets") -> Constituents:
    """By falling pT, the leading ones alone, checked."""
    order = np.argsort(-jets.points[..., 2], axis=1, kind="stable")

    def take(values):
        if values is None or values.shape[:2] != order.shape:
            return values
        shape = (*order.shape, *(1,) * (values.ndim - 2))
        return np.take_along_axis(values, order.reshape(shape), axis=1)

    names = ("points", "pid", "charge", "impact")
    jets = jets._replace(**{name: take(getattr(jets, name)) for name in names})
    check_constituents(jets, source)
    return jets if rows is None else jets.leading(rows)
