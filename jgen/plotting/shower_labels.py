"""One name for each observable of showers, in all figures."""

_NAMES = {
    "E_tot": (r"$E_\mathrm{{tot}}/E_\mathrm{{inc}}$", ""),
    "E_layer": ("$E_{{{}}}$", " [MeV]"),
    "EC_eta": (r"$\langle\eta\rangle_{{{}}}$", " [mm]"),
    "EC_phi": (r"$\langle\phi\rangle_{{{}}}$", " [mm]"),
    "EC_r": (r"$\langle r\rangle_{{{}}}$", " [mm]"),
    "width_eta": (r"$\sigma_{{\eta,{}}}$", " [mm]"),
    "width_phi": (r"$\sigma_{{\phi,{}}}$", " [mm]"),
    "width_r": (r"$\sigma_{{r,{}}}$", " [mm]"),
    "sparsity": (r"sparsity $\lambda_{{{}}}$", ""),
    "depth": (r"depth $d_{{r_{{{}}}}}$", " [layers]"),
    "voxel": (r"$E_\mathrm{{voxel}}$", " [MeV]"),
}


def observable_label(name: str, index: int | str | None = None, *, unit: bool = True) -> str:
    """TeX name of an observable with its unit; the name itself where there is none.

    Args:
      name: as in `jgen.showers.compute_observables`, or "voxel" for all voxel energies.
      index: of the layer (of the depth, of the radial slice); a mean over all of them has "i".
      unit: with the unit.
    """
    if name not in _NAMES:
        return name
    label, of = _NAMES[name]
    return label.format("i" if index is None else index) + (of if unit else "")
