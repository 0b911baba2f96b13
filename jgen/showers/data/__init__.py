"""Showers as arrays and files: geometries, HDF5 files, the bundled sample."""

from jgen.showers.data.geometry import GEOMETRIES, Geometry, Layer, get_geometry
from jgen.showers.data.hdf5 import (
    Showers,
    check_showers,
    check_units,
    count_showers,
    in_chunks,
    iterate_showers,
    read_showers,
    sample_path,
    write_showers,
)
from jgen.showers.data.merging import merged, merged_geometry
from jgen.showers.data.readout import GRIDS, Grid, shower_coordinates, voxelise

__all__ = [
    "GEOMETRIES",
    "GRIDS",
    "Geometry",
    "Grid",
    "Layer",
    "Showers",
    "check_showers",
    "check_units",
    "count_showers",
    "get_geometry",
    "in_chunks",
    "iterate_showers",
    "merged",
    "merged_geometry",
    "read_showers",
    "sample_path",
    "shower_coordinates",
    "voxelise",
    "write_showers",
]
