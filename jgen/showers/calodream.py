"""CaloDREAM: flow-matched calorimeter showers (2405.09629).

p(shower | E_inc) = p(u | E_inc) p(x | u, E_inc): an autoregressive energy network for the layer
energy ratios u, a vision transformer for the normalised voxels x. Both are trained separately on
preprocessed showers; together they are one `GenerativeModel` of showers in MeV.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jgen.bijectors import Bijector
from jgen.generative_model import Batch, GenerativeModel
from jgen.models import autoregressive_flow_matching, flow_matching
from jgen.nets.transfusion import TransfusionConfig, transfusion
from jgen.nets.vit import ViTConfig, vit
from jgen.showers.geometry import Geometry
from jgen.showers.hdf5 import Showers
from jgen.showers.preprocessing import ShowerPreprocessing
from jgen.solvers import NonStationary, RungeKutta, runge_kutta
from jgen.transforms import chain, preprocessed


@dataclass(frozen=True)
class SolverConfig:
    """A Runge-Kutta solver."""

    method: Literal["euler", "midpoint", "heun", "rk4", "kutta38"] = "kutta38"
    """Method; the published code's "rk4" is Kutta's 3/8 rule."""
    steps: int = 20
    """Number of equal steps."""

    def make(self) -> RungeKutta:
        """The solver."""
        return runge_kutta(self.method, self.steps)


def energy_model(
    geometry: Geometry, config: TransfusionConfig, solver: RungeKutta | NonStationary | None = None
) -> GenerativeModel:
    """Model of the standardised ratios u [layers] given the scaled incident energy []."""
    num = geometry.num_layers
    return autoregressive_flow_matching(transfusion(num, config), num, solver=solver)


def shape_model(
    geometry: Geometry, config: ViTConfig, solver: RungeKutta | NonStationary | None = None
) -> GenerativeModel:
    """Model of the standardised voxels [*geometry.shape] given (energy, u) [1 + layers]."""
    return flow_matching(shape_network(geometry, config), geometry.shape, solver=solver)


def shape_network(geometry: Geometry, config: ViTConfig):
    """Velocity network of the shape model, for training bespoke solvers."""
    return vit(geometry.shape, 1 + geometry.num_layers, config)


def shape_condition(energy, u):
    """Condition of the shape network: scaled energy, then the standardised u, on the last axis."""
    return energy.__array_namespace__().concatenate([energy[..., None], u], axis=-1)


def calodream(
    energy: GenerativeModel, shape: GenerativeModel, preprocessing: ShowerPreprocessing
) -> GenerativeModel:
    """Both models as one, of showers [*geometry.shape] in MeV given incident energies in MeV.

    Parameters are {"first": energy's, "second": shape's}. There is no `log_prob`: normalising the
    layers drops as many dimensions as there are layers, so no density over voxels exists.
    """

    def forward(voxels, incident):
        u, x, _ = preprocessing.encode(voxels, incident)
        return (u, x), None

    def inverse(z, incident):
        return preprocessing.decode(*z, incident), None

    both = chain(energy, shape, condition=shape_condition)
    bijector = Bijector(forward, inverse, has_log_det=False)
    return preprocessed(both, bijector, condition=preprocessing.condition)


def training_data(
    chunks: Iterable[Showers], preprocessing: ShowerPreprocessing
) -> tuple[Batch, Batch]:
    """Training batches of the energy and the shape model, float32, preprocessed in float64.

    Chunks are preprocessed and cast one by one; the result has to fit into memory twice.
    """
    parts = []
    for chunk in chunks:
        voxels = chunk.voxels.astype(np.float64).reshape(-1, *preprocessing.geometry.shape)
        u, x, energy = preprocessing.encode(voxels, chunk.energies.astype(np.float64))
        parts.append([a.astype(np.float32) for a in (u, x, energy)])
    u, x, energy = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Batch(u, energy), Batch(x, shape_condition(energy, u))


def incident_energies(num: int, low: float, high: float, seed: int) -> np.ndarray:
    """Log-uniform incident energies [num] between `low` and `high` (2405.09629, Eq. 1)."""
    rng = np.random.default_rng(seed)
    return np.exp(rng.uniform(np.log(low), np.log(high), num)).astype(np.float32)
