"""CaloDREAM: flow-matched calorimeter showers (2405.09629).

p(shower | E_inc) = p(u | E_inc) p(x | u, E_inc): an autoregressive energy network for the layer
energy ratios u, a vision transformer for the normalised voxels x. Both are trained separately on
preprocessed showers; together they are one `GenerativeModel` of showers in MeV.

Either part has a second form. A parallel energy network makes all ratios in one flow, as in the
authors' later code (2601.05289). laViT (Sec. 3.3) makes the shapes in the latent space of a
variational autoencoder; its condition is the same standardised one as of the other networks, where
the published code takes the ratios as they are.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from jgen.bijectors import Bijector
from jgen.generative_model import Batch, GenerativeModel
from jgen.models import (
    Autoencoder,
    autoregressive_flow_matching,
    encoder_decoder,
    flow_matching,
)
from jgen.nets.conv_autoencoder import ConvAutoencoderConfig, conv_autoencoder
from jgen.nets.network import Network
from jgen.nets.sequence import SequenceConfig, sequence
from jgen.nets.transfusion import TransfusionConfig, transfusion
from jgen.nets.vit import ViTConfig, vit
from jgen.showers.geometry import Geometry
from jgen.showers.hdf5 import Showers
from jgen.showers.preprocessing import ShowerPreprocessing
from jgen.solvers import NonStationary, RungeKutta, runge_kutta
from jgen.transforms import chain, latent, preprocessed
from jgen.typing import Params


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


Solver = RungeKutta | NonStationary


def energy_model(
    geometry: Geometry,
    config: TransfusionConfig | SequenceConfig,
    solver: Solver | None = None,
) -> GenerativeModel:
    """Model of the standardised ratios u [layers] given the scaled incident energy [].

    Autoregressive with a `TransfusionConfig`, all ratios at once with a `SequenceConfig`; both have
    the same interface and an exact `log_prob`.
    """
    num = geometry.num_layers
    if isinstance(config, SequenceConfig):
        return flow_matching(sequence(num, 1, config), (num,), solver=solver)
    return autoregressive_flow_matching(transfusion(num, config), num, solver=solver)


def shape_model(
    geometry: Geometry, config: ViTConfig, solver: Solver | None = None
) -> GenerativeModel:
    """Model of the standardised voxels [*geometry.shape] given (energy, u) [1 + layers]."""
    return flow_matching(shape_network(geometry, config), geometry.shape, solver=solver)


def shape_network(geometry: Geometry, config: ViTConfig) -> Network:
    """Velocity network of the shape model, for training bespoke solvers."""
    return vit(geometry.shape, 1 + geometry.num_layers, config)


def shower_autoencoder(
    geometry: Geometry, config: ConvAutoencoderConfig
) -> tuple[Autoencoder, tuple[int, ...]]:
    """Autoencoder of voxel fractions [*geometry.shape] given (energy, u), and its latent shape."""
    networks = conv_autoencoder(geometry.shape, 1 + geometry.num_layers, config)
    return encoder_decoder(networks.encoder, networks.decoder), networks.latent_shape


def latent_shape_network(
    geometry: Geometry, config: ViTConfig, autoencoder: ConvAutoencoderConfig
) -> Network:
    """Velocity network of laViT, of latents (channels, layers, angles, radii)."""
    return vit(shower_autoencoder(geometry, autoencoder)[1], 1 + geometry.num_layers, config)


def latent_shape_model(
    geometry: Geometry,
    config: ViTConfig,
    autoencoder: ConvAutoencoderConfig,
    autoencoder_params: Params,
    solver: Solver | None = None,
) -> GenerativeModel:
    """Model of voxel fractions [*geometry.shape] given (energy, u), in a frozen latent space."""
    network = latent_shape_network(geometry, config, autoencoder)
    coder, shape = shower_autoencoder(geometry, autoencoder)
    return latent(flow_matching(network, shape, solver=solver), coder, autoencoder_params)


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
