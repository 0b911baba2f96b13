"""Unfolding: the distribution before a detector, from measured events and simulated pairs.

    simulation = Simulation(gen, reco)
    result = omnifold(simulation, measured, key)
    result = iterated_generation(simulation, measured, key, model, training)
    events, weights = result.sample(iteration=-1, member=0)

Three methods behind one result. OmniFold (1911.09107) reweights simulated events before the
detector. Conditional generation draws events of p(gen | reco) for measured reco, with any
conditional `GenerativeModel`: a flow or flow matching (cINN, 2006.06685), or a diffusion bridge
that starts from reco (2308.12351, `jgen.models.bridge`). What was simulated is the prior of one
such round and biases it; rounds that are trained on reweighted simulation take it out (IcINN,
2212.08674). Without fluctuations a round of either is one of iterative Bayesian unfolding.

Errors: with `bootstrap` every member of the ensemble draws its own Poisson weights of measured and
of simulated events, so that the members' spread is the statistical error of both, and of the
networks' training. It knows nothing of the prior's bias, which falls with the iterations.
"""

import functools
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Real

from jgen.arrays import edge_array, finite_array
from jgen.checks import check_literals, check_whole
from jgen.generative_model import Batch, GenerativeModel, draw
from jgen.metrics import RatioConfig, histogram, weighted_log_ratio
from jgen.metrics.distances import event_weights
from jgen.random import member_keys, stream
from jgen.training import TrainConfig, fit, member, over_members
from jgen.typing import Key


class Simulation(NamedTuple):
    """Simulated events before and after the detector.

    Attributes:
      gen: features before it.
      reco: features after it; any finite numbers where an event is not measured.
      weights: not negative, ones unless given.
      is_generated: whether events are of the process and region that is unfolded; those that are
        not but are measured are fakes. All are unless given.
      is_measured: whether the detector has them. All are unless given.
    """

    gen: Real[np.ndarray, "n d"]
    reco: Real[np.ndarray, "n k"]
    weights: Real[np.ndarray, " n"] | None = None
    is_generated: Bool[np.ndarray, " n"] | None = None
    is_measured: Bool[np.ndarray, " n"] | None = None


@dataclass(frozen=True)
class UnfoldingConfig:
    """Iterations, ensemble and ratios."""

    iterations: int = 3
    """Rounds; more take out more of the prior and let fluctuations grow."""
    members: int = 1
    """Of the ensemble."""
    bootstrap: bool = False
    """Whether each member has Poisson weights of its own, measured and simulated events alike;
    else members differ in the training alone."""
    ratio: RatioConfig = RatioConfig()
    """Network and training of the ratios."""
    axis: Literal["vmap", "scan"] = "scan"
    """Members side by side, for accelerators, or one after another in one program."""

    def check(self) -> None:
        """Raise a ValueError for numbers out of range."""
        check_literals(self)
        check_whole(iterations=self.iterations, members=self.members)
        self.ratio.check()


class Unfolded(NamedTuple):
    """Weighted events before the detector, by member and iteration; ones where they are shared.

    Attributes:
      events: simulated events of all members and iterations [1, 1, n, d], or generated ones, one a
        measured event [members, iterations, n, d].
      weights: [members, iterations, n], or [members, 1, n] of generated events.
    """

    events: Float[np.ndarray, "_ _ n d"]
    weights: Float[np.ndarray, "members _ n"]

    @property
    def iterations(self) -> int:
        """How many."""
        return max(self.events.shape[1], self.weights.shape[1])

    def sample(
        self, iteration: int = -1, member: int = 0
    ) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " n"]]:
        """Events and weights of one member after an iteration, counted from 0."""
        pick = lambda a: a[member if len(a) > 1 else 0]
        events, weights = pick(self.events), pick(self.weights)
        return tuple(a[iteration if len(a) > 1 else 0] for a in (events, weights))

    def fractions(
        self, column: int, edges: Real[np.ndarray, " _"], iteration: int = -1
    ) -> Float[np.ndarray, "members bins"]:
        """Fractions of each member's weight in the bins of a column."""
        edges, rows = edge_array(edges), []
        for index in range(len(self.weights)):
            events, weights = self.sample(iteration, index)
            rows.append(histogram(events[:, column], edges, weights).fractions)
        return np.array(rows)


def omnifold(
    simulation: Simulation,
    measured: Real[np.ndarray, "m k"],
    key: Key,
    config: UnfoldingConfig | None = None,
    *,
    measured_weights: Real[np.ndarray, " m"] | None = None,
) -> Unfolded:
    """OmniFold (1911.09107): weights of the simulated events before the detector.

    Step one finds weights that make reco of the simulation that of the data, step two their mean at
    each gen, which is what the next iteration starts from. Events without reco have in step one the
    mean weight of measured ones with the same gen, fakes in step two the mean of generated ones of
    the same reco. The sum of weights is that of the simulation's: shapes are unfolded, not rates.

    Deviations: networks start anew in each step, and by default each scores the half of the events
    that it was not trained on. Weights of data of both signs (a subtracted background) are refused.

    Args:
      simulation: simulated pairs.
      measured: events of the data, features as reco.
      key: of the trainings and the bootstrap.
      config: iterations, ensemble and ratios.
      measured_weights: of the data, ones unless given.

    Returns:
      Generated events (those with `is_generated`), with weights by member and iteration.

    Raises:
      ValueError: for samples that do not fit together.
      FloatingPointError: if a weight is not finite.
    """
    config = config or UnfoldingConfig()
    simulation, measured, weights = _checked(simulation, measured, measured_weights, config)
    keys = member_keys(stream(key, "members"), config.members)
    drawn = _bootstrap(keys, simulation.weights, weights, config.bootstrap)
    push = np.asarray(_omnifold(keys, drawn, simulation, measured, config))
    own = slice(None) if simulation.is_generated is None else simulation.is_generated
    result = (push * np.asarray(drawn[0])[:, None])[..., own]
    _check_finite(result)
    return Unfolded(np.asarray(simulation.gen)[None, None, own], result)


@functools.partial(jax.jit, static_argnames="config")
def _omnifold(keys, drawn, simulation, measured, config):
    both = jnp.concatenate([simulation.reco, measured])
    num = len(simulation.gen)
    mean_weight = functools.partial(_mean_weight, config=config.ratio)

    def iteration(push, key, simulated_weights, measured_weights):
        """Weights after an iteration from those before it."""
        first, missed, second, fakes = jax.random.split(key, 4)
        generated, seen = simulation.is_generated, simulation.is_measured
        reco_weights = _where(seen, push * simulated_weights)
        empty = jnp.zeros(len(measured))
        ratio = weighted_log_ratio(
            first,
            both,
            jnp.concatenate([jnp.zeros(num), measured_weights]),
            jnp.concatenate([reco_weights, empty]),
            config.ratio,
        )
        pull = _where(seen, push * jnp.exp(ratio[:num]))
        both_sides = _where(generated, _where(seen, simulated_weights))
        if seen is not None:
            pull = jnp.where(seen, pull, mean_weight(missed, simulation.gen, pull, both_sides))
        own = _where(generated, simulated_weights)
        push = _where(generated, mean_weight(second, simulation.gen, pull, own))
        push *= jnp.sum(own) / jnp.sum(own * push)
        if generated is not None:
            mean = mean_weight(fakes, simulation.reco, push, both_sides)
            push = jnp.where(generated, push, mean)
        return push

    def one(key, simulated_weights, measured_weights):
        def go_on(push, key):
            push = iteration(push, key, simulated_weights, measured_weights)
            return push, push

        keys = jax.random.split(stream(key, "iterations"), config.iterations)
        return jax.lax.scan(go_on, jnp.ones(num), keys)[1]

    return over_members(one, config.axis, 0)(keys, *drawn)


def _mean_weight(key, x, values, weights, config):
    """The mean of values at each x."""
    log_ratio = weighted_log_ratio(key, x, values * weights, weights, config)
    return jnp.exp(log_ratio) * jnp.sum(values * weights) / jnp.sum(weights)


def iterated_generation(
    simulation: Simulation,
    measured: Real[np.ndarray, "m k"],
    key: Key,
    model: GenerativeModel,
    training: TrainConfig,
    config: UnfoldingConfig | None = None,
    *,
    measured_weights: Real[np.ndarray, " m"] | None = None,
    batch_size: int = 1000,
    progress: bool = True,
) -> Unfolded:
    """Draw one event of p(gen | reco) for each measured one, and again with a better prior.

    After each round the ratio of what was drawn to the simulation, at gen, reweights the simulated
    pairs that the next one is trained on, from the parameters of the last (2212.08674). Members
    are trained at once, on weights of their own where there is a bootstrap.

    Args:
      simulation: simulated pairs, all generated and measured: for others `omnifold` is the method.
      measured: events of the data, features as reco.
      key: of the trainings, the draws and the bootstrap.
      model: of events gen given reco, in units in which both are of order one.
      training: of each round and member; its ensemble and data sets are those of `config`.
      config: iterations, ensemble and ratios.
      measured_weights: of the data, ones unless given.
      batch_size: events drawn at once.
      progress: show bars.

    Returns:
      Events by member and iteration, with the weights of the data.

    Raises:
      ValueError: for samples that do not fit together, or a simulation with lost events or fakes.
      FloatingPointError: if a weight is not finite.
    """
    config = config or UnfoldingConfig()
    if simulation.is_generated is not None or simulation.is_measured is not None:
        raise ValueError(
            "conditional generation needs events that are all generated and measured; take those, "
            "or omnifold, which knows lost events and fakes"
        )
    simulation, measured, weights = _checked(simulation, measured, measured_weights, config)
    num = config.members
    training = replace(training, ensemble=num, data_sets=num, members="plain")
    keys = member_keys(stream(key, "members"), num)
    own_weights, data_weights = _bootstrap(keys, simulation.weights, weights, config.bootstrap)
    repeated = lambda a: np.tile(np.asarray(a), (num, 1))
    gen, reco = repeated(simulation.gen), repeated(simulation.reco)
    push, params, rounds = np.ones_like(own_weights), None, []
    for index in range(config.iterations):
        of_round = jax.random.fold_in(stream(key, "rounds"), index)
        batch = Batch(gen, reco, np.ravel(push * own_weights))
        name = f"round {index + 1} of {config.iterations}"
        params = fit(
            model, batch, of_round, training, initial=params, name=name, progress=progress
        ).params
        drawn = []
        for m in range(num):
            own = jax.random.fold_in(stream(of_round, "draw"), m)
            args = (model, member(params, m), own, len(measured), np.asarray(measured))
            drawn.append(draw(*args, batch_size=batch_size))
        rounds.append(np.stack(drawn))
        if index + 1 < config.iterations:
            ratio_keys = member_keys(stream(of_round, "ratio"), num)
            args = (ratio_keys, rounds[-1], data_weights, own_weights)
            push = np.asarray(_reweighted(*args, simulation.gen, config))
            _check_finite(push)
    return Unfolded(np.stack(rounds, axis=1), np.asarray(data_weights)[:, None])


@functools.partial(jax.jit, static_argnames="config")
def _reweighted(keys, drawn, drawn_weights, own_weights, gen, config):
    """Weights that make the simulation before the detector what was drawn."""

    def one(key, drawn, drawn_weights, own_weights):
        zeros = jnp.zeros_like
        ratio = weighted_log_ratio(
            key,
            jnp.concatenate([gen, drawn]),
            jnp.concatenate([zeros(own_weights), drawn_weights]),
            jnp.concatenate([own_weights, zeros(drawn_weights)]),
            config.ratio,
        )
        return jnp.exp(ratio[: len(gen)])

    return over_members(one, config.axis, 0)(keys, drawn, drawn_weights, own_weights)


def _where(mask, weights):
    return weights if mask is None else jnp.where(mask, weights, 0)


def _bootstrap(keys, simulated, measured, bootstrap):
    """Weights of simulated and measured events of each member, [members, n] and [members, m]."""
    shape = lambda w: (len(keys), len(w))
    if not bootstrap:
        return tuple(jnp.broadcast_to(w, shape(w)) for w in (simulated, measured))

    def one(key):
        draws = (("simulation", simulated), ("data", measured))
        return tuple(w * jax.random.poisson(stream(key, name), 1.0, w.shape) for name, w in draws)

    # One key after another, since streams are checked to be of one key.
    return tuple(jnp.stack(rows) for rows in zip(*map(one, keys), strict=True))


def _checked(simulation, measured, measured_weights, config):
    """All as arrays of single precision that belong together."""
    config.check()
    gen, reco = (
        finite_array(getattr(simulation, name), f"simulation.{name}", 2) for name in ("gen", "reco")
    )
    measured = finite_array(measured, "measured", 2)
    if len(gen) != len(reco) or measured.shape[1] != reco.shape[1]:
        raise ValueError(
            f"gen {gen.shape} and reco {reco.shape} must have as many events, and measured "
            f"{measured.shape} as many features as reco"
        )
    masks = []
    for name in ("is_generated", "is_measured"):
        mask = getattr(simulation, name)
        if mask is not None and (np.shape(mask) != (len(gen),) or not np.any(mask)):
            raise ValueError(
                f"{name} must have one boolean an event [{len(gen)}], some of them true, got the "
                f"shape {np.shape(mask)}"
            )
        masks.append(None if mask is None else np.asarray(mask, bool))
    weights = event_weights(simulation.weights, len(gen)).astype(np.float32)
    data_weights = event_weights(measured_weights, len(measured)).astype(np.float32)
    gen, reco, measured = (a.astype(np.float32) for a in (gen, reco, measured))
    return Simulation(gen, reco, weights, *masks), measured, data_weights


def _check_finite(weights):
    if not np.isfinite(weights).all():
        raise FloatingPointError(
            "weights are not finite: lower the ratio's learning rate, or drop outliers of features"
        )
