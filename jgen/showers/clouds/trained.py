"""A CaloClouds that is trained, kept in a run folder, loaded and drawn from."""

import dataclasses
import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jgen.checks import check_known
from jgen.files import load as load_params
from jgen.generative_model import Batch, GenerativeModel, SampleFunction, draw
from jgen.sets import points as points_of
from jgen.showers.clouds.fitting import fit_preprocessing
from jgen.showers.clouds.model import (
    CloudsConfig,
    Parts,
    cloud_sampler,
    few_points,
    of_rows,
    parts,
    shower_model,
    student_model,
    teacher_pairs,
    training_data,
)
from jgen.showers.clouds.preprocessing import (
    CloudPreprocessing,
    Statistics,
    encoded,
)
from jgen.showers.clouds.spectrum import Sample, Spectrum, densities, unchanged
from jgen.showers.data import Geometry, Showers, get_geometry
from jgen.showers.data.generator import ShowerGenerator
from jgen.training import RunFolder, check_finished, load_config, member
from jgen.typing import Key, Params

Sampler = Literal["teacher", "student"]
# Showers for the spectrum of voxels.
_FOR_SPECTRUM = 5000


@dataclass(frozen=True)
class Trained(ShowerGenerator):
    """A trained CaloClouds.

    Attributes:
      config: networks and trainings.
      preprocessing: fitted to its training sample.
      networks: parameters of flow, teacher and, if it was distilled, student; of one member each.
      sampler: which of the last two makes the points.
    """

    config: CloudsConfig
    preprocessing: CloudPreprocessing
    networks: Mapping[str, Params]
    sampler: Sampler = "student"

    @property
    def geometry(self) -> Geometry:
        """Of the showers."""
        return self.preprocessing.geometry

    @property
    def energy_range(self) -> tuple[float, float]:
        """Incident energies [MeV] that it was trained for."""
        low, high = map(float, self.preprocessing.statistics.energies)
        return low, high

    @property
    def evaluations(self) -> int:
        """Calls of the point network for one shower."""
        return 1 if self.sampler == "student" else 2 * self.config.steps

    @property
    def parts(self) -> Parts:
        """Networks."""
        return parts(self.config, self.preprocessing.slots)

    @property
    def points(self) -> GenerativeModel:
        """Points [slots, 3] as networks see them, of the sampler."""
        made = self.parts
        if self.sampler == "teacher":
            return made.teacher
        slots, student = self.preprocessing.slots, self.networks["student"]
        return student_model(self.config, made.network, slots, student)

    @functools.cached_property
    def model(self) -> GenerativeModel:
        """Showers [*geometry.shape] in MeV given incident energies in MeV, of `params`."""
        return shower_model(self.parts.flow, self.points, self.preprocessing)

    def clouds(self, key: Key, energies: Float[np.ndarray, " n"]) -> list[Float[np.ndarray, "_ 4"]]:
        """Points x, y [mm], z [layers], energy [MeV] of the showers that `draw` makes of a key.

        Args:
          key: typed PRNG key.
          energies: incident energies [MeV].

        Raises:
          ValueError: as `draw`.
        """
        energies = self.checked(energies)
        args = self._cloud, self.params, key, len(energies), energies
        return points_of(*draw(*args, batch_size=100))

    # Kept, as `model` is, so that a second call runs the program of the first.
    @functools.cached_property
    def _cloud(self) -> SampleFunction:
        sample = cloud_sampler(self.parts.flow, self.points, self.preprocessing).sample

        def one(params, key, energy):
            points, whole = sample(params, key, energy)
            return self.preprocessing.physical(points, whole), jnp.sum(whole.n)

        return one

    @functools.cached_property
    def _voxels_as_points(self) -> SampleFunction:
        slots = self.preprocessing.slots
        return lambda params, key, cond: self.preprocessing.cloud(key, *cond, slots)

    @property
    def params(self) -> dict[str, Params]:
        """Parameters of `model`."""
        return {"flow": self.networks["flow"], "points": self.networks[self.sampler]}

    def with_sampler(self, sampler: Sampler) -> "Trained":
        """The same networks, with the points of the teacher or of the student in one call.

        Raises:
          ValueError: for another name, or a student that was not trained.
        """
        check_known(set(self.networks) - {"flow"}, sampler=sampler)
        return dataclasses.replace(self, sampler=sampler)

    def as_points(self, key: Key, showers: Showers) -> list[Float[np.ndarray, "_ 4"]]:
        """Points like those of `clouds` of other showers: at random places in their voxels.

        Args:
          key: typed PRNG key.
          showers: of the geometry.
        """
        num, cond = len(showers.energies), tuple(showers)[::-1]
        return points_of(*draw(self._voxels_as_points, None, key, num, cond, batch_size=100))


def like(config: CloudsConfig, start: Trained) -> CloudsConfig:
    """The configuration with the networks of a trained CaloClouds, for `train` to start from.

    Its `one_call` is that of the trained one, too, since networks of a MeanFlow see an interval.
    """
    names = "network", "point_wise", "epic", "set_transformer", "one_call"
    own = {name: getattr(start.config, name) for name in names}
    flow = dataclasses.replace(start.config.flow, training=config.flow.training)
    return dataclasses.replace(config, flow=flow, **own)


def train(
    config: CloudsConfig, showers: Showers, run: RunFolder, start: Trained | None = None
) -> Trained:
    """Train all networks, or take up where the folder's training stopped.

        config = clouds.CloudsConfig(...)
        with RunFolder("runs/mine", config) as run:
            trained = clouds.train(config, showers, run)

    Args:
      config: what is trained, and how.
      showers: training sample; the last `num_validation` of them validate the Shower Flow.
      run: open run folder, in which `load` finds the model again.
      start: a trained CaloClouds from whose networks training starts; it may be of other energies,
        another detector or geometry. The preprocessing is fitted anew, so that networks begin with
        the right mean and width of all that they make. Make `config` with `like`.

    Raises:
      ValueError: if its networks are not those of `config`, or for bad options or showers.
    """
    config.check()
    if start is not None and like(config, start) != config:
        raise ValueError(
            "start has other networks than the configuration; give train(like(config, start), ...)"
        )
    run.begin(CONFIG, CloudsConfig, config, {"showers": tuple(showers)})
    geometry = get_geometry(config.geometry)
    scale = start and tuple(map(float, start.preprocessing.statistics.scale))
    fitted = lambda: (
        fit_preprocessing(showers, geometry, run.key("preprocessing"), scale).statistics
    )
    preprocessing = CloudPreprocessing(geometry, run.cached("preprocessing", fitted))
    initial = {} if start is None else start.networks
    # Made when a network needs it: nothing is preprocessed to draw figures again.
    data = functools.cache(
        lambda: training_data(encoded(preprocessing, showers, run.key("points")))
    )
    split, made = len(showers.energies) - config.num_validation, parts(config, preprocessing.slots)

    def rows(name: str, start: int, stop: int) -> Batch:
        return jax.tree.map(lambda a: a[start:stop], getattr(data(), name))

    params = {
        "flow": run.fit(
            "flow",
            made.flow,
            lambda: rows("flow", 0, split),
            config.flow.training,
            validation=lambda: rows("flow", split, len(showers.energies)),
            initial=initial.get("flow"),
        )
    }
    of_few = lambda model: few_points(model, config.few) if config.few else model
    points = lambda: data().points
    params["teacher"] = run.fit(
        "teacher", of_few(made.teacher), points, config.teacher, initial=initial.get("teacher")
    )
    params = {name: member(fitted.params, 0) for name, fitted in params.items()}
    if not config.distil:
        trained = Trained(config, preprocessing, params, "teacher")
        return _with_spectrum(trained, showers, lambda: data().points.cond, run)
    model = student_model(config, made.network, preprocessing.slots, params["teacher"])
    if config.interval:
        model, taught = of_few(model), points
    else:
        taught = lambda: _pairs(config, preprocessing, params["teacher"], data().points.cond, run)
    student = run.fit("student", model, taught, config.student, initial=initial.get("student"))
    params["student"] = member(student.params, 0)
    trained = Trained(config, preprocessing, params)
    return _with_spectrum(trained, showers, lambda: data().points.cond, run)


def _with_spectrum(trained, showers, conditions, run) -> Trained:
    """The spectrum of voxels mended by that of the training sample.

    Twice, since voxels change once more when layers get their energies.
    """
    old, num = trained.preprocessing, min(len(showers.energies), _FOR_SPECTRUM)
    shape, energies = trained.geometry.shape, showers.energies[:num]
    mended = lambda spectrum: dataclasses.replace(old, spectrum=spectrum)
    places = lambda n: densities(n, old.statistics.inside, shape[1])
    sample = cloud_sampler(trained.parts.flow, trained.points, old).sample

    def one(params, key, energy):
        points, whole = sample(params[0], key, energy)
        return mended(params[1]).decode(points, whole), whole.n

    def made(spectrum):
        params, key = (trained.params, spectrum), run.key("spectrum")
        voxels, n = draw(one, params, key, num, energies, batch_size=100, progress=True)
        return Sample(voxels, places(n))

    def fit():
        n = np.expm1(conditions().cond.layers[:num, :, 0])
        true = Sample(showers.voxels[:num].reshape(num, *shape), places(n))
        spectrum = unchanged(true)
        for _ in range(2):
            spectrum = spectrum.then(made(spectrum), true)
        return spectrum

    spectrum = Spectrum(*run.cached("spectrum", fit))
    return dataclasses.replace(trained, preprocessing=mended(spectrum))


def _pairs(config, preprocessing, teacher, cond, run) -> Batch:
    """Noise and points of the teacher, at the conditions of the training showers in turn."""
    rows = config.few or preprocessing.slots
    num = config.trajectories * len(cond.n)
    n, given = jax.tree.map(lambda c: np.resize(c, (num, *c.shape[1:])), tuple(cond))
    if config.few:
        u = np.asarray(jax.random.uniform(run.key("rows"), (num, rows)))
        given = jax.tree.map(np.asarray, of_rows(given, np.floor(u * n[:, None]).astype(int)))
    cond = n, given
    sample = teacher_pairs(parts(config, preprocessing.slots).network, config.steps, rows)
    key, size = run.key("trajectories"), max(1, 6400 // rows)
    solve = lambda: draw(sample, teacher, key, num, cond, batch_size=size, progress=True)
    return Batch(run.cached("trajectories", solve), cond)


def load(folder: str | os.PathLike) -> Trained:
    """A CaloClouds from the run folder of `train`; no showers are read.

        trained = clouds.load("runs/clouds-default")
        showers = trained.draw(jax.random.key(0), energies)

    Raises:
      ValueError: if the folder holds none, or one whose training has not ended.
    """
    folder = Path(folder)
    config = load_config(CloudsConfig, folder, CONFIG)
    names = ("flow", "teacher", *(("student",) if config.distil else ()))
    check_finished(folder, ("preprocessing", "spectrum"), names)
    statistics = Statistics(*load_params(folder / "preprocessing.npz"))
    spectrum = Spectrum(*load_params(folder / "spectrum.npz"))
    preprocessing = CloudPreprocessing(get_geometry(config.geometry), statistics, spectrum)
    made = parts(config, preprocessing.slots)
    models = {"flow": made.flow, "teacher": made.teacher, "student": made.teacher}
    params = {n: member(load_params(folder / n / "params.npz", models[n]), 0) for n in names}
    return Trained(config, preprocessing, params, "student" if config.distil else "teacher")


CONFIG = "clouds.json"
"""File of a run folder that says that it holds a CaloClouds."""
