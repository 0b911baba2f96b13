"""Generators of jets of constituents: networks, models and their training."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from experiments.study import Run
from jgen import (
    Batch,
    GenerativeModel,
    OptimizerConfig,
    TrainConfig,
    bijectors,
    draw,
    models,
    nets,
    paths,
)
from jgen import jets as jet_tools
from jgen.jets import WHOLE, Constituents, jet_kinematics, missed_whole, whole_jets, whole_map
from jgen.sets import SetCondition, valid
from jgen.solvers import DDIM, Denoised, runge_kutta
from jgen.training import game_optimizer, operations
from jgen.transforms import preprocessed
from jgen.typing import Key, Params

GENERATORS = ("EPiC-FM", "EPiC-GAN", "MeanFlow", "consistency", "EPiC-JeDi", "transformer-FM")
DISTILLED = "MeanFlow", "consistency"
"""Generators of one call that learn from EPiC-FM, and start as it: all three see the width of an
interval of time, which is zero but for MeanFlow. It is not in the papers of the other two."""
# Signal rates at both ends of the path of EPiC-JeDi, alpha = sin(pi t / 2) (2310.00049).
_RATES = 0.02, 0.999
_BEYOND = 1e3  # of any coordinate
INFORMED = "EPiC-FM", *DISTILLED, "transformer-FM"
"""Generators whose networks say where on a straight path a jet is heading."""


@dataclass(frozen=True)
class Generators:
    """Networks, trainings and samplers."""

    epic: nets.EpicConfig = nets.EpicConfig(64, 10, 6)
    """Network of all EPiC generators but the GAN."""
    transformer: nets.SetTransformerConfig = nets.SetTransformerConfig(64, 4, 3, 128)
    """Network of the other flow matching."""
    generator: nets.EpicConfig = nets.EpicConfig(64, 10, 4, 0.03)
    """Generator of EPiC-GAN. The published sums have no factor, and weights begin smaller; here the
    first losses would be a hundred thousand, from which few steps do not come back."""
    critic: nets.EpicConfig = nets.EpicConfig(64, 10, 3, 0.03)
    """Its critic."""
    training: TrainConfig = TrainConfig(
        3000, 256, ema_decay=0.998,
        optimizer=OptimizerConfig(4e-3, warmup=0.05, clip_norm=0.5, method="muon"),
    )  # fmt: skip
    """Training of EPiC-FM and EPiC-JeDi."""
    jets: TrainConfig = TrainConfig(
        4000, 256, ema_decay=0.998, optimizer=OptimizerConfig(2e-3, warmup=0.05)
    )
    """Training of the flow of pT and mass."""
    others: TrainConfig = TrainConfig(
        1200, 256, ema_decay=0.995,
        optimizer=OptimizerConfig(4e-3, warmup=0.05, clip_norm=0.5, method="muon"),
    )  # fmt: skip
    """Training of the transformer."""
    distilled: TrainConfig = TrainConfig(
        1200, 256, ema_decay=0.995,
        optimizer=OptimizerConfig(2e-3, warmup=0.05, clip_norm=0.5, method="muon"),
    )  # fmt: skip
    """Training of MeanFlow and of the consistency function."""
    width: float = 1.0
    """Standard deviation of the GAN's points, which is five as published; here points were then ten
    times too far out for the first thousand steps."""
    turned: bool = True
    """Whether the GAN's jets are turned about their axis by a random angle, not in the paper."""
    game: TrainConfig = TrainConfig(
        6000, 128, keep="best", validate_every=200, ema_decay=0.99,
        optimizer=OptimizerConfig(5e-4, beta1=0.5),
    )  # fmt: skip
    """Training of either player of the GAN; the best step is that of the smallest W1-M plus W1-P to
    the training jets, looked for at every validation. The published rate is constant; distances
    then double and halve from one validation to the next."""
    steps: int = 24
    """Midpoint steps of flow matching, of two calls each; EPiC-JeDi has twice as many of DDIM."""
    informed: bool = True
    """Whether velocities are corrected towards the pT and mass that are asked where networks make
    velocities of straight paths, see `jgen.nets.constrained`; not in the papers."""
    harmonics: int = 2
    """Of the time, which EPiC-FM and what is distilled from it see: with eight a MeanFlow does not
    learn the cores of jets. EPiC-JeDi has the eight of `jgen.nets.epic`."""

    def calls(self, name: str) -> int:
        """Calls of the network a jet."""
        if name in ("EPiC-GAN", *DISTILLED):
            return 1
        return 2 * self.steps + (name == "EPiC-JeDi")

    def network(self, name: str, jets: Constituents) -> nets.Network:
        """What predicts a velocity or noise of points of such jets, given class, pT and mass."""
        informed = self.informed and name in INFORMED
        interval = name in ("EPiC-FM", *DISTILLED)
        num_cond = len(jets.classes) + WHOLE + interval + (WHOLE if informed else 0)
        if name == "transformer-FM":
            network = nets.set_transformer(3, num_cond, self.transformer)
        elif interval:
            network = nets.epic(3, num_cond, self.epic, harmonics=self.harmonics)
        else:
            network = nets.epic(3, num_cond, self.epic)
        if informed:
            maps = jet_tools.point_map(jets.points, jets.n), whole_map(jets.points)
            network = nets.constrained(network, missed_whole(*maps), WHOLE, gain_cond=int(interval))
        return models.instantaneous(network) if interval and name != "MeanFlow" else network

    def model(
        self, name: str, jets: Constituents, teacher: Params | None = None
    ) -> GenerativeModel:
        """Of points of mean zero and width one, given a `SetCondition`.

        Args:
          name: one of `GENERATORS`.
          jets: to train on, which say how many rows, which classes, and scales.
          teacher: parameters of EPiC-FM, for the training of what is distilled from it.
        """
        shape, num_classes = (jets.points.shape[1], 3), len(jets.classes)
        if name == "EPiC-GAN":
            generator = nets.epic_generator(*shape, num_classes, self.generator)
            generator = turned(generator) if self.turned else generator
            critic = nets.epic_critic(3, num_classes, self.critic)
            width = np.full(3, 1 / self.width)
            wide = bijectors.per_point(bijectors.standardize(np.zeros(3), width))
            return preprocessed(models.gan(generator, critic, objective="least_squares"), wide)
        network = self.network(name, jets)
        if name == "MeanFlow":
            velocity = self.network("EPiC-FM", jets).apply
            taught = None if teacher is None else functools.partial(velocity, teacher)
            return models.mean_flow(network, shape, teacher=taught)
        if name == "consistency":
            return models.consistency(network, shape, teacher=teacher)
        if name == "EPiC-JeDi":
            path = paths.cosine(0.0, *(2 / np.pi * np.arcsin(rate) for rate in _RATES))
            sampler = Denoised(DDIM(2 * self.steps))
            return models.diffusion(network, shape, path=path, sampler=sampler)
        return models.flow_matching(network, shape, solver=runge_kutta("midpoint", self.steps))


def turned(generator: nets.Generator) -> nets.Generator:
    """Points turned about the axis by a random angle: a game is slow to find this symmetry."""

    def noise(key):
        key, key_angle = jax.random.split(key)
        return {"points": generator.noise(key), "angle": 2 * jnp.pi * jax.random.uniform(key_angle)}

    def apply(params, noise, cond):
        points = generator.apply(params, noise["points"], cond)
        (eta, phi), cos, sin = points[:, :2].T, jnp.cos(noise["angle"]), jnp.sin(noise["angle"])
        turned = jnp.stack([cos * eta - sin * phi, sin * eta + cos * phi], axis=1)
        return jnp.concatenate([turned, points[:, 2:]], axis=1)

    return nets.Generator(generator.init, noise, apply)


def condition(
    n: np.ndarray, labels: np.ndarray, num_classes: int, whole: np.ndarray | None = None
) -> SetCondition:
    """Numbers of points, and classes with a one each, before what is given of the whole jet."""
    given = np.eye(num_classes, dtype=np.float32)[labels]
    given = given if whole is None else np.concatenate([given, whole], axis=1)
    return SetCondition(n.astype(np.int32), given)


def scaled_whole(whole: np.ndarray, jets: Constituents) -> np.ndarray:
    """What networks are given, of mean zero and width one for training jets."""
    return np.asarray(jax.vmap(whole_map(jets.points).forward)(whole)[0])


def jet_model(jets: Constituents) -> GenerativeModel:
    """A flow of `whole_jets` given `jet_condition`, in the place of EPiC-JeDi's (2310.00049)."""
    spline, num_cond = bijectors.rational_quadratic(16, 5.0), 1 + len(jets.classes)
    layers = bijectors.coupling_flow(WHOLE, spline, 4, num_cond, hidden=(64, 64))
    return preprocessed(models.flow(layers, WHOLE), whole_map(jets.points))


def jet_condition(cond: SetCondition) -> np.ndarray:
    """Numbers of points and classes, as vectors."""
    return np.column_stack([np.log1p(cond.n), cond.cond]).astype(np.float32)


def draw_whole(
    config: Generators, run: Run, jets: Constituents, cond: SetCondition, key: Key
) -> np.ndarray:
    """`whole_jets` of new jets with these numbers of points and classes."""
    known, model = whole_jets(jets.points), jet_model(jets)
    data = Batch(known, jet_condition(condition(jets.n, jets.labels, len(jets.classes))))
    params = run.fit("jets", model, data, config.jets).one
    made = draw(model, params, key, len(cond.n), jet_condition(cond), batch_size=1000)
    return np.clip(made, known.min(axis=0), known.max(axis=0))


def jet_score(model: GenerativeModel, scale: bijectors.Bijector, num_classes: int):
    """W1-M plus W1-P of (params, key, jets), the mean over classes.

    Of each class there are equally many jets, one after another.
    """

    def observed(z, cond):
        points = scale.inverse(z, cond)[0]
        # Points that are not there stand at the same end of both samples.
        there = valid(cond.n, len(points))[:, None]
        return jet_kinematics(points)[3], jnp.where(there, points, _BEYOND)

    def both(params, key, x, cond):
        return observed(x, cond), observed(model.sample(params, key, cond), cond)

    def score(params, key, jets):
        keys = jax.random.split(key, len(jets.x))
        true, made = jax.vmap(both, (None, 0, 0, 0))(params, keys, jets.x, jets.cond)
        n = jets.cond.n.reshape(num_classes, -1)
        counts = jnp.full(num_classes, n.shape[1]), jnp.sum(n, axis=1)
        return sum(map(_apart, true, made, counts))

    return score


def _apart(a, b, counts):
    """Mean W1 of the columns of values [num, ..., columns], of classes of so many values."""
    columns = (x.reshape(len(counts), -1, x.shape[-1] if x.ndim > 1 else 1) for x in (a, b))
    a, b = (jnp.sort(x, axis=1) for x in columns)
    return jnp.mean(jnp.sum(jnp.abs(a - b), axis=1) / counts[:, None])


def train(
    config: Generators, run: Run, name: str, jets: Constituents, scale: bijectors.Bijector
) -> tuple[GenerativeModel, Params]:
    """A generator of the jets' points as `scale` maps them, and its trained parameters."""
    num_classes = len(jets.classes)
    whole = None if name == "EPiC-GAN" else scaled_whole(whole_jets(jets.points), jets)
    cond = condition(jets.n, jets.labels, num_classes, whole)
    z = np.asarray(jax.vmap(scale.forward)(jets.points, cond)[0])
    teacher = None
    if name in DISTILLED:
        _, teacher = train(config, run, "EPiC-FM", jets, scale)  # which is read if it is there
    model = config.model(name, jets, teacher)
    if name != "EPiC-GAN":
        blocks = dict.fromkeys(DISTILLED, config.distilled) | {"transformer-FM": config.others}
        training = blocks.get(name, config.training)
        return model, run.fit(name, model, Batch(z, cond), training, initial=teacher).one
    of = [np.flatnonzero(jets.labels == k) for k in range(num_classes)]
    rows = np.concatenate([r[: min(map(len, of))] for r in of])
    watched = Batch(*jax.tree.map(lambda a: a[rows], (z, cond)))
    players = dict.fromkeys(("generator", "critic"), config.game.optimizer)
    fitted = run.fit(
        name, model, Batch(z, cond), config.game, validation=watched,
        score=jet_score(model, scale, num_classes),
        optimizer=game_optimizer(players, config.game.steps),
    )  # fmt: skip
    return model, fitted.one


def flop_per_jet(
    config: Generators, name: str, model: GenerativeModel, params: Params, cond, jets: Constituents
):
    """Operations of the network, as XLA counts them, times its calls; `cond` is of one jet."""
    if name == "EPiC-GAN":
        return operations(model.sample, params, jax.random.key(0), cond)
    network = config.network(name, jets)
    seen = models.with_interval(cond, jnp.ones(())) if name == "MeanFlow" else cond
    shape = jax.eval_shape(model.sample, params, jax.random.key(0), cond)
    return config.calls(name) * operations(network.apply, params, jnp.ones(()), shape, seen)
