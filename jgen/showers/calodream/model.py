"""CaloDREAM: flow-matched calorimeter showers (2405.09629), its networks in one table.

p(shower | E_inc) = p(u | E_inc) p(x | u, E_inc): an autoregressive energy network for the layer
energy ratios u, a vision transformer for the normalised voxels x. Both are trained separately on
preprocessed showers; together they are one `GenerativeModel` of showers in MeV.

Either part has a second form. A parallel energy network makes all ratios in one flow, as in the
authors' later code (2601.05289). laViT (Sec. 3.3) makes the shapes in the latent space of a
variational autoencoder; its condition is the same standardised one as of the other networks, where
the published code takes the ratios as they are.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from jgen.bijectors import Bijector
from jgen.checks import check_literals, check_not_negative, check_sizes, check_whole
from jgen.generative_model import Batch, GenerativeModel
from jgen.models import (
    autoregressive_flow_matching,
    encoder_decoder,
    flow_matching,
    vae,
)
from jgen.nets import (
    ConvAutoencoderConfig,
    SequenceConfig,
    TransfusionConfig,
    ViTConfig,
    conv_autoencoder,
    sequence,
    transfusion,
    vit,
)
from jgen.random import numpy_generator
from jgen.showers.calodream.preprocessing import ShowerPreprocessing
from jgen.showers.data import Showers, get_geometry, in_chunks
from jgen.solvers import NonStationary, RungeKutta, SolverConfig
from jgen.training import TrainConfig, make_layout, make_optimizer
from jgen.transforms import chain, latent, preprocessed
from jgen.typing import Key, Params

Solver = RungeKutta | NonStationary


@dataclass(frozen=True)
class CaloDreamConfig:
    """Networks, trainings and solvers of one CaloDREAM; the defaults are those published for ds2.

    The trainings of the publication are presets of `experiments.showers`.
    """

    geometry: Literal["ds2", "ds3"] = "ds2"
    """Voxels of the showers."""
    energy_range: tuple[float, float] | None = None
    """Incident energies [MeV] that scale to 0 and 1; those of the training sample unless given.
    The CaloChallenge's are 1 GeV to 1 TeV, those of the bundled sample 1 to 30 GeV."""
    standardise: Literal["voxel", "global"] = "global"
    """voxel, as published: a mean and deviation for each voxel; global: one for all, which a small
    sample needs, since most of its voxels are hit too rarely to have a deviation."""
    energies: Literal["autoregressive", "parallel"] = "autoregressive"
    """autoregressive, as published: one layer energy after another; parallel: all in one flow."""
    energy_network: TransfusionConfig = TransfusionConfig()
    """Autoregressive network of the layer energies."""
    parallel_network: SequenceConfig = SequenceConfig()
    """Parallel network of the layer energies."""
    space: Literal["voxel", "latent"] = "voxel"
    """voxel: shapes are made voxel by voxel (ViT); latent: in an autoencoder's latent space (laViT,
    Sec. 3.3), the autoencoder being trained first."""
    shape_network: ViTConfig = ViTConfig()
    """Vision transformer of the normalised voxels, or of their latents."""
    autoencoder: ConvAutoencoderConfig = ConvAutoencoderConfig()
    """Convolutional autoencoder of the normalised voxels."""
    beta: float = 1e-6
    """Weight of the autoencoder's KL term, mean over latents, to the BCE, mean over voxels."""
    energy_training: TrainConfig = TrainConfig()
    """Training of the energy network."""
    autoencoder_training: TrainConfig = TrainConfig()
    """Training of the autoencoder."""
    shape_training: TrainConfig = TrainConfig()
    """Training of the shape network. Showers are drawn from the first member of an ensemble."""
    energy_solver: SolverConfig = SolverConfig("kutta38", 50)
    """Solver of each layer energy."""
    shape_solver: SolverConfig = SolverConfig("kutta38", 20)
    """Solver of the voxels."""
    num_validation: int = 0
    """Showers cut from the end of the training sample to validate on."""
    seed: int = 0
    """Seed of everything random."""

    def check(self) -> None:
        """Raise a ValueError for options that do not fit together."""
        check_literals(self)
        check_whole(0, num_validation=self.num_validation)
        check_not_negative(beta=self.beta)
        for part in parts(self).values():
            part.training.check()
            make_optimizer(part.training.optimizer, part.training.steps)
            make_layout(part.training.ensemble, part.training.batch_size)
        low, high = self.energy_range or (1.0, 2.0)
        if not 0 < low < high < math.inf:
            raise ValueError(f"energy_range must be 0 < low < high [MeV], got {self.energy_range}")
        if self.shape_network.attention == "cudnn" and jax.default_backend() != "gpu":
            raise ValueError(
                "cudnn attention needs an NVIDIA GPU, but JAX runs on "
                f"{jax.default_backend()}; leave --shape-network.attention at xla"
            )


class Part(NamedTuple):
    """One network of a CaloDREAM.

    Attributes:
      network: velocity network (`Network` or `Transfusion`), or the `Autoencoder`.
      shape: of what the velocity network makes; of the autoencoder's latents.
      model: what is trained.
      training: how.
      data: field of `TrainingData` that it learns from.
    """

    network: Any
    shape: tuple[int, ...]
    model: GenerativeModel
    training: TrainConfig
    data: Literal["energy", "shape"]


def parts(
    config: CaloDreamConfig,
    params: Mapping[str, Params] | None = None,
    solvers: Mapping[str, Solver] | None = None,
) -> dict[str, Part]:
    """All networks, in the order of their trainings: energy, in a latent space autoencoder, shape.

    The energy model is of the standardised ratios u [layers] given the scaled incident energy [];
    both of its forms have the same interface and an exact `log_prob`. The shape model is of the
    standardised voxels [*geometry.shape], in a latent space of voxel fractions, given (scaled
    energy, u) [1 + layers].

    Args:
      config: sizes.
      params: by part; a shape model in a latent space needs those of its autoencoder to do more
        than be initialised.
      solvers: by part, in the place of the configured ones.
    """
    geometry = get_geometry(config.geometry)
    num = geometry.num_layers
    used = {p: getattr(config, f"{p}_solver").make() for p in ("energy", "shape")}
    used |= solvers or {}
    if config.energies == "parallel":
        network = sequence(num, 1, config.parallel_network)
        model = flow_matching(network, (num,), solver=used["energy"])
    else:
        network = transfusion(num, config.energy_network)
        model = autoregressive_flow_matching(network, num, solver=used["energy"])
    table = {"energy": Part(network, (num,), model, config.energy_training, "energy")}
    shape = geometry.shape
    if config.space == "latent":
        networks = conv_autoencoder(geometry.shape, 1 + num, config.autoencoder)
        coder = encoder_decoder(networks.encoder, networks.decoder)
        shape = networks.latent_shape
        model = vae(coder, shape, beta=config.beta, reduction="mean")
        table["autoencoder"] = Part(coder, shape, model, config.autoencoder_training, "shape")
    network = vit(shape, 1 + num, config.shape_network)
    model = flow_matching(network, shape, solver=used["shape"])
    if "autoencoder" in (params or {}):
        model = latent(model, coder, params["autoencoder"])
    return table | {"shape": Part(network, shape, model, config.shape_training, "shape")}


def shape_condition(energy, u):
    """Condition of the shape network: scaled energy, then the standardised u, on the last axis."""
    return energy.__array_namespace__().concatenate([energy[..., None], u], axis=-1)


def shower_model(
    energy: GenerativeModel, shape: GenerativeModel, preprocessing: ShowerPreprocessing
) -> GenerativeModel:
    """Both models as one, of showers [*geometry.shape] in MeV given incident energies in MeV.

    Parameters are {"energy": ..., "shape": ...}. There is no `log_prob`: normalising the layers
    drops as many dimensions as there are layers, so no density over voxels exists.
    """

    def forward(voxels, incident):
        u, x, _ = preprocessing.encode(voxels, incident)
        return (u, x), None

    def inverse(z, incident):
        return preprocessing.decode(*z, incident), None

    both = chain(energy, shape, shape_condition, names=("energy", "shape"))
    bijector = Bijector(forward, inverse, has_log_det=False)
    return preprocessed(both, bijector, condition=preprocessing.condition)


class TrainingData(NamedTuple):
    """What the networks learn from.

    Attributes:
      energy: ratios u [n, layers] given the scaled incident energies [n].
      shape: voxels [n, *geometry.shape] given (scaled energy, u) [n, 1 + layers].
    """

    energy: Batch
    shape: Batch


def training_data(showers: Showers, preprocessing: ShowerPreprocessing) -> TrainingData:
    """Showers as the networks see them, float32, preprocessed in float64.

    It is done and cast in chunks; the result has to fit into memory twice.
    """
    columns = []
    for chunk in in_chunks(showers):
        voxels = chunk.voxels.astype(np.float64).reshape(-1, *preprocessing.geometry.shape)
        encoded = preprocessing.encode(voxels, chunk.energies.astype(np.float64))
        columns.append([a.astype(np.float32) for a in encoded])
    u, x, energy = (np.concatenate(column) for column in zip(*columns, strict=True))
    return TrainingData(Batch(u, energy), Batch(x, shape_condition(energy, u)))


def incident_energies(
    num: int, low: float, high: float, key: Key | None = None
) -> Float[np.ndarray, " num"]:
    """Log-uniform incident energies [MeV] between `low` and `high` (2405.09629, Eq. 1).

    Raises:
      ValueError: for limits that are not 0 < low <= high, or fewer than one.
    """
    check_sizes(num=num)
    if not 0 < low <= high < np.inf:
        raise ValueError(f"energies must be 0 < low <= high [MeV], got {low} and {high}")
    rng = numpy_generator(key)
    return np.exp(rng.uniform(np.log(low), np.log(high), num)).astype(np.float32)
