"""Jets with constituents as columns of awkward arrays, with the names of JetClass (2202.03772)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jgen.arrays import real_array
from jgen.jets.constituents import Constituents, in_order
from jgen.sets import padded

_KINDS = ("isChargedHadron", "isNeutralHadron", "isPhoton", "isElectron", "isMuon")
_MOMENTA = ("part_px", "part_py", "part_pz")
_JETS = ("jet_pt", "jet_eta", "jet_phi", "jet_energy")


def from_columns(columns: Mapping[str, Any], rows: int | None = None) -> Constituents:
    """Jets from columns of JetClass, as `uproot` reads them.

    `part_px`, `part_py`, `part_pz` [GeV] of the particles; `jet_pt`, `jet_eta`, `jet_phi`,
    `jet_energy` [GeV]; `label_NAME`, one or zero, of each class; and, where they are there,
    `part_isChargedHadron`, `...NeutralHadron`, `...Photon`, `...Electron`, `...Muon`,
    `part_charge`, and `part_d0val` and `part_dzval` [mm]. Others are not looked at. Relative
    coordinates are made of the momenta, since `part_deta` has the sign of the jet's eta.

    Args:
      columns: awkward arrays or lists of arrays, one entry a jet.
      rows: leading constituents of each jet; all unless given.

    Raises:
      ValueError: for columns that are missing or do not belong together.
    """
    classes = tuple(n.removeprefix("label_") for n in columns if n.startswith("label_"))
    missing = [name for name in (*_MOMENTA, *_JETS) if name not in columns]
    if missing or not classes:
        raise ValueError(
            f"columns {', '.join(missing or ['label_NAME'])} are missing; found {sorted(columns)}"
        )
    pt, eta, phi, energy = (real_array(columns[n], n).astype(np.float64) for n in _JETS)
    px, py, pz = (_lists(columns[name], name) for name in _MOMENTA)
    lengths = [len(one) for one in px]
    flat = {"part_px": np.concatenate(px), "part_py": np.concatenate(py)}
    flat["part_pz"] = np.concatenate(pz)
    optional = {f"part_{kind}": "pid" for kind in _KINDS}
    optional |= {"part_charge": "charge", "part_d0val": "impact", "part_dzval": "impact"}
    for name in optional:
        if name in columns:
            lists = _lists(columns[name], name)
            flat[name] = np.concatenate(lists)
    of = np.repeat(np.arange(len(lengths)), lengths)
    if len(pt) != len(lengths) or any(len(v) != len(of) for v in flat.values()):
        raise ValueError("columns of jets and of particles must have the same numbers of entries")
    momentum = np.hypot(flat["part_px"], flat["part_py"])
    if not (momentum > 0).all():
        raise ValueError("every particle needs a transverse momentum")
    turned = np.arctan2(flat["part_py"], flat["part_px"]) - phi[of]
    turned = np.mod(turned + np.pi, 2 * np.pi) - np.pi
    tilted = np.arcsinh(flat["part_pz"] / momentum) - eta[of]

    def table(*values):
        rows_of = np.split(np.stack(values, axis=1).astype(np.float32), np.cumsum(lengths)[:-1])
        return padded(rows_of)

    points, n = table(tilted, turned, momentum / pt[of])
    kinds = [f"part_{kind}" for kind in _KINDS]
    pid = charge = impact = None
    if all(name in flat for name in kinds):
        code = sum((k + 1) * (flat[name] > 0.5) for k, name in enumerate(kinds))
        pid = table(code)[0][..., 0].astype(np.int8)
    if "part_charge" in flat:
        charge = table(np.rint(flat["part_charge"]))[0][..., 0].astype(np.int8)
    if {"part_d0val", "part_dzval"} <= set(flat):
        impact = table(flat["part_d0val"], flat["part_dzval"])[0]
    mass = np.sqrt(np.maximum(energy**2 - (pt * np.cosh(eta)) ** 2, 0))
    labels = np.stack([real_array(columns[f"label_{c}"], f"label_{c}") for c in classes], axis=1)
    if not (labels.astype(bool).sum(axis=1) == 1).all():
        raise ValueError("every jet needs one label_NAME that is one, the others zero")
    jets = np.stack([pt, eta, phi, mass], axis=1).astype(np.float32)
    label = labels.argmax(axis=1).astype(np.int8)
    made = Constituents(points, n, n.copy(), jets, label, classes, pid, charge, impact)
    return in_order(made, rows, "columns")


def to_columns(jets: Constituents) -> dict[str, Any]:
    """Columns that `from_columns` reads, ragged ones as awkward arrays; of massless particles.

    Raises:
      ValueError: if awkward is not installed.
    """
    try:
        import awkward
    except ImportError as error:
        raise ValueError("columns are awkward arrays: pip install awkward") from error
    rows = np.arange(jets.points.shape[1]) < jets.n[:, None]
    ragged = lambda values: awkward.unflatten(np.ascontiguousarray(values[rows]), jets.n)
    pt, eta, phi, mass = jets.jets.astype(np.float64).T
    momentum = jets.points[..., 2] * pt[:, None]
    tilted, turned = jets.points[..., 0] + eta[:, None], jets.points[..., 1] + phi[:, None]
    columns = {
        "part_px": ragged(momentum * np.cos(turned)),
        "part_py": ragged(momentum * np.sin(turned)),
        "part_pz": ragged(momentum * np.sinh(tilted)),
        "part_energy": ragged(momentum * np.cosh(tilted)),
        "jet_pt": pt,
        "jet_eta": eta,
        "jet_phi": phi,
        "jet_energy": np.hypot(pt * np.cosh(eta), mass),
        "jet_nparticles": jets.total,
    }
    columns |= {f"label_{name}": jets.labels == k for k, name in enumerate(jets.classes)}
    if jets.pid is not None:
        columns |= {f"part_{kind}": ragged(jets.pid == k + 1) for k, kind in enumerate(_KINDS)}
    if jets.charge is not None:
        columns["part_charge"] = ragged(jets.charge)
    if jets.impact is not None:
        columns["part_d0val"], columns["part_dzval"] = map(ragged, np.moveaxis(jets.impact, -1, 0))
    return columns


def _lists(column: Any, name: str) -> list[np.ndarray]:
    """A ragged column as arrays, one a jet."""
    if hasattr(column, "layout"):
        import awkward

        counts = np.asarray(awkward.num(column))
        flat = np.asarray(awkward.flatten(column), np.float64)
        return np.split(flat, np.cumsum(counts)[:-1])
    lists = [real_array(one, name).astype(np.float64) for one in column]
    if not lists:
        raise ValueError(f"{name} has no jets")
    return lists
