"""CaloClouds (2305.04847, 2309.05704): the Shower Flow and the point networks, in one table.

p(shower | E) = p(numbers | E) p(points | numbers, E): a coupling flow for the energies and the
numbers of points of the layers, and a diffusion model for the points, which a consistency function
then makes in one call. Together they are one `GenerativeModel` of showers in MeV.

Deviations from 2309.05704: points are not sorted into layers afterwards but made in them, given the
layer, its number of points and its energy; each voxel is a Poisson number of points, which takes
the place of the polynomials that calibrate the number of points; the Shower Flow also makes the
energy of the innermost ring of each layer; to the centre of gravity points are turned about the
axis, not shifted (`points.turned`); voxels get the spectrum of the training sample (`spectrum`);
coordinates are made normal one by one, layer by layer; the one-call function is taught by whole
trajectories of the teacher (2101.02388) or its velocity (2505.13447), where the published one is by
neighbouring times; AdamW in place of RAdam. And EDM's network is trained and solved in the time of
the linear path, sigma / alpha = (1 - t) / t, by the midpoint method: 12 steps of Heun's method in
the published steps of sigma make points of a normal distribution 9 % too wide (unit variance, sigma
from 80 to 0.002), these 0.01 %.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jgen.bijectors import coupling_flow, rational_quadratic
from jgen.checks import check_literals, check_sizes, check_whole
from jgen.generative_model import Batch, GenerativeModel, SampleFunction, from_noise
from jgen.models import (
    diffusion,
    distilled,
    flow,
    mean_flow,
    preconditioned,
    preconditioned_weighting,
    trajectory_ends,
)
from jgen.nets import (
    EpicConfig,
    Network,
    PointWiseConfig,
    SetTransformerConfig,
    epic,
    point_wise,
    set_transformer,
)
from jgen.nets.primitives.points import on_points
from jgen.paths import convert, linear
from jgen.sets import SetCondition
from jgen.showers.clouds.numbers import num_numbers
from jgen.showers.clouds.preprocessing import CloudPreprocessing, Encoded, Given
from jgen.showers.data import get_geometry
from jgen.solvers import runge_kutta
from jgen.training import OptimizerConfig, TrainConfig, make_layout, make_optimizer
from jgen.typing import Cond, Key, Params, PyTree

_ADAM = OptimizerConfig(learning_rate=2e-3, warmup=0.05, clip_norm=1.0)


@dataclass(frozen=True)
class FlowConfig:
    """The Shower Flow."""

    depth: int = 4
    """Couplings."""
    bins: int = 4
    """Of a spline."""
    hidden: tuple[int, ...] = (16,)
    """Widths of the network of a coupling."""
    training: TrainConfig = TrainConfig(
        500,
        200,
        ema_decay=0.98,
        keep="best",
        validate_every=25,
        optimizer=dataclasses.replace(_ADAM, learning_rate=2e-4),
        log_every=25,
        save_every=500,
    )
    """Training; it keeps the parameters of smallest validation loss."""

    def check(self) -> None:
        """Refuse bad options."""
        check_sizes(depth=self.depth, bins=self.bins)


@dataclass(frozen=True)
class CloudsConfig:
    """Networks and trainings of one CaloClouds, for two cores and some minutes."""

    geometry: Literal["ds2", "ds3"] = "ds2"
    """Voxels of the showers."""
    flow: FlowConfig = FlowConfig()
    """The Shower Flow."""
    network: Literal["point_wise", "epic", "set_transformer"] = "point_wise"
    """Network of the points; with the first, as published, they do not see each other."""
    point_wise: PointWiseConfig = PointWiseConfig((64, 128, 256, 128, 64), 64)
    """Its sizes; published are 128, 256, 512, 256, 128."""
    epic: EpicConfig = EpicConfig(64, 10, 4)
    """Sizes of an EPiC network."""
    set_transformer: SetTransformerConfig = SetTransformerConfig(32, 4, 2, 64)
    """Sizes of a transformer."""
    few: int = 64
    """Points of a shower in a minibatch, see `few_points`; 0 for all, which interacting networks
    need."""
    steps: int = 12
    """Midpoint steps of the teacher, two calls each."""
    teacher: TrainConfig = TrainConfig(
        2400, 128, ema_decay=0.99, optimizer=_ADAM, log_every=50, save_every=1200
    )
    """Training of the diffusion model."""
    distil: bool = True
    """Teach the one-call function; without, the diffusion model is all."""
    trajectories: int = 4
    """Of the teacher a training shower, of as many points as `few` says, for the student; none for
    a MeanFlow."""
    one_call: Literal["trajectories", "mean_flow"] = "trajectories"
    """What teaches the one-call function: whole trajectories of the teacher, or its velocity, as a
    MeanFlow (2505.13447). Both networks then see the width of an interval behind the energy, and
    two harmonics of the time where others see eight."""
    student: TrainConfig = TrainConfig(
        1200, 128, ema_decay=0.99, optimizer=_ADAM, log_every=50, save_every=1200
    )
    """Training of the one-call function."""
    num_validation: int = 100
    """Showers cut from the end of the training sample to validate the Shower Flow on."""
    seed: int = 0
    """Seed of everything random."""

    @property
    def interval(self) -> bool:
        """Whether networks see the width of an interval of time, with or without a student."""
        return self.one_call == "mean_flow"

    def check(self) -> None:
        """Raise a ValueError for options that do not fit together."""
        check_literals(self)
        check_sizes(steps=self.steps, trajectories=self.trajectories)
        check_whole(0, few=self.few)
        check_whole(10, num_validation=self.num_validation)
        for training in (self.flow.training, self.teacher, self.student):
            training.check()
            make_optimizer(training.optimizer, training.steps)
            make_layout(training.ensemble, training.batch_size)
        if self.interval and self.network == "set_transformer":
            raise ValueError(
                "a set_transformer is not smooth in time, which mean_flow needs: one_call must be "
                "trajectories, or network another"
            )
        if self.few and self.network != "point_wise":
            raise ValueError(
                f"the points of {self.network} see each other, so that it must learn from all of "
                f"a shower: few must be 0, got {self.few}"
            )


class Parts(NamedTuple):
    """Networks of one CaloClouds.

    Attributes:
      flow: numbers of the shower as a whole, given the scaled incident energy [1].
      network: of the points, with EDM's preconditioning, apply(params, t, points, SetCondition).
      teacher: points [slots, 3] given a `SetCondition` of their number and `Given`.
    """

    flow: GenerativeModel
    network: Network
    teacher: GenerativeModel


PATH = linear(1e-3)
# Depth, number of points and energy a point.
_NUM_OF_LAYER = 3


def parts(config: CloudsConfig, slots: int) -> Parts:
    """All networks, of showers with as many points as `slots`, whatever their number is.

    The one-call function has the parameters and the form of the teacher's.
    """
    f = config.flow
    spline = rational_quadratic(f.bins, 5.0)
    num = num_numbers(get_geometry(config.geometry).num_layers)
    bijector = coupling_flow(num, spline, f.depth, 1, hidden=f.hidden)
    network = point_network(config)
    return Parts(flow(bijector, num), network, teacher_model(network, config.steps, slots))


def point_network(config: CloudsConfig) -> Network:
    """The network of points, preconditioned for points of unit variance (2206.00364).

    Beside its coordinates, each point shows what is given of its layer. Networks of a MeanFlow take
    the width of the interval behind the energy, and zero where it is missing.
    """
    make = {"point_wise": point_wise, "epic": epic, "set_transformer": set_transformer}
    sizes, smooth = getattr(config, config.network), {"harmonics": 2} if config.interval else {}
    raw = make[config.network](3 + _NUM_OF_LAYER, 1 + config.interval, sizes, **smooth)

    def apply(params, t, x, cond):
        given = cond.cond
        layer = given.layer[: len(x)]
        depth = 2 * layer / (len(given.layers) - 1) - 1
        shown = jnp.concatenate([x, depth[:, None], given.layers[layer]], axis=1)
        seen = jnp.pad(given.energy, (0, 1 + config.interval - len(given.energy)))
        return raw.apply(params, t, shown, SetCondition(cond.n, seen))[:, :3]

    network = preconditioned(Network(raw.init, apply), PATH, 1.0)
    return _point_by_point(network) if config.network == "point_wise" else network


def _point_by_point(network: Network) -> Network:
    """The same network of points that do not see each other, spared of padding on a CPU."""

    def some(rows, params, t, n, energy, layers):
        x, layer = rows
        return network.apply(params, t, x, SetCondition(n, Given(energy, layers, layer)))

    def apply(params, t, x, cond):
        energy, layers, layer = cond.cond
        return on_points(some, cond.n, (x, layer), params, t, cond.n, energy, layers)

    return Network(network.init, apply, network.num_cond)


def teacher_model(network: Network, steps: int, slots: int) -> GenerativeModel:
    """Diffusion of points [slots, 3]."""
    return diffusion(
        network,
        (slots, 3),
        path=PATH,
        prediction="data",
        weighting=preconditioned_weighting(PATH, 1.0),
        sampler=runge_kutta("midpoint", steps),
    )


def student_model(
    config: CloudsConfig, network: Network, slots: int, teacher: Params
) -> GenerativeModel:
    """The one-call function of points, which has the teacher's parameters to start from.

    A consistency function learns from pairs of `teacher_pairs` with the condition (n, `Given`), of
    which the pairs may be a few points. A MeanFlow learns from points as the teacher does; its
    noise is [slots, 3], that of a consistency function [1, slots, 3].
    """
    if config.interval:
        velocity = velocity_of(network)._replace(init=lambda key: teacher)
        taught = functools.partial(velocity.apply, teacher)
        return mean_flow(velocity, (slots, 3), path=PATH, teacher=taught, condition=_with_interval)
    model = distilled(network, (slots, 3), teacher=teacher, path=PATH, prediction="data")

    def loss(params, key, batch):
        return model.loss(params, key, batch._replace(cond=SetCondition(*batch.cond)))

    return model._replace(loss=loss)


def velocity_of(network: Network) -> Network:
    """The velocity of a network's data prediction."""

    def apply(params, t, x, cond=None):
        return convert(PATH, t, x, network.apply(params, t, x, cond), "data", "velocity")

    return Network(network.init, apply, network.num_cond)


def _with_interval(cond: SetCondition, width: jax.Array) -> SetCondition:
    given = cond.cond
    return cond._replace(cond=given._replace(energy=jnp.append(given.energy, width)))


def teacher_pairs(network: Network, steps: int, rows: int) -> SampleFunction:
    """(params, key, (n, `Given`)) -> (noise, points) of the teacher's trajectories.

    The condition is that of a `SetCondition` with n points, of which `rows` are made, of the layers
    that it has: that many are enough to learn from, where points do not see each other.
    """
    solver = runge_kutta("midpoint", steps)
    ends = trajectory_ends(network, (rows, 3), path=PATH, prediction="data", solver=solver)
    return lambda params, key, cond: ends(params, key, SetCondition(*cond))


def few_points(model: GenerativeModel, num: int) -> GenerativeModel:
    """Train on `num` random points of each shower, with the condition of all.

    Points that a network makes one by one, such as `jgen.nets.point_wise`, are independent given
    the condition. The loss is then a mean over points, and that over a random few of them has the
    same expectation, at the cost of the few. It is wrong for networks whose points see each other
    (`epic`, `set_transformer`), which would learn from sets that are none.

    Args:
      model: of points, given a `SetCondition` of their number and `Given`.
      num: drawn with replacement.
    """
    check_sizes(num=num)

    def loss(params, key, batch: Batch):
        key_points, key_loss = jax.random.split(key)
        u = jax.random.uniform(key_points, (len(batch.x), num))
        rows = jnp.floor(u * batch.cond.n[:, None]).astype(int)
        x = jnp.take_along_axis(batch.x, rows[..., None], axis=1)
        cond = batch.cond._replace(cond=of_rows(batch.cond.cond, rows))
        return model.loss(params, key_loss, batch._replace(x=x, cond=cond))

    return model._replace(loss=loss)


def of_rows(given: Given, rows: jax.Array) -> Given:
    """The condition of some rows [showers, num] of the points."""
    return given._replace(layer=jnp.take_along_axis(jnp.asarray(given.layer), rows, axis=1))


class CloudSampler(NamedTuple):
    """How clouds are made of random numbers, given the incident energy [MeV].

    The points are those of the network; `CloudPreprocessing.physical` makes points in
    mm, layers and MeV of both, and `decode` voxels.

    Attributes:
      noise: (key, energy) -> all random numbers of a shower.
      sample_from: ({"flow": ..., "points": ...}, noise, energy) -> (points [slots, 3], totals).
    """

    noise: Callable[[Key, Cond], PyTree]
    sample_from: Callable[[Params, PyTree, Cond], PyTree]

    def sample(self, params: Params, key: Key, cond: Cond) -> PyTree:
        """The cloud of a key."""
        return self.sample_from(params, self.noise(key, cond), cond)


def cloud_sampler(
    flow: GenerativeModel, points: GenerativeModel, preprocessing: CloudPreprocessing
) -> CloudSampler:
    """Both models as one, before points become voxels."""

    def noise(key, cond):
        key_flow, key_points = jax.random.split(key)
        return {
            "flow": flow.noise(key_flow, jnp.zeros(1)),
            "points": points.noise(key_points, SetCondition(jnp.zeros((), int))),
        }

    def sample_from(params, noise, cond):
        energy = jnp.asarray(cond)
        scaled = preprocessing.scaled_energy(energy)
        numbers = flow.sample_from(params["flow"], noise["flow"], scaled[None])
        whole = preprocessing.whole(numbers, energy)
        condition = SetCondition(jnp.sum(whole.n), preprocessing.given(whole, energy))
        return points.sample_from(params["points"], noise["points"], condition), whole

    return CloudSampler(noise, sample_from)


def shower_model(
    flow: GenerativeModel, points: GenerativeModel, preprocessing: CloudPreprocessing
) -> GenerativeModel:
    """Both as one, of showers [*geometry.shape] in MeV given incident energies in MeV.

    Parameters are {"flow": ..., "points": ...}. It is for sampling: trained are the parts, and
    `log_prob` is None, the sum over the points of a voxel having no density.
    """
    cloud = cloud_sampler(flow, points, preprocessing)

    def init(key):
        keys = jax.random.split(key)
        return {"flow": flow.init(keys[0]), "points": points.init(keys[1])}

    def loss(params, key, batch):
        raise ValueError("the parts of this model are trained one by one, by clouds.train")

    def sample_from(params, noise, cond):
        return preprocessing.decode(*cloud.sample_from(params, noise, cond))

    return from_noise(init, loss, cloud.noise, sample_from)


class TrainingData(NamedTuple):
    """What the networks learn from.

    Attributes:
      flow: numbers [n, num] given the scaled incident energies [n, 1].
      points: [n, slots, 3] given a `SetCondition` of their number and `Given`.
    """

    flow: Batch
    points: Batch


def training_data(known: Encoded) -> TrainingData:
    """Encoded showers as batches."""
    cond = SetCondition(known.n, known.given)
    return TrainingData(Batch(known.numbers, known.given.energy), Batch(known.points, cond))
