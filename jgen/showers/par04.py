"""Shower models in the layout that Geant4's example Par04 reads, in its mode for autoencoders.

    export_par04("electrons.onnx", trained.model, trained.params, trained.geometry)

`Par04OnnxInference` gives a network one array of float32 [1, N]: random normal numbers, the
incident energy over 1,024,000 MeV, the polar angle over 90 degrees, and the numbers 0 and 1 for the
detector. It takes the first output as energies of cells over the incident energy, one after
another, with the layer the fastest, then the angle, and the ring the slowest; its mesh of 9 x 16 x
45 cells is that of the CaloChallenge's dataset 2. The example's macro has to be told the number of
random numbers, the size of its latent vector, which `export_par04` returns.
"""

import math
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen.export import flat_sampler, write_onnx
from jgen.generative_model import GenerativeModel, check_one_member
from jgen.showers.data import Geometry
from jgen.typing import Params

LARGEST_ENERGY = 1_024_000.0
"""What incident energies are divided by [MeV]."""
NUM_CONDITIONS = 4
"""Numbers after the random ones: energy, polar angle and two for the detector."""


def export_par04(
    path: str | os.PathLike,
    model: GenerativeModel,
    params: Params,
    geometry: Geometry,
    *,
    metadata: Mapping[str, Any] | None = None,
) -> int:
    """Write a model as an ONNX file that Par04 reads, and return how many random numbers it takes.

    The angle is not looked at: showers are those of particles perpendicular to the axis of the
    cylinder, as trained. All random numbers must be normal, as those of CaloDREAM and CaloClouds
    are. Samplers of few steps are written without loops; the calibration of CaloClouds keeps one.

    Args:
      path: of the file.
      model: of showers [layers, angles, rings] in MeV given incident energies in MeV.
      params: its parameters (of one member).
      geometry: a regular one; the example's own is that of ds2.
      metadata: kept in the file beside the geometry.

    Raises:
      ValueError: for models without `sample_from` or with other showers, and as `write_onnx`.
    """
    check_one_member(model, params)
    sampler, layout = flat_sampler(model, params, np.float32(1))
    latent = sum(map(math.prod, layout.values()))
    shape = jax.eval_shape(sampler, jnp.zeros(latent), jnp.ones(())).shape
    if shape != geometry.shape:
        raise ValueError(
            f"the model makes showers {shape}, but {geometry.name} has the shape {geometry.shape}"
        )

    def cells(x):
        energy = x[0, latent] * LARGEST_ENERGY
        made = sampler(x[0, :latent], energy)
        return (made.transpose(2, 1, 0) / energy).reshape(1, -1)

    x = jax.ShapeDtypeStruct((1, latent + NUM_CONDITIONS), np.float32)
    mesh = dict(zip(("layers", "angles", "rings"), geometry.shape, strict=True))
    own = {"layout": "Par04", "latent": latent, "mesh": mesh}
    write_onnx(path, cells, {"x": x}, "cells", own | dict(metadata or {}))
    return latent
