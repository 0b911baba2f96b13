"""Jets with constituents as columns of awkward arrays, with the names of JetClass (2202.03772)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jgen.arrays import double_array
from jgen.columns import flat_column
from jgen.jets.constituents import Constituents, in_order

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
    kinds = [f"part_{kind}" for kind in _KINDS]
    optional = [*kinds, "part_charge", "part_d0val", "part_dzval"]
    names = [*_MOMENTA, *(name for name in optional if name in columns)]
    flat, counts = {}, {}
    for name in names:
        flat[name], counts[name] = _flat(columns[name], name)
    whole = (*_JETS, *(f"label_{c}" for c in classes))
    of_jets = {name: double_array(columns[name], name) for name in whole}
    n = counts["part_px"].astype(np.int32)
    other = [k for k, own in counts.items() if not np.array_equal(own, n)]
    other += [k for k, own in of_jets.items() if own.shape != n.shape]
    if other:
        raise ValueError(
            f"{', '.join(other)} must have as many entries as part_px, {len(n)} jets, with as many "
            "particles in each"
        )
    pt, eta, phi, energy = (of_jets[name] for name in _JETS)
    of = np.repeat(np.arange(len(n)), n)
    momentum = np.hypot(flat["part_px"], flat["part_py"])
    if not (momentum > 0).all():
        raise ValueError("every particle needs a transverse momentum")
    turned = np.arctan2(flat["part_py"], flat["part_px"]) - phi[of]
    turned = np.mod(turned + np.pi, 2 * np.pi) - np.pi
    tilted = np.arcsinh(flat["part_pz"] / momentum) - eta[of]

    there = np.arange(n.max(initial=0)) < n[:, None]

    def table(*values, kind=np.float32):
        made = np.zeros((*there.shape, len(values)), kind)
        made[there] = np.stack(values, axis=1)
        return made

    points = table(tilted, turned, momentum / pt[of])
    pid = charge = impact = None
    if all(name in flat for name in kinds):
        code = sum((k + 1) * (flat[name] > 0.5) for k, name in enumerate(kinds))
        pid = table(code, kind=np.int8)[..., 0]
    if "part_charge" in flat:
        charge = table(np.rint(flat["part_charge"]), kind=np.int8)[..., 0]
    if {"part_d0val", "part_dzval"} <= set(flat):
        impact = table(flat["part_d0val"], flat["part_dzval"])
    mass = np.sqrt(np.maximum(energy**2 - (pt * np.cosh(eta)) ** 2, 0))
    labels = np.stack([of_jets[f"label_{c}"] for c in classes], axis=1)
    # Not as truth values, of which a half or NaN is one.
    if not ((labels == 1).sum(axis=1) == 1).all() or not ((labels == 0) | (labels == 1)).all():
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


def _flat(column: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """All entries of a ragged column one after another, and how many each jet has."""
    values, counts = flat_column(column, name)
    if counts is None and values.ndim == 2:  # as many particles in all jets
        values, counts = values.reshape(-1), np.full(len(values), values.shape[1])
    if counts is None or not len(counts):
        raise ValueError(f"{name} must be the numbers of each jet's particles, of one jet at least")
    return values.astype(np.float64), counts
