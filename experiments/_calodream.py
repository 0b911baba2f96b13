"""Old names of jgen.showers.calodream, for studies that have not been rewritten yet."""

import dataclasses
from pathlib import Path

from experiments.showers.presets import Config, load_showers  # noqa: F401
from jgen.nets import num_parameters
from jgen.showers import calodream
from jgen.showers import in_chunks as chunks  # noqa: F401
from jgen.showers.calodream import fit_preprocessing as load_or_fit_preprocessing  # noqa: F401
from jgen.showers.calodream import solver_path  # noqa: F401
from jgen.showers.data import get_geometry  # noqa: F401
from jgen.training import load_config


def count_parameters(config):
    """Parameters by part."""
    return {n: num_parameters(p.model.init) for n, p in calodream.parts(config).items()}


def check_options(config):
    """Refuse bad options."""
    config.check()


def velocity_network(config):
    """Network of the shapes."""
    return calodream.parts(config)["shape"].network


def make_energy_model(config, solver=None):
    """Model of the layer energies."""
    return calodream.parts(config, solvers={"energy": solver} if solver else {})["energy"].model


def make_shape_model(config, autoencoder_params=None, solver=None):
    """Model of the shapes."""
    params = {"autoencoder": autoencoder_params} if autoencoder_params is not None else {}
    return calodream.parts(config, params, {"shape": solver} if solver else {})["shape"].model


class Trained(calodream.Trained):
    """With the old methods."""

    def energy(self, solver=None):
        """Model of the layer energies."""
        return self.with_solvers(energy=solver).parts["energy"].model

    def shape(self, solver=None):
        """Model of the shapes."""
        return self.with_solvers(shape=solver).parts["shape"].model

    def showers(self, energy=None, shape=None):
        """Model and parameters."""
        return self.with_solvers(energy, shape).model, self.params


def _old(trained, config):
    values = {f.name: getattr(trained, f.name) for f in dataclasses.fields(trained)}
    return Trained(**values | {"config": config})


def train(config, showers, folder):
    """Train all networks."""
    return _old(calodream.train(config, showers, folder), config)


def load_trained(path):
    """Read a trained model."""
    return _old(calodream.load(path), load_config(Config, Path(path)))
