"""Importance weights of a model on a Boltzmann density, and what follows from them.

The target is exp(-U(x)) / Z with an energy U in units of kT, the model q has samples and a
log-density; the weight of an event is w = exp(-U) / q (Boltzmann generators, 1812.01729). Weights
enter as logarithms and are summed in float64 numpy.

Errors are those of the delta method: right for many events whose weights have a finite variance.
They come from the events at hand, so a region where the model has none does not show in them, nor
in `effective_sample_size`. Samples of the target, if only a few hundred of a Markov chain in each
region, are what shows it: see `forward_effective_sample_size`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Real

from jgen.arrays import (
    double_array,
    edge_array,
    event_arrays,
    explained,
    finite_array,
    real_array,
    sample_array,
)
from jgen.checks import check_finite, check_positive, check_whole
from jgen.estimate import Estimate
from jgen.generative_model import GenerativeModel, check_one_member, draw, num_events
from jgen.random import check_key
from jgen.typing import Cond, Energy, Key, Params, PyTree


class Weighted(NamedTuple):
    """Events of a model with their weights.

    Attributes:
      x: the events, arrays with leading axis [num].
      log_weight: -U(x) - log q(x) of each, in float64.
    """

    x: PyTree
    log_weight: Float[np.ndarray, " num"]


def draw_weighted(
    model: GenerativeModel,
    params: Params,
    key: Key,
    num: int,
    energy: Energy,
    cond: Cond = None,
    *,
    batch_size: int = 1000,
) -> Weighted:
    """Draw events as `jgen.generative_model.draw` does, with their weights.

    Args:
      model: what to sample from; its `sample_and_log_prob`, else its `log_prob` scores events.
      params: its parameters.
      key: typed PRNG key.
      num: number of events.
      energy: (x, cond) -> U in units of kT.
      cond: conditions with leading axis `num`, or None.
      batch_size: events computed at once.

    Raises:
      ValueError: as `draw`, if the model has no density, or a weight is not a number.
    """
    _check_density(model)
    check_one_member(model, params)
    x, log_weight = draw(_with_weight(model, energy), params, key, num, cond, batch_size=batch_size)
    return Weighted(x, _checked(log_weight))


def log_weights(
    model: GenerativeModel,
    params: Params,
    key: Key,
    x: PyTree,
    energy: Energy,
    cond: Cond = None,
    *,
    batch_size: int = 1000,
) -> Float[np.ndarray, " num"]:
    """-U(x) - log q(x) of events from elsewhere, those of a Markov chain for example.

    Args:
      model: one with a `log_prob`.
      params: its parameters.
      key: of a log-density that is an estimate. Weights are then biased, since the mean of
        exp(-noise) is not one: judge with an exact log-determinant.
      x: events with leading axis [num].
      energy: (x, cond) -> U in units of kT.
      cond: their conditions, or None.
      batch_size: events computed at once.

    Raises:
      ValueError: if the model has no density, a weight is not a number, or for events that are no
        numbers or that the model does not take.
    """
    _check_density(model)
    check_one_member(model, params)
    check_key(key)
    check_whole(batch_size=batch_size)
    dtype = np.dtype(jnp.result_type(float))
    x, cond = event_arrays(x, "x", dtype), event_arrays(cond, "cond", dtype, integers=True)
    num = num_events((x, cond))
    if not num:
        raise ValueError("there are no events: x is empty")
    keys, chunk = jax.random.split(key, num), min(batch_size, num)
    with explained("the density or the energy", x=x, cond=cond):
        return _checked(_weigh(model.log_prob, energy, chunk, params, keys, x, cond))


def effective_sample_size(log_weight: Real[np.ndarray, " num"]) -> Estimate:
    """(sum w)^2 / (N sum w^2) of events of the model, a fraction of their number.

    It is E_q[w]^2 / E_q[w^2] where q has events. A mode that the model lost does not lower it.

    Raises:
      ValueError: if a weight is not a number or there are fewer than two.
    """
    w = _scaled(log_weight)
    first, second = w.mean(), np.mean(w**2)
    influence = 2 * w / first - w**2 / second
    return _relative(first**2 / second, influence)


def forward_effective_sample_size(log_weight: Real[np.ndarray, " num"]) -> Estimate:
    """The same fraction from events of the TARGET: 1 / (E_p[w] E_p[1 / w]).

    With p the target, E_q[w]^2 / E_q[w^2] = Z / E_p[w], and E_p[1 / w] = 1 / Z wherever q has no
    events without p. Events of a mode that the model lost have huge weights: it falls to zero.
    A single event far outside of q does that, too: `uncovered_fraction` tells one from many. The
    error counts events as independent; of a Markov chain, give it every 2 tau-th.

    Args:
      log_weight: -U - log q of events that follow the target, see `log_weights`.

    Raises:
      ValueError: if a weight is not a number or there are fewer than two.
    """
    log_weight = _checked(log_weight)
    if np.any(np.isneginf(log_weight)):
        raise ValueError(
            "an event of the target has weight zero, log weight -inf: its energy is infinite, or "
            "the model's density is"
        )
    w, inverse = _scaled(log_weight), _scaled(-log_weight)
    scale = np.max(log_weight) - np.min(log_weight)  # of w and of 1 / w together, taken out of both
    value = np.exp(-scale) / (w.mean() * inverse.mean())
    return _relative(value, w / w.mean() + inverse / inverse.mean())


def uncovered_fraction(
    log_weight: Real[np.ndarray, " num"], log_z: float, factor: float = 10.0
) -> Estimate:
    """Share of the target's events that the model makes too rarely, w / Z = p / q > `factor`.

    Args:
      log_weight: of events that follow the target, see `log_weights`.
      log_z: of the target; an estimate will do as long as its error is small against log(factor).
      factor: what is too rare.

    Raises:
      ValueError: if a weight is not a number, there are fewer than two, or the factor is not above
        one.
    """
    check_finite(log_z=log_z)
    check_positive(factor=factor)
    if not factor > 1:
        raise ValueError(f"factor must be above one, got {factor}")
    rare = _checked(log_weight) - log_z > np.log(factor)
    return Estimate(float(rare.mean()), _standard_error(rare))


def log_partition(log_weight: Real[np.ndarray, " num"]) -> Estimate:
    """Log Z from events of the model: Z = E_q[exp(-U) / q].

    Raises:
      ValueError: if a weight is not a number or there are fewer than two.
    """
    log_weight = _checked(log_weight)
    w = _scaled(log_weight)
    value = np.max(log_weight) + np.log(w.mean())
    return Estimate(float(value), _standard_error(w / w.mean()))


def weighted_mean(
    values: Real[np.ndarray, " num"] | Bool[np.ndarray, " num"],
    log_weight: Real[np.ndarray, " num"],
) -> Estimate:
    """Mean of an observable in the target, sum(w f) / sum(w) over events of the model.

    The population of a region is the mean of its indicator. The bias is of the order 1 / N.

    Raises:
      ValueError: if values and weights do not fit, a value is not finite, or a weight is not a
        number.
    """
    w, values = _scaled(log_weight), finite_array(values, "values")
    if values.shape != w.shape:
        raise ValueError(f"one value an event is needed, got {values.shape} for {w.shape} weights")
    value = np.sum(w * values) / w.sum()
    return Estimate(float(value), _standard_error(w * (values - value) / w.mean()))


def free_energy_difference(
    log_weight: Real[np.ndarray, " num"],
    region: Bool[np.ndarray, " num"],
    reference: Bool[np.ndarray, " num"],
) -> Estimate:
    """F(region) - F(reference) = -log(Z_region / Z_reference) in kT, from events of the model.

    Positive where the region has less probability than the reference. Infinite, with an infinite
    error, if the model has no events in one of them.

    Args:
      log_weight: weights of the events, zeros for events of the target itself.
      region: which of them are in the region.
      reference: which are in the reference.

    Raises:
      ValueError: if arrays do not fit, no event is in either, or a weight is not a number.
    """
    w = _scaled(log_weight)
    inside, outside = (_region(*r) for r in ((region, "region"), (reference, "reference")))
    if not inside.shape == outside.shape == w.shape:
        raise ValueError(
            "regions are one truth value an event, got "
            f"{inside.shape} and {outside.shape} for {w.shape} weights"
        )
    z_inside, z_outside = np.mean(w * inside), np.mean(w * outside)
    if z_inside == 0 and z_outside == 0:
        raise ValueError("no event is in the region and none in the reference; check the masks")
    if z_inside == 0 or z_outside == 0:
        return Estimate(float("inf") if z_inside == 0 else -float("inf"), float("inf"))
    influence = w * (inside / z_inside - outside / z_outside)
    return Estimate(float(np.log(z_outside / z_inside)), _standard_error(influence))


def bin_probabilities(
    values: Real[np.ndarray, " num"],
    edges: Real[np.ndarray, " num_edges"],
    log_weight: Real[np.ndarray, " num"] | None = None,
) -> Estimate:
    """Probabilities of the bins of an observable in the target, and their errors, both [bins].

    `weighted_mean` of every bin's indicator: -log of them is a free-energy profile. A bin in which
    the model has hardly an event has hardly an error, too: compare with `uncovered_fraction`.

    Args:
      values: of the observable, of events of the model.
      edges: of the bins, in increasing order; events outside of them count in the total alone.
      log_weight: of the events, see `draw_weighted`; None for events of the target itself.

    Raises:
      ValueError: if values and weights do not fit, a value is NaN, a weight is not a number, or
        the edges do not increase.
    """
    values, edges = sample_array(values, "values"), edge_array(edges)
    w = _scaled(np.zeros(len(values)) if log_weight is None else log_weight)
    if values.shape != w.shape:
        raise ValueError(f"one value an event is needed, got {values.shape} for {w.shape} weights")
    value = np.histogram(values, edges, weights=w)[0] / w.sum()
    # The sum over events of w^2 (in bin - p)^2, of those inside and outside, neither negative.
    inside = np.histogram(values, edges, weights=w**2)[0]
    outside = np.maximum(np.sum(w**2) - inside, 0)
    variance = inside * (1 - value) ** 2 + outside * value**2
    return Estimate(value, np.sqrt(variance) / w.sum())


@functools.lru_cache(maxsize=32)
def _with_weight(model, energy):
    """Sampling of (x, log w); the same function for the same model, which is compiled once."""

    def sample(params, key, cond):
        if model.sample_and_log_prob is not None:
            x, log_q = model.sample_and_log_prob(params, key, cond)
        else:
            key_x, key_density = jax.random.split(key)
            x = model.sample(params, key_x, cond)
            log_q = model.log_prob(params, key_density, x, cond)
        return x, -energy(x, cond) - log_q

    return sample


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _weigh(log_prob, energy, batch_size, params, keys, x, cond):
    def one(event):
        key, x, cond = event
        return -energy(x, cond) - log_prob(params, key, x, cond)

    return jax.lax.map(one, (keys, x, cond), batch_size=batch_size)


def _scaled(log_weight):
    """Weights in units of the largest one, so that none overflows."""
    log_weight = _checked(log_weight)
    return np.exp(log_weight - log_weight.max())


def _region(inside, name):
    """Truth values, which may come as zeros and ones."""
    inside = real_array(inside, name)
    if not np.all((inside == 0) | (inside == 1)):
        raise ValueError(f"{name} must be one truth value an event, got other numbers")
    return inside.astype(bool)


def _checked(log_weight):
    log_weight = double_array(log_weight, "log_weight")
    if log_weight.ndim != 1 or len(log_weight) < 2:
        raise ValueError(
            "one log weight an event is needed, of two or more events, got the shape "
            f"{log_weight.shape}; is the energy one number an event?"
        )
    if bad := int(np.sum(~(log_weight < np.inf))):
        raise ValueError(
            f"{bad} of {len(log_weight)} log weights are NaN or +inf: look at the energy and the "
            "density of those events; -inf, a weight of zero, is allowed"
        )
    if np.all(np.isneginf(log_weight)):
        raise ValueError("all weights are zero: the model has no event where the target has any")
    return log_weight


def _check_density(model):
    if model.log_prob is None:
        raise ValueError("weights need a model with a log_prob, which this one has not")


def _standard_error(influence):
    return float(np.std(influence) / len(influence) ** 0.5)


def _relative(value, influence):
    """An estimate whose logarithm fluctuates with the mean of `influence`."""
    return Estimate(float(value), float(value) * _standard_error(influence))
