"""Markov chains: a model's events as proposals, random walks and Hamiltonian trajectories.

All chains leave exp(-U) / Z invariant. Independence Metropolis (1904.12072, Sec. III) makes events
of the target from those of any model whose log-density is exact, not an estimate; the others are
blackjax's and need no model. How many independent events a chain is worth is in its integrated
autocorrelation time.
"""

import functools
import math
from typing import NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

from jgen.arrays import double_array, real_array
from jgen.checks import check_positive, check_whole
from jgen.estimate import Estimate
from jgen.random import check_key
from jgen.typing import Cond, Energy, Key

_WOLFF_S = 1.5

Series = Real[np.ndarray, " *chains num"] | Bool[np.ndarray, " *chains num"]
"""Values of an observable along chains, or whether something holds."""


class IndependenceChain(NamedTuple):
    """Which proposal a chain is at; events are `x[chain.index]`.

    Attributes:
      index: of the proposal at every step [num].
      accepted: whether the step's proposal was taken [num]; that of the first step always is.
    """

    index: Int[Array, " num"]
    accepted: Bool[Array, " num"]


class Chains(NamedTuple):
    """Events of Markov chains.

    Attributes:
      x: [chains, num, *event].
      acceptance: mean probability of acceptance of each chain [chains].
    """

    x: Array
    acceptance: Float[Array, " chains"]


def independence_metropolis(key: Key, log_weight: Real[Array, " *chains num"]) -> IndependenceChain:
    """Metropolis steps among independent proposals with known weights, in their order.

    A proposal is taken with probability min(1, w_new / w_old), w = exp(-U) / q, from which the
    normalisation cancels. The chain starts at the first proposal, so its beginning follows q.

    Args:
      key: typed PRNG key.
      log_weight: of events of the model in the order of drawing, see `draw_weighted`, of one chain
        or several. Proposals with -inf are never taken.

    Raises:
      ValueError: unless there is at least one weight a chain, and for a weight that is NaN or
        +inf, which the chain would never leave. Under `jax.vmap` or `jax.jit` values cannot be
        looked at: give all chains at once instead.
    """
    check_key(key)
    if not isinstance(log_weight, jax.core.Tracer):
        log_weight = real_array(log_weight, "log_weight")
    log_weight = jnp.asarray(log_weight, float)
    if log_weight.ndim not in (1, 2) or not log_weight.size:
        raise ValueError(
            f"log weights [num] or [chains, num] are needed, got the shape {log_weight.shape}"
        )
    if not isinstance(log_weight, jax.core.Tracer):
        bad = np.argwhere(~(np.asarray(log_weight) < np.inf))
        if len(bad):
            value = np.asarray(log_weight)[tuple(bad[0])]
            raise ValueError(
                f"log weight {tuple(map(int, bad[0]))} is {value}: energies and densities of "
                "proposals must be finite numbers, or the weight zero (-inf)"
            )
    if log_weight.ndim == 2:
        return jax.vmap(_independence_chain)(jax.random.split(key, len(log_weight)), log_weight)
    return _independence_chain(key, log_weight)


@jax.jit
def _independence_chain(key, log_weight):
    log_u = jnp.log(jax.random.uniform(key, log_weight.shape))

    def step(current, proposal):
        index, log_w, log_u = proposal
        # A start without weight, -inf, is left for any proposal that has one.
        accepted = log_u + current[1] < log_w
        current = jax.tree.map(lambda n, o: jnp.where(accepted, n, o), (index, log_w), current)
        return current, (current[0], accepted)

    indices = jnp.arange(len(log_weight))
    start = (indices[0], log_weight[0])
    _, (index, accepted) = jax.lax.scan(step, start, (indices, log_weight, log_u))
    return IndependenceChain(index, accepted.at[0].set(True))


def random_walk(
    key: Key,
    energy: Energy,
    start: Real[Array, " chains *event"],
    num: int,
    *,
    width: float,
    cond: Cond = None,
    thin: int = 1,
) -> Chains:
    """Metropolis's random walk with normal steps, many chains at once.

    Args:
      key: typed PRNG key.
      energy: (x, cond) -> U in units of kT, for one event.
      start: where the chains start.
      num: events that are kept of each chain.
      width: standard deviation of a step in each component.
      cond: condition of the energy, the same for all chains.
      thin: steps from one kept event to the next.

    Raises:
      ValueError: if a number is not positive, there is no chain, or one starts where its energy is
        no finite number, from where it would never move.
    """
    check_positive(width=width)
    _check_chains(key, energy, start, cond, num, thin)
    return _run(_Walk(float(width)), energy, num, thin, key, jnp.asarray(start, float), cond)


def hamiltonian(
    key: Key,
    energy: Energy,
    start: Real[Array, " chains *event"],
    num: int,
    *,
    step_size: float,
    max_steps: int,
    cond: Cond = None,
    thin: int = 1,
) -> Chains:
    """Hybrid Monte Carlo with trajectories of random length, many chains at once.

    The number of leapfrog steps is uniform from 1 to `max_steps`: with a fixed length, modes whose
    half period it is a multiple of move little or not at all, and averages come out wrong with
    small errors. Momenta have unit masses.

    Args:
      key: typed PRNG key.
      energy: (x, cond) -> U in units of kT, for one event; differentiable.
      start: where the chains start.
      num: events that are kept of each chain.
      step_size: of the leapfrog integrator.
      max_steps: the longest trajectory in steps of the integrator; half of it on average.
      cond: condition of the energy, the same for all chains.
      thin: trajectories from one kept event to the next.

    Raises:
      ValueError: if a number is not positive, there is no chain, or one starts where its energy is
        no finite number, from where it would never move.
    """
    check_positive(step_size=step_size)
    check_whole(max_steps=max_steps)
    _check_chains(key, energy, start, cond, num, thin)
    rule = _Hamiltonian(float(step_size), int(max_steps))
    return _run(rule, energy, num, thin, key, jnp.asarray(start, float), cond)


class AutocorrelationTime(NamedTuple):
    """Integrated autocorrelation time of a chain, see `autocorrelation_time`.

    Attributes:
      value: tau_int in steps, 1/2 for independent events; N events are worth N / (2 tau_int).
      error: of it, statistical.
      window: largest distance that is summed over.
    """

    value: float
    error: float
    window: int

    @property
    def estimate(self) -> Estimate:
        """Value and error alone."""
        return Estimate(self.value, self.error)

    def __str__(self) -> str:
        """As an `Estimate`."""
        return str(self.estimate)


def autocorrelation_time(series: Series) -> AutocorrelationTime:
    """tau_int = 1/2 + sum_(t >= 1) rho(t) of an observable, by Wolff's windows (hep-lat/0306017).

    The sum ends at the first W with exp(-W / tau) < tau / sqrt(W N), where tau is S = 1.5 times the
    time of an exponential with the tau_int of that window: there the error from leaving out the
    tail is about that of the noise. The error is tau_int sqrt((4 W + 2 - 4 tau_int) / N), and
    covariances are corrected for the subtraction of the estimated mean. Deviation: tau is S / 2 or
    more, so that of chains that alternate more than one distance is summed over.

    Chains are replica of one process with a common mean, so chains stuck in different places show
    as a long time. It means nothing if the chains are not many times longer than the result.

    Args:
      series: values of the observable along one chain, or [chains, num].

    Raises:
      ValueError: if values are not finite, all the same, or fewer than four a chain.
    """
    tau, error, window, _ = _wolff(series)
    return AutocorrelationTime(tau, error, window)


def chain_mean(series: Series) -> Estimate:
    """Mean of an observable along chains, its error with their autocorrelation in it.

    Args:
      series: values along one chain, or [chains, num].

    Raises:
      ValueError: as `autocorrelation_time`.
    """
    *_, variance_of_mean = _wolff(series)
    return Estimate(float(np.mean(np.asarray(series, np.float64))), variance_of_mean**0.5)


def _wolff(series):
    """tau_int, its error, the window, and the variance of the mean."""
    series = np.atleast_2d(double_array(series, "series"))
    _check_series(series)
    num = series.shape[1]
    covariance, total = _covariance(series), series.size
    summed = np.cumsum(covariance / covariance[0]) - 0.5
    window = next((w for w in range(1, num // 2) if _noise_wins(summed[w], w, total)), num // 2)
    # The estimated mean takes C / N from every covariance, C the sum over the window.
    bias = (covariance[0] + 2 * covariance[1 : window + 1].sum()) / total
    corrected = covariance[: window + 1] + bias
    # Noise on a chain that is far better than independent must not make it negative.
    tau = max(float(corrected.sum() / corrected[0] - 0.5), 1 / total)
    error = tau * (max(4 * window + 2 - 4 * tau, 0.0) / total) ** 0.5
    return tau, error, window, 2 * tau * corrected[0] / total


def _covariance(series):
    """Autocovariances at distances 0, 1, ..., averaged over chains, about the common mean."""
    chains, num = series.shape
    deviation = series - series.mean()
    spectrum = np.fft.rfft(deviation, 2 ** math.ceil(math.log2(2 * num)), axis=1)
    sums = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, :num].sum(axis=0)
    return sums / (chains * (num - np.arange(num)))


def _noise_wins(summed, window, total):
    tau = _WOLFF_S / 2
    if summed > 0.5:
        tau = max(tau, _WOLFF_S / math.log((2 * summed + 1) / (2 * summed - 1)))
    return math.exp(-window / tau) < tau / (window * total) ** 0.5


class _Walk(NamedTuple):
    """The rule of a random walk; hashable, so that it names a compiled program."""

    width: float

    def algorithm(self, log_density, size):
        return blackjax.normal_random_walk(log_density, self.width * jnp.ones(size))


class _Hamiltonian(NamedTuple):
    step_size: float
    max_steps: int

    def algorithm(self, log_density, size):
        def steps(key):
            # The key is split for the next trajectory and must not be used itself.
            return jax.random.randint(jax.random.fold_in(key, 0), (), 1, self.max_steps + 1)

        return blackjax.dynamic_hmc(
            log_density, self.step_size, jnp.ones(size), integration_steps_fn=steps
        )


@functools.partial(jax.jit, static_argnames=("rule", "energy", "num", "thin"))
def _run(rule, energy, num, thin, key, start, cond):
    """Chains of one rule; events are vectors for blackjax and have their shape outside."""
    shape = start.shape[1:]
    log_density = lambda x: -energy(x.reshape(shape), cond)
    algorithm = rule.algorithm(log_density, math.prod(shape))

    def step(state, key):
        state, info = algorithm.step(key, state)
        return state, info.acceptance_rate

    def kept(state, key):
        state, acceptance = jax.lax.scan(step, state, jax.random.split(key, thin))
        return state, (state.position, jnp.mean(acceptance))

    def chain(key, start):
        key_init, key_steps = jax.random.split(key)
        state = algorithm.init(start.ravel(), key_init)
        _, (x, acceptance) = jax.lax.scan(kept, state, jax.random.split(key_steps, num))
        return x.reshape(num, *shape), jnp.mean(acceptance)

    return Chains(*jax.vmap(chain)(jax.random.split(key, len(start)), start))


def _check_chains(key, energy, start, cond, num, thin):
    check_key(key)
    check_whole(num=num, thin=thin)
    if not isinstance(start, jax.core.Tracer):
        real_array(start, "start")
    if np.ndim(start) < 2 or not np.size(start):
        raise ValueError(
            f"start needs the shape [chains, *event], one event a chain, got {np.shape(start)}"
        )
    energies = jax.vmap(energy, in_axes=(0, None))(jnp.asarray(start, float), cond)
    if not isinstance(energies, jax.core.Tracer) and not np.all(np.isfinite(energies)):
        bad = int(np.flatnonzero(~np.isfinite(energies))[0])
        raise ValueError(
            f"chain {bad} starts where its energy is {energies[bad]}, and would stay there: start "
            "where the energy is finite"
        )


def _check_series(series):
    if series.ndim != 2 or series.shape[1] < 4:
        raise ValueError(f"four or more values a chain are needed, got {series.shape}")
    if not np.all(np.isfinite(series)):
        raise ValueError("the series has values that are not finite; look at the chain")
    if np.ptp(series) == 0:
        raise ValueError("all values are the same: the chain never moved; make its steps smaller")
