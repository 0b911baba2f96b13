"""Invertible maps with log-determinants: fixed ones for preprocessing, trainable ones for flows."""

from jgen.bijectors.autoregressive import autoregressive
from jgen.bijectors.continuous import continuous
from jgen.bijectors.coupling import coupling, masked_coupling
from jgen.bijectors.dequantize import dequantize, level_gaussian, level_of
from jgen.bijectors.distrax import from_distrax
from jgen.bijectors.elements import Element, additive, affine
from jgen.bijectors.elementwise import Bijector, log, logit, per_point, standardize
from jgen.bijectors.grid import grid
from jgen.bijectors.linear import actnorm, flip, householder, permutation, plu, qr
from jgen.bijectors.multi_scale import level_shapes, multi_scale, squeeze
from jgen.bijectors.planar import planar, radial
from jgen.bijectors.recipes import (
    autoregressive_flow,
    coupling_flow,
    cube_flow,
    glow,
    inverse_autoregressive_flow,
)
from jgen.bijectors.residual import residual
from jgen.bijectors.splines import cubic, quadratic, rational_quadratic
from jgen.bijectors.trainable import (
    TrainableBijector,
    compose,
    conditioned,
    embedded,
    frozen,
    inverted,
    pixelwise,
    repeated,
    stacked,
)

__all__ = [
    "Bijector",
    "Element",
    "TrainableBijector",
    "actnorm",
    "additive",
    "affine",
    "autoregressive",
    "autoregressive_flow",
    "compose",
    "conditioned",
    "continuous",
    "coupling",
    "coupling_flow",
    "cube_flow",
    "cubic",
    "dequantize",
    "embedded",
    "flip",
    "frozen",
    "from_distrax",
    "glow",
    "grid",
    "householder",
    "inverse_autoregressive_flow",
    "inverted",
    "level_gaussian",
    "level_of",
    "level_shapes",
    "log",
    "logit",
    "masked_coupling",
    "multi_scale",
    "permutation",
    "pixelwise",
    "planar",
    "plu",
    "qr",
    "quadratic",
    "radial",
    "rational_quadratic",
    "repeated",
    "residual",
    "squeeze",
    "stacked",
    "per_point",
    "standardize",
]
