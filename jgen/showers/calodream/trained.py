"""A CaloDREAM that is trained, kept in a run folder, loaded and drawn from."""

import dataclasses
import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jaxtyping import Float

from jgen.arrays import cast_array, real_array
from jgen.checks import check_known
from jgen.files import load as load_params
from jgen.generative_model import Batch, GenerativeModel
from jgen.models import reconstruct
from jgen.random import check_key
from jgen.showers.calodream.model import (
    CaloDreamConfig,
    Part,
    Solver,
    parts,
    shower_model,
    training_data,
)
from jgen.showers.calodream.preprocessing import ShowerPreprocessing, fit_statistics
from jgen.showers.data import Geometry, Showers, get_geometry, in_chunks
from jgen.showers.data.generator import ShowerGenerator
from jgen.solvers import load_solver, runge_kutta
from jgen.training import RunFolder, check_finished, load_config, member
from jgen.typing import Key, Params


@dataclass(frozen=True)
class Trained(ShowerGenerator):
    """A trained CaloDREAM.

    Attributes:
      config: networks, trainings and solvers.
      folder: its run folder.
      preprocessing: fitted to its training sample.
      params: by part: energy, shape and in a latent space autoencoder; of one member each.
      solvers: in the place of the configured ones, by part; see `with_solvers`.
    """

    config: CaloDreamConfig
    folder: Path
    preprocessing: ShowerPreprocessing
    params: dict[str, Params]
    solvers: Mapping[str, Solver] = field(default_factory=dict)

    @property
    def geometry(self) -> Geometry:
        """Of the showers."""
        return self.preprocessing.geometry

    @property
    def energy_range(self) -> tuple[float, float]:
        """Incident energies [MeV] that it was trained for."""
        return self.preprocessing.energy_min, self.preprocessing.energy_max

    @property
    def parts(self) -> dict[str, Part]:
        """All networks; `parts["energy"].model` goes with `params["energy"]`."""
        return parts(self.config, self.params, self.solvers)

    # Kept, so that a second draw runs the program of the first.
    @functools.cached_property
    def model(self) -> GenerativeModel:
        """Showers [*geometry.shape] in MeV given incident energies in MeV, of `params`."""
        table = self.parts
        return shower_model(table["energy"].model, table["shape"].model, self.preprocessing)

    def checked(self, energies: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Incident energies as float32, any positive ones, though best within `energy_range`.

        Raises:
          ValueError: if they are not one or more positive numbers [n].
        """
        energies = cast_array(real_array(energies, "energies"), "energies")
        inside = (energies > 0) & (energies < np.inf)
        if energies.ndim != 1 or not len(energies) or not np.all(inside):
            ends = f", from {energies.min()} to {energies.max()}" if energies.size else ""
            raise ValueError(
                "energies must be one or more positive finite numbers [n] in MeV, got shape "
                f"{energies.shape}{ends}"
            )
        return energies

    def reconstruct(self, key: Key, showers: Showers) -> Showers:
        """Showers through the autoencoder and back, the best that a latent model can become.

        Raises:
          ValueError: if this model is not in a latent space.
        """
        if self.config.space != "latent":
            raise ValueError("there is no autoencoder in a model of voxels to reconstruct with")
        check_key(key)
        batch = training_data(showers, self.preprocessing).shape
        coder = self.parts["autoencoder"].network

        @jax.jit
        def through(params, keys, x, cond):
            one = lambda a: reconstruct(coder, params, *a)
            return jax.lax.map(one, (keys, x, cond), batch_size=50)

        keys = jax.random.split(key, len(batch.x))
        x = through(self.params["autoencoder"], keys, batch.x, batch.cond)
        energies = showers.energies.astype(np.float32)
        voxels = self.preprocessing.decode(batch.cond[:, 1:], np.asarray(x), energies)
        return Showers(energies, voxels.reshape(len(x), -1))

    def evaluations(self, part: Literal["energy", "shape"]) -> int:
        """Calls of a velocity network for one shower."""
        check_known(("energy", "shape"), part=part)
        autoregressive = part == "energy" and self.config.energies == "autoregressive"
        solver = self.solvers.get(part) or getattr(self.config, f"{part}_solver").make()
        return solver.n_eval * (self.geometry.num_layers if autoregressive else 1)

    def with_solvers(
        self, energy: str | Solver | None = None, shape: str | Solver | None = None
    ) -> "Trained":
        """The same networks with other solvers, or their names as in `solver`."""
        given = {"energy": energy, "shape": shape}
        made = {
            part: self.solver(part, solver) if isinstance(solver, str) else solver
            for part, solver in given.items()
            if solver is not None
        }
        return dataclasses.replace(self, solvers={**self.solvers, **made})

    def solver(self, part: Literal["energy", "shape"], name: str) -> Solver:
        """A solver by name, METHOD-N with N network evaluations, such as midpoint-16 or bespoke-8.

        Raises:
          ValueError: if there is no such method, or no bespoke solver was trained for this model.
        """
        check_known(("energy", "shape"), part=part)
        method, _, n_eval = str(name).rpartition("-")
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
                    f"python -m experiments bespoke_solvers --model {self.folder}"
                )
            return load_solver(path)
        stages = len(runge_kutta(method, 1).tableau.b)
        if int(n_eval) % stages:
            raise ValueError(f"{method} takes {stages} evaluations a step, which {name} is not")
        return runge_kutta(method, int(n_eval) // stages)


def solver_path(folder: str | os.PathLike, part: str, n_eval: int) -> Path:
    """Where the bespoke solver of one part of a model is kept."""
    return Path(folder) / "solvers" / f"{part}-bespoke-{n_eval}.npz"


def fit_preprocessing(
    config: CaloDreamConfig, showers: Showers, run: RunFolder | None = None
) -> ShowerPreprocessing:
    """The preprocessing of a training sample, in a run folder fitted the first time only."""

    def compute():
        low, high = config.energy_range or (showers.energies.min(), showers.energies.max())
        geometry = get_geometry(config.geometry)
        statistics = fit_statistics(in_chunks(showers), geometry, standardise=config.standardise)
        return {"statistics": statistics, "energy_min": float(low), "energy_max": float(high)}

    return _preprocessing(config, run.cached("preprocessing", compute) if run else compute())


def train(config: CaloDreamConfig, showers: Showers, run: RunFolder) -> Trained:
    """Train all networks, or take up where the folder's training stopped.

        config = calodream.CaloDreamConfig(...)
        with RunFolder("runs/mine", config) as run:
            trained = calodream.train(config, showers, run)

    Args:
      config: what is trained, and how.
      showers: training sample; the last `num_validation` of them validate.
      run: open run folder, in which `load` finds the model again.
    """
    config.check()
    run.begin(CONFIG, CaloDreamConfig, config, {"showers": tuple(showers)})
    preprocessing = fit_preprocessing(config, showers, run)
    # Made when a network needs it: nothing is preprocessed to draw figures again.
    data = functools.cache(lambda: training_data(showers, preprocessing))
    split, params = len(showers.energies) - config.num_validation, {}

    def rows(name: str, start: int, stop: int | None) -> Batch:
        return jax.tree.map(lambda a: a[start:stop], getattr(data(), name))

    for name in parts(config):
        part = parts(config, params)[name]
        fitted = run.fit(
            name,
            part.model,
            functools.partial(rows, part.data, 0, split),
            part.training,
            validation=rows(part.data, split, None) if config.num_validation else None,
        )
        params[name] = member(fitted.params, 0)
    return Trained(config, run.path, preprocessing, params)


def load(folder: str | Path) -> Trained:
    """A CaloDREAM from the run folder of `train`; no showers are read.

        trained = calodream.load("runs/calodream-default")
        energies = calodream.incident_energies(1000, *trained.energy_range)
        showers = trained.draw(jax.random.key(0), energies)

    Raises:
      ValueError: if the folder holds none, or one whose training has not ended.
    """
    folder = Path(folder)
    config = load_config(CaloDreamConfig, folder, CONFIG)
    files = {name: folder / name / "params.npz" for name in parts(config)}
    check_finished(folder, ("preprocessing",), tuple(files))
    params = {
        name: member(load_params(files[name], part.model), 0)
        for name, part in parts(config).items()
    }
    preprocessing = _preprocessing(config, load_params(folder / "preprocessing.npz"))
    return Trained(config, folder, preprocessing, params)


CONFIG = "calodream.json"
"""File of a run folder that says that it holds a CaloDREAM."""


def _preprocessing(config: CaloDreamConfig, fitted: dict) -> ShowerPreprocessing:
    # The autoencoder takes the fractions themselves; their cut is that of Tab. 4.
    kind = {"voxel_logit": False, "cut": 1e-6} if config.space == "latent" else {}
    low, high = float(fitted["energy_min"]), float(fitted["energy_max"])
    return ShowerPreprocessing(
        get_geometry(config.geometry), fitted["statistics"], low, high, **kind
    )
