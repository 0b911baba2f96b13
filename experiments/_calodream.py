"""What the studies of CaloDREAM share: its configuration, its training, and trained models."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax

from jgen.files import load as load_params
from jgen.files import save as save_params
from jgen.generative_model import GenerativeModel
from jgen.models import vae
from jgen.nets import Network, num_parameters
from jgen.nets.conv_autoencoder import ConvAutoencoderConfig
from jgen.nets.sequence import SequenceConfig
from jgen.nets.transfusion import TransfusionConfig
from jgen.nets.vit import ViTConfig
from jgen.random import stream
from jgen.showers import (
    Geometry,
    ShowerPreprocessing,
    Showers,
    count_showers,
    fit_statistics,
    get_geometry,
    load_preprocessing,
    read_showers,
    sample_path,
    save_preprocessing,
)
from jgen.showers.calodream import (
    Solver,
    SolverConfig,
    calodream,
    energy_model,
    latent_shape_model,
    latent_shape_network,
    shape_model,
    shape_network,
    shower_autoencoder,
    training_data,
)
from jgen.showers.evaluation import EvaluationConfig
from jgen.solvers import load_solver, runge_kutta
from jgen.training import (
    RunFolder,
    TrainConfig,
    fit,
    load_config,
    make_layout,
    make_optimizer,
    member,
)
from jgen.typing import Key, Params


@dataclass(frozen=True)
class Config:
    """One CaloDREAM study."""

    data: tuple[str, ...] = ()
    """CaloChallenge HDF5 files to train on; without any, the bundled Geant4 sample."""
    test_data: tuple[str, ...] = ()
    """Files of the reference sample; without any, the last `num_test` showers of `data`."""
    geometry: Literal["ds2", "ds3"] = "ds2"
    """Voxels of the files."""
    num_train: int = 0
    """Showers to train on; 0 takes all but those of the reference."""
    num_test: int = 1200
    """Showers of the reference sample, and as many to generate."""
    num_validation: int = 0
    """Showers cut from the end of the training sample to validate on."""
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
    sample_batch: int = 200
    """Showers generated at a time; attention over n tokens takes 4 n^2 bytes a head of each."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Size of the tests."""
    seed: int = 0
    """Seed of everything random."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The networks to train, in order; each has a folder and a training of its name."""
        return ("energy", "autoencoder", "shape") if self.space == "latent" else ("energy", "shape")

    @property
    def energy_config(self) -> TransfusionConfig | SequenceConfig:
        """Sizes of the energy network."""
        return self.parallel_network if self.energies == "parallel" else self.energy_network


def count_parameters(config: Config) -> dict[str, int]:
    """Trainable parameters of all networks."""
    return {part: num_parameters(_init(config, part)) for part in config.parts}


def velocity_network(config: Config) -> Network:
    """Velocity network of the shapes, in voxels or latents."""
    geometry = get_geometry(config.geometry)
    if config.space == "latent":
        return latent_shape_network(geometry, config.shape_network, config.autoencoder)
    return shape_network(geometry, config.shape_network)


def check_options(config: Config) -> None:
    """Build everything that raises a ValueError for options that do not fit together."""
    count_parameters(config)
    for part in config.parts:
        training = getattr(config, f"{part}_training")
        training.check()
        make_optimizer(training.optimizer, training.steps)
        make_layout(training.ensemble, training.batch_size)
    if config.num_test < 20:
        raise ValueError(f"num_test must be at least 20 for the classifiers, got {config.num_test}")
    if shared := {Path(f).resolve() for f in config.data} & {
        Path(f).resolve() for f in config.test_data
    }:
        raise ValueError(f"{sorted(map(str, shared))} are both data and test data; separate them")
    if config.shape_network.attention == "cudnn" and jax.default_backend() != "gpu":
        raise ValueError(
            f"cudnn attention needs an NVIDIA GPU, but JAX runs on {jax.default_backend()}; leave "
            "--shape-network.attention at xla"
        )
    if not config.data and config.geometry != "ds2":
        raise ValueError("the bundled showers have the geometry ds2; give --data FILE for others")


def make_energy_model(config: Config, solver: Solver | None = None) -> GenerativeModel:
    """Model of the layer energies, with the configured solver unless another is given."""
    solver = config.energy_solver.make() if solver is None else solver
    return energy_model(get_geometry(config.geometry), config.energy_config, solver)


def make_shape_model(
    config: Config, autoencoder_params: Params = None, solver: Solver | None = None
) -> GenerativeModel:
    """Model of the shapes; one in a latent space needs its autoencoder's parameters."""
    solver = config.shape_solver.make() if solver is None else solver
    args = get_geometry(config.geometry), config.shape_network
    if config.space == "latent":
        return latent_shape_model(*args, config.autoencoder, autoencoder_params, solver)
    return shape_model(*args, solver)


def load_showers(config: Config) -> tuple[Showers, Showers]:
    """Training and reference showers, disjoint; only these rows are read."""
    geometry, files = get_geometry(config.geometry), config.data or sample_path()
    num = count_showers(files)
    num_left = num if config.test_data else num - config.num_test
    if num_left < 2:
        raise ValueError(
            f"there are {num} showers, too few for {config.num_test} in the reference and others "
            "to train on; give more --data, --test-data, or a smaller --num-test"
        )
    num_train = config.num_train or num_left
    if not config.num_validation + 2 <= num_train <= num_left:
        raise ValueError(
            f"{num} showers, {num - num_left} of them for the reference, leave {num_left} to train "
            f"and validate on, but {num_train} are asked for, {config.num_validation} of them to "
            "validate; change --num-train, --num-test or --num-validation, or give more --data"
        )
    train = read_showers(files, geometry, 0, num_train)
    if config.test_data:
        num_test = min(config.num_test, count_showers(config.test_data))
        return train, read_showers(config.test_data, geometry, 0, num_test)
    return train, read_showers(files, geometry, num_left, num)


def load_or_fit_preprocessing(
    config: Config, train: Showers, folder: RunFolder
) -> ShowerPreprocessing:
    """The run's preprocessing, fitted to the training sample the first time."""
    path = folder.path / "preprocessing.npz"
    if path.exists():
        return load_preprocessing(path)
    geometry = get_geometry(config.geometry)
    low, high = config.energy_range or (train.energies.min(), train.energies.max())
    statistics = fit_statistics(chunks(train), geometry, standardise=config.standardise)
    # The autoencoder takes the fractions themselves; their cut is that of Tab. 4.
    kind = {"voxel_logit": False, "cut": 1e-6} if config.space == "latent" else {}
    preprocessing = ShowerPreprocessing(geometry, statistics, float(low), float(high), **kind)
    if folder.is_writer:
        save_preprocessing(path, preprocessing)
    return preprocessing


def chunks(showers: Showers, size: int = 500):
    """Pieces small enough to be preprocessed in float64."""
    for i in range(0, len(showers.energies), size):
        yield Showers(showers.energies[i : i + size], showers.voxels[i : i + size])


@dataclass(frozen=True)
class Trained:
    """A trained CaloDREAM.

    Attributes:
      config: of its study.
      folder: its run folder.
      preprocessing: fitted to its training sample.
      params: by part: energy, shape and in a latent space autoencoder; of one member each.
    """

    config: Config
    folder: Path
    preprocessing: ShowerPreprocessing
    params: dict[str, Params]

    @property
    def geometry(self) -> Geometry:
        """Of the showers."""
        return self.preprocessing.geometry

    def energy(self, solver: Solver | None = None) -> GenerativeModel:
        """The model of layer energies."""
        return make_energy_model(self.config, solver)

    def shape(self, solver: Solver | None = None) -> GenerativeModel:
        """The model of shapes."""
        return make_shape_model(self.config, self.params.get("autoencoder"), solver)

    def showers(
        self, energy_solver: Solver | None = None, shape_solver: Solver | None = None
    ) -> tuple[GenerativeModel, Params]:
        """The model of showers in MeV and its parameters."""
        model = calodream(self.energy(energy_solver), self.shape(shape_solver), self.preprocessing)
        return model, {"first": self.params["energy"], "second": self.params["shape"]}

    def solver(self, part: Literal["energy", "shape"], name: str) -> Solver:
        """A solver by name, METHOD-N with N network evaluations, such as midpoint-16 or bespoke-8.

        Raises:
          ValueError: if there is no such method, or no bespoke solver was trained for this model.
        """
        method, _, n_eval = name.rpartition("-")
        if not method or not n_eval.isdigit() or int(n_eval) < 1:
            raise ValueError(
                f"solvers are called METHOD-EVALUATIONS, as in bespoke-8; got {name!r}"
            )
        if method == "bespoke":
            path = solver_path(self.folder, part, int(n_eval))
            if not path.exists():
                known = sorted(p.name for p in path.parent.glob(f"{part}-*.npz"))
                raise ValueError(
                    f"{path} does not exist (there are {known}); train it with "
                    f"python -m experiments.bespoke_solvers --model {self.folder}"
                )
            return load_solver(path)
        stages = len(runge_kutta(method, 1).tableau.b)
        if int(n_eval) % stages:
            raise ValueError(f"{method} takes {stages} evaluations a step, which {name} is not")
        return runge_kutta(method, int(n_eval) // stages)


def solver_path(folder: Path, part: str, n_eval: int) -> Path:
    """Where the bespoke solver of one part of a model is kept."""
    return Path(folder) / "solvers" / f"{part}-bespoke-{n_eval}.npz"


def train(config: Config, showers: Showers, folder: RunFolder) -> Trained:
    """Train all networks, or take up where the folder's training stopped."""
    preprocessing = load_or_fit_preprocessing(config, showers, folder)
    energy, shape = training_data(chunks(showers), preprocessing)
    split = len(showers.energies) - config.num_validation
    params = {}
    for part in config.parts:
        if part == "energy":
            model, batch = make_energy_model(config), energy
        elif part == "autoencoder":
            coder, shape_of_latent = shower_autoencoder(preprocessing.geometry, config.autoencoder)
            model, batch = vae(coder, shape_of_latent, beta=config.beta, reduction="mean"), shape
        else:
            model, batch = make_shape_model(config, params.get("autoencoder")), shape
        fitted = fit(
            model,
            jax.tree.map(lambda a: a[:split], batch),
            stream(jax.random.key(config.seed), part),
            getattr(config, f"{part}_training"),
            validation=jax.tree.map(lambda a: a[split:], batch) if config.num_validation else None,
            folder=folder.path / part,
            name=part if part == "autoencoder" else f"{part} network",
        )
        params[part] = member(fitted.params, 0)
        if folder.is_writer:
            save_params(folder.path / part / "params.npz", params[part])
    return Trained(config, folder.path, preprocessing, params)


def load_trained(path: Path) -> Trained:
    """A CaloDREAM from its run folder; no showers are read.

    Raises:
      ValueError: if the folder holds none, or one whose training has not ended.
    """
    path, config = Path(path), load_config(Config, path)
    files = {part: path / part / "params.npz" for part in config.parts}
    if missing := [str(file) for file in files.values() if not file.exists()]:
        raise ValueError(
            f"{path} has not finished its training ({missing[0]} is missing); run the command "
            "that started it again"
        )
    params = {part: load_params(files[part], _init(config, part)) for part in config.parts}
    return Trained(config, path, load_preprocessing(path / "preprocessing.npz"), params)


def _init(config: Config, part: str) -> Callable[[Key], Params]:
    """What makes the parameters of one network."""
    geometry = get_geometry(config.geometry)
    if part == "energy":
        return energy_model(geometry, config.energy_config).init
    if part == "autoencoder":
        return shower_autoencoder(geometry, config.autoencoder)[0].init
    return velocity_network(config).init
