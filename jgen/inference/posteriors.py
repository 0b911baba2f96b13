"""Simulation-based inference: the posterior of parameters whose likelihood is only simulated.

    model = posterior_flow(prior, x)                                   # NPE: p(theta | x)
    fitted = fit(model, Batch(theta, x), key, TrainConfig(3000, 256))
    draws = draw(model, fitted.one, key, 10_000, cond=observed[None])

Neural posteriors (NPE, 1605.06376, 1905.07488; with flow matching 2305.17161) are conditional
models as all others: `draw` samples them, `log_densities` scores them, `transforms.mixture` joins
an ensemble, and a diffusion or a family of your own serves as well. Neural likelihoods (NLE,
1805.07226) are models of x given theta, neural ratios (NRE, 1903.04057, 2002.03712) have a loss of
their own; `sample_posterior` turns either, or a likelihood that is known, into a posterior.
"""

import functools
import warnings
from collections.abc import Callable

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from jgen import bijectors, models, nets
from jgen.arrays import SampleWarning, explained, real_array
from jgen.checks import check_open_fraction, check_whole
from jgen.generative_model import GenerativeModel, draw, log_densities, num_events
from jgen.inference.priors import Prior
from jgen.random import check_key, numpy_generator, stream
from jgen.solvers import runge_kutta
from jgen.transforms import preprocessed
from jgen.typing import Key, Params

LogLikelihood = Callable[[Float[Array, " dim"], Float[Array, " n"]], Float[Array, ""]]
"""(theta, x) -> log p(x | theta) up to a function of x, of one vector each."""
# Leapfrog steps of a trajectory, at most.
_LEAPFROG = 8
_ACCEPTANCE = 0.8


def posterior_flow(
    prior: Prior,
    data: Real[np.ndarray, "num n"],
    *,
    depth: int = 5,
    num_bins: int = 10,
    hidden: tuple[int, ...] = (50, 50),
) -> GenerativeModel:
    """Neural posterior p(theta | x) by a flow of spline couplings.

    Args:
      prior: of theta; the flow works where it is standard normal.
      data: simulated x of the training, whose means and widths scale the condition.
      depth: couplings.
      num_bins: of a spline.
      hidden: widths of each coupling's network.
    """
    condition, num_data = _condition(data)
    flow = _spline_flow(prior.dim, num_data, depth, num_bins, hidden)
    return preprocessed(flow, prior.normalized, condition)


def posterior_matching(
    prior: Prior,
    data: Real[np.ndarray, "num n"],
    *,
    hidden: tuple[int, ...] = (128, 128, 128, 128),
    steps: int = 32,
) -> GenerativeModel:
    """Neural posterior p(theta | x) by flow matching (2305.17161).

    Args:
      prior: of theta.
      data: simulated x of the training.
      hidden: widths of the network.
      steps: of the midpoint rule that samples.
    """
    condition, num_data = _condition(data)
    network = nets.velocity_mlp(prior.dim, num_data, hidden=hidden)
    model = models.flow_matching(network, prior.dim, solver=runge_kutta("midpoint", steps))
    return preprocessed(model, prior.normalized, condition)


def likelihood_flow(
    prior: Prior,
    data: Real[np.ndarray, "num n"],
    *,
    depth: int = 5,
    num_bins: int = 10,
    hidden: tuple[int, ...] = (50, 50),
) -> GenerativeModel:
    """Neural likelihood p(x | theta) by a flow of spline couplings; its condition is theta.

    Args:
      prior: of theta, which is shown to the flow as a standard normal one.
      data: simulated x of the training.
      depth: couplings.
      num_bins: of a spline.
      hidden: widths of each coupling's network.
    """
    scale, num_data = _scale(data)
    flow = _spline_flow(num_data, prior.dim, depth, num_bins, hidden)
    return preprocessed(flow, scale, lambda theta: prior.normalized.forward(theta)[0])


def ratio_model(
    prior: Prior,
    data: Real[np.ndarray, "num n"],
    *,
    hidden: tuple[int, ...] = (64, 64, 64),
    candidates: int = 4096,
) -> GenerativeModel:
    """Neural ratio r(theta, x) = p(theta, x) / (p(theta) p(x)) by a classifier (1903.04057).

    The loss is the cross-entropy of pairs that belong together against the same parameters with
    the data of others of the minibatch. `log_prob` is log r + log p(theta), normalised as far as
    the classifier is. `sample` chooses among `candidates` draws of the prior by their ratios, which
    is enough while many of them have weight; else use `sample_posterior`.

    Args:
      prior: of theta.
      data: simulated x of the training.
      hidden: widths of the classifier.
      candidates: draws of the prior that a sample is chosen from.
    """
    check_whole(candidates=candidates)
    condition, num_data = _condition(data)
    network = nets.mlp(prior.dim + num_data, 1, hidden=hidden)

    def log_ratio(params, theta, x):
        z = prior.normalized.forward(theta)[0]
        return network.apply(params, jnp.concatenate([z, condition(x)]))[0]

    def loss(params, key, batch):
        num = num_events(batch)
        if num < 2:
            raise ValueError("a ratio learns from minibatches of two events or more")
        if batch.cond is None:
            raise ValueError("a ratio learns from Batch(theta, x); there are no data x")
        others = (jnp.arange(num) + jax.random.randint(key, (), 1, num)) % num
        each = jax.vmap(log_ratio, in_axes=(None, 0, 0))
        joint = jax.nn.softplus(-each(params, batch.x, batch.cond))
        apart = jax.nn.softplus(each(params, batch.x, batch.cond[others]))
        losses = joint + apart
        return jnp.mean(losses if batch.weight is None else batch.weight * losses)

    def sample(params, key, cond):
        key_theta, key_choice = jax.random.split(key)
        theta = jax.vmap(prior.sample)(jax.random.split(key_theta, candidates))
        ratios = jax.vmap(log_ratio, in_axes=(None, 0, None))(params, theta, cond)
        return theta[jax.random.categorical(key_choice, ratios)]

    def log_prob(params, key, theta, cond):
        return log_ratio(params, theta, cond) + prior.log_prob(theta)

    return GenerativeModel(network.init, loss, sample, log_prob)


def sample_posterior(
    prior: Prior,
    log_likelihood: LogLikelihood,
    observed: Real[np.ndarray, " n"],
    key: Key,
    num: int,
    *,
    candidates: int = 200_000,
    moves: int = 20,
) -> Float[np.ndarray, "num dim"]:
    """Draws of the posterior of a likelihood, or of a ratio, by importance and Hamiltonian moves.

    The prior's draws are resampled by their likelihoods, which finds all modes; then each moves on
    by trajectories of Hybrid Monte Carlo, where the prior is standard normal, with a common step
    that the first half of the moves brings to an acceptance of 0.8.

    Args:
      prior: of theta.
      log_likelihood: (theta, x) -> log p(x | theta), or log r; differentiable. Give the same
        function for many observations, and it is compiled once.
      observed: x.
      key: typed PRNG key.
      num: draws; neighbours of one candidate are not independent.
      candidates: draws of the prior that are looked at. A `SampleWarning` says if fewer than 100
        of them have weight.
      moves: trajectories of each draw.

    Raises:
      ValueError: if the likelihood is zero, NaN or infinite for all candidates.
    """
    check_key(key)
    check_whole(num=num, candidates=candidates)
    check_whole(2, moves=moves)
    observed = jnp.asarray(_observation(observed), jnp.float32)
    keys = [stream(key, name) for name in ("candidates", "choice", "moves")]
    z = jax.random.normal(keys[0], (candidates, prior.dim))
    with explained("log_likelihood", observed=observed):
        log_l = np.asarray(_log_likelihoods(prior, log_likelihood, z, observed), np.float64)
    if np.isnan(log_l).any() or np.isposinf(log_l).any():
        raise ValueError("log_likelihood is NaN or infinite for some parameters of the prior")
    if not np.isfinite(log_l).any():
        raise ValueError(
            f"the likelihood of the observation is zero for all of {candidates} draws of the "
            "prior: is it possible under this prior? Else give more candidates"
        )
    weight = np.exp(log_l - log_l.max())
    effective = weight.sum() ** 2 / (weight**2).sum()
    if effective < 100:
        warnings.warn(
            f"{effective:.0f} of {candidates} draws of the prior have weight, so that modes may be "
            "missing: give more candidates",
            SampleWarning,
            stacklevel=2,
        )
    chosen = numpy_generator(keys[1]).choice(candidates, num, p=weight / weight.sum())
    width = jnp.asarray(np.sqrt(_variance(np.asarray(z), weight)), jnp.float32)
    end = _moved(prior, log_likelihood, z[chosen], observed, width, keys[2], moves)
    return np.asarray(jax.vmap(lambda z: prior.normalized.inverse(z)[0])(end))


def truncated_draws(
    prior: Prior,
    model: GenerativeModel,
    params: Params,
    observed: Real[np.ndarray, " n"],
    key: Key,
    num: int,
    *,
    level: float = 1e-4,
) -> Float[np.ndarray, "num dim"]:
    """Draws of the prior from where a posterior has its mass, for another round (2210.04815).

    Parameters whose posterior density is above the quantile `level` of its own draws. Simulate
    them and train on all rounds together: within the region the proposal is the prior's, so that
    the loss needs no correction (truncated sequential NPE).

    Args:
      prior: of theta.
      model: neural posterior with a density.
      params: of it.
      observed: x.
      key: typed PRNG key.
      num: draws.
      level: mass of the posterior that is left out.

    Raises:
      ValueError: if the model has no density, or hardly any of the prior's draws are inside.
    """
    if model.log_prob is None:
        raise ValueError("truncation needs the density of the posterior; this model has none")
    check_whole(num=num)
    check_open_fraction(level=level)
    cond = _observation(observed)[None]
    own = draw(model, params, stream(key, "own"), max(1000, round(10 / level)), cond)
    log_q = log_densities(model, params, stream(key, "density"), own, _rows(cond, own))
    threshold, found, looked_at = np.quantile(log_q, level), [], 0
    sample = jax.jit(jax.vmap(prior.sample))
    while (have := sum(map(len, found))) < num:
        if looked_at >= 10**7 and have < 1e-5 * looked_at:
            raise ValueError(
                f"{have} of {looked_at} draws of the prior are where the posterior is: the region "
                "is too small for rejection; take its draws as they are, or stop here"
            )
        keys = jax.random.split(jax.random.fold_in(stream(key, "prior"), looked_at), 100_000)
        theta = np.asarray(sample(keys))
        inside = log_densities(
            model, params, stream(key, "density"), theta, _rows(cond, theta), batch_size=10_000
        )
        found.append(theta[inside > threshold])
        looked_at += len(theta)
    return np.concatenate(found)[:num]


def _spline_flow(num, num_cond, depth, num_bins, hidden):
    element = bijectors.rational_quadratic(num_bins, 5.0)
    # A coupling needs two components.
    recipe = bijectors.coupling_flow if num > 1 else bijectors.autoregressive_flow
    return models.flow(recipe(num, element, depth, num_cond, hidden=hidden), num)


def _scale(data):
    """The map to data of mean zero and width one, and the number of them."""
    data = real_array(data, "data")
    if data.ndim != 2 or len(data) < 2 or not data.shape[1]:
        raise ValueError(f"data need the shape [num, n] of many simulations, got {data.shape}")
    data = data.astype(np.float64)
    if not np.isfinite(data).all():
        raise ValueError("data of simulations must be finite: repair or drop those that are not")
    if len(same := np.flatnonzero(np.ptp(data, axis=0) == 0)):
        raise ValueError(f"column {same[0]} of the data never changes: leave it out")
    return bijectors.standardize(data.mean(axis=0), data.std(axis=0)), data.shape[1]


def _condition(data):
    scale, num = _scale(data)
    return lambda x: scale.forward(x)[0], num


def _observation(observed):
    observed = real_array(observed, "observed")
    if observed.ndim != 1 or not np.isfinite(observed).all():
        raise ValueError(
            f"an observation needs the shape [n] and finite numbers, got the shape "
            f"{observed.shape}: give one at a time"
        )
    return observed.astype(np.float32)


def _rows(cond, theta):
    return np.broadcast_to(cond, (len(theta), cond.shape[1]))


@functools.partial(jax.jit, static_argnames=("prior", "log_likelihood"))
def _log_likelihoods(prior, log_likelihood, z, observed):
    one = lambda z: log_likelihood(prior.normalized.inverse(z)[0], observed)
    return jax.lax.map(one, z, batch_size=min(len(z), 10_000))


def _variance(z, weight):
    """Of each component under weights, in units where the prior's is one."""
    mean = np.average(z, axis=0, weights=weight)
    return np.maximum(np.average((z - mean) ** 2, axis=0, weights=weight), 1e-6)


@functools.partial(jax.jit, static_argnames=("prior", "log_likelihood", "moves"))
def _moved(prior, log_likelihood, start, observed, width, key, moves):
    def log_density(z):
        return log_likelihood(prior.normalized.inverse(z)[0], observed) - 0.5 * jnp.sum(z**2)

    # One program for steps of all sizes: the step is traced.
    kernel = blackjax.hmc.build_kernel()
    states = jax.vmap(lambda z: blackjax.hmc.init(z, log_density))(start)

    def move(carry, inputs):
        states, log_step = carry
        index, key = inputs
        key_length, key_moves = jax.random.split(key)
        length = jax.random.randint(key_length, (), 1, _LEAPFROG + 1)
        step = lambda key, state: kernel(
            key, state, log_density, jnp.exp(log_step), width**2, length
        )
        states, info = jax.vmap(step)(jax.random.split(key_moves, len(start)), states)
        change = jnp.mean(info.acceptance_rate) - _ACCEPTANCE
        log_step += jnp.where(index < moves // 2, 2 * change / jnp.sqrt(index + 1.0), 0.0)
        return (states, log_step), None

    inputs = (jnp.arange(moves), jax.random.split(key, moves))
    (states, _), _ = jax.lax.scan(move, (states, jnp.log(0.3)), inputs)
    return states.position
