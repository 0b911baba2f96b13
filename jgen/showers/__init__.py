"""Calorimeter showers: geometry, files, observables, preprocessing."""

from jgen.showers.features import (
    compute_high_level_inputs,
    compute_observables,
    high_level_inputs,
    observables,
    official_binning,
)
from jgen.showers.geometry import GEOMETRIES, Geometry, Layer, get_geometry
from jgen.showers.hdf5 import (
    Showers,
    check_showers,
    count_showers,
    iterate_showers,
    read_showers,
    sample_path,
    write_showers,
)
from jgen.showers.preprocessing import (
    Fractions,
    ShowerPreprocessing,
    Statistics,
    fit_statistics,
    from_fractions,
    load_preprocessing,
    save_preprocessing,
    to_fractions,
)

__all__ = [
    "GEOMETRIES",
    "Fractions",
    "Geometry",
    "Layer",
    "ShowerPreprocessing",
    "Showers",
    "Statistics",
    "check_showers",
    "compute_high_level_inputs",
    "compute_observables",
    "count_showers",
    "fit_statistics",
    "from_fractions",
    "get_geometry",
    "high_level_inputs",
    "iterate_showers",
    "load_preprocessing",
    "observables",
    "official_binning",
    "read_showers",
    "sample_path",
    "save_preprocessing",
    "to_fractions",
    "write_showers",
]
