"""Neural importance sampling: flows on the unit cube that learn where an integrand is large.

    flow = models.flow(bijectors.cube_flow(4), models.uniform(4))
    sampler = importance_sampler(flow, lambda x: jnp.exp(-jnp.sum(x**2)))
    params = fit(sampler.model, None, key, TrainConfig(2000, 1024)).one
    weights = channel_weights(draw_points(sampler, params, key, 100_000))
    print(integral(weights), relative_deviation(weights))

As in i-flow (2001.05486) and MadNIS (2212.06172, 2311.01548): an integral is the sum over channels
of E_q[a(x) f(x) |dx/du| / q(u)] with u in the unit cube, x the channel's own map of it, and shares
a(x) of the channels that add up to one in every x and may be learned, too. Events come from the
flow as it is, without a gradient through them, so that any f will do: one of JAX for one event, or
`external` code for many.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.bijectors import Bijector
from jgen.checks import check_known, check_whole
from jgen.generative_model import Batch, GenerativeModel, SampleFunction, draw, num_events
from jgen.nets.network import NetworkLike, as_network
from jgen.random import stream
from jgen.training import TrainConfig, fit, make_optimizer
from jgen.typing import Key, Params, PyTree

Integrand = Callable[[PyTree], Array]
"""(x) -> f(x), one event; zero where there is nothing, of either sign."""
Divergence = Literal["variance", "kl"]

# Weights of which a loss is made are soft beyond so many times their mean.
_SOFT = 30.0


class Points(NamedTuple):
    """Events of one channel, of which an integral and events of weight one are made.

    Attributes:
      u: in the unit cube.
      x: the event, the channel's map of u.
      value: f(x) |dx/du|.
      log_q: log-density of u.
      log_share: log of the channel's share of f at x; zero if it is the only one.
    """

    u: Array
    x: PyTree
    value: Array
    log_q: Array
    log_share: Array


class ImportanceSampler(NamedTuple):
    """What `importance_sampler` makes.

    Attributes:
      model: for `fit`, with data None: a batch is so many events of each channel. Its `sample` is
        an event of the channels, one as likely as the other, and has no density.
      points: (params, key, cond) -> `Points` of one event, one function a channel.
    """

    model: GenerativeModel
    points: tuple[SampleFunction, ...]


def importance_sampler(
    flow: GenerativeModel,
    integrand: Integrand,
    mappings: Sequence[Bijector] = (),
    *,
    network: NetworkLike | None = None,
    log_prior: Callable[[PyTree], Array] | None = None,
    divergence: Divergence = "variance",
) -> ImportanceSampler:
    """Flows that are trained on the values of an integrand, one a channel.

    The losses, of weights w in units of the integral, f by its absolute value in "kl":
    variance: (sum_i sd_i)^2, sd_i^2 the variance of w in channel i: that of the integral with
      the best numbers of points (2311.01548). Events of an earlier flow q' count
      w w' with the weight w' = f / q' that they came with.
    kl: sum_i E[w log w], the Kullback-Leibler divergence of all channels together in nats.
    Beyond 30 times their mean weights are soft, 30 arcsinh(w / 30), so that no event rules a step.

    Args:
      flow: on the unit cube, such as `models.flow(cube_flow(d), uniform(d))`; a map of
        `adapted_grid` in front, `compose(grid, cube_flow(d))`, starts it where VEGAS ends.
        Channels have parameters of their own.
      integrand: (x) -> f, one event.
      mappings: of each channel, from x to the unit cube; without, x is in the cube.
      network: apply(params, x, None) -> logits [channels] that the shares are the softmax of, with
        `log_prior` added; without, the prior alone.
      log_prior: (x) -> [channels]; equal shares unless given.
      divergence: the loss.

    Raises:
      ValueError: for a flow without `sample_and_log_prob`, an unknown divergence, a mapping
        without a log-determinant, or shares of a single channel.
    """
    check_known(get_args(Divergence), divergence=divergence)
    if flow.sample_and_log_prob is None or flow.log_prob is None:
        raise ValueError("importance sampling needs a model with a sample_and_log_prob, as flow is")
    maps, num = tuple(mappings), max(1, len(mappings))
    if not all(m.has_log_det for m in maps):
        raise ValueError("a channel's mapping needs a log-determinant, which one of them has not")
    if num == 1 and (network is not None or log_prior is not None):
        raise ValueError("shares are for two channels or more: give a mapping for each")
    network = None if network is None else as_network(network)

    def init(key) -> Params:
        key_flow, key_shares = jax.random.split(key)
        shares = {} if network is None else {"shares": network.init(key_shares)}
        return {"flow": jax.vmap(flow.init)(jax.random.split(key_flow, num))} | shares

    def log_shares(params, x) -> Float[Array, " num"]:
        logits = jnp.zeros(num) if log_prior is None else log_prior(x)
        if network is not None:
            logits = logits + network.apply(params["shares"], x, None)
        return jax.nn.log_softmax(logits)

    def measured(channel, params, u, log_q) -> Points:
        x, log_det = maps[channel].inverse(u, None) if maps else (u, jnp.zeros(()))
        value = integrand(x)
        # Zero stays so where a map's derivative is infinite.
        value = jnp.where(value == 0, 0, value * jnp.exp(log_det))
        return Points(u, x, value, log_q, log_shares(params, x)[channel])

    def point(channel, params, key, cond=None) -> Points:
        own = jax.tree.map(lambda p: p[channel], params["flow"])
        return measured(channel, params, *flow.sample_and_log_prob(own, key, None))

    def sample(params, key, cond=None):
        key_channel, key_point = jax.random.split(key)
        branches = [lambda p, k, c=c: point(c, p, k).x for c in range(num)]
        channel = jax.random.randint(key_channel, (), 0, num)
        return jax.lax.switch(channel, branches, params, key_point)

    loss = _loss(flow, num, measured, log_shares, _LOSSES[divergence])
    points = tuple(_of_channel(point, channel) for channel in range(num))
    return ImportanceSampler(GenerativeModel(init, loss, sample), points)


def _loss(flow, num, measured, log_shares, divergence):
    """The loss of a model, of events that are drawn or are in the batch, [n, channels] both."""

    def drawn(params, key, size) -> Points:
        keys = jax.random.split(key, (num, size))
        one = jax.vmap(flow.sample_and_log_prob, (None, 0, None))
        u, log_q = jax.vmap(one, (0, 0, None))(params["flow"], keys, None)
        each = jax.vmap(measured, (None, None, 0, 0))
        columns = [each(c, params, u[c], log_q[c]) for c in range(num)]
        return jax.tree.map(lambda *c: jnp.stack(c, 1), *columns)

    def loss(params, key, batch):
        key_points, key_density = jax.random.split(key)
        made = batch.x is None
        fixed = jax.lax.stop_gradient(params)
        points = drawn(fixed, key_points, num_events(batch)) if made else batch.x
        points = jax.lax.stop_gradient(points)
        density = jax.vmap(flow.log_prob, (None, None, 0, None))
        density = jax.vmap(density, (0, None, 1, None), 1)
        log_q = density(params["flow"], key_density, points.u, None)
        old = jax.lax.stop_gradient(log_q) if made else points.log_q
        shares = jax.vmap(jax.vmap(log_shares, (None, 0)), (None, 0))(params, points.x)
        log_share = jnp.diagonal(shares, axis1=1, axis2=2)
        return divergence(points.value, log_share, log_q, old)

    return loss


def _of_channel(point, channel):
    return lambda params, key, cond=None: point(channel, params, key, cond)


def _variance(value, log_share, log_q, log_old):
    """(sum_i sd_i)^2 of [n, channels] in units of the integral."""
    w = _scaled(value * jnp.exp(log_share - log_old))[0]
    variance = jnp.mean(w**2 * jnp.exp(log_old - log_q), 0) - jnp.mean(w, 0) ** 2
    # The root has no derivative at zero, and of old events the variance may come out negative.
    return jnp.sum(jnp.sqrt(jnp.maximum(variance, 1e-12))) ** 2


def _kl(value, log_share, log_q, log_old):
    """KL(|f| shares || channels with their best numbers of points), [n, channels]."""
    w, scale = _scaled(jnp.abs(value) * jnp.exp(log_share - log_old))
    log_value = jnp.log(jnp.where(value == 0, 1, jnp.abs(value)))
    terms = jnp.where(value == 0, 0, w * (log_value + log_share - log_q - jnp.log(scale)))
    part = jnp.mean(w, 0)
    # What the shares of the channels' numbers of points say; a channel may have none.
    entropy = jnp.sum(part * jnp.log(jnp.where(part > 0, part, 1)))
    return jnp.sum(jnp.mean(terms, 0)) - entropy


_LOSSES = {"variance": _variance, "kl": _kl}


def _scaled(w):
    """Weights [n, channels] in units of their integral, soft where they are large, and that."""
    scale = jax.lax.stop_gradient(jnp.sum(jnp.mean(jnp.abs(w), 0)))
    scale = jnp.where(scale > 0, scale, 1)
    return _SOFT * jnp.arcsinh(w / scale / _SOFT), scale


def external(function: Callable[[np.ndarray], np.ndarray]) -> Integrand:
    """An integrand of code that is none of JAX, called on the host with many events at once.

    Args:
      function: events [n, d] in single precision -> values [n].

    Raises:
      ValueError: when it is called, if it does not return one real number an event; out of compiled
        programs JAX raises an error of its own with that sentence in it.
    """

    def batch(x):
        x = np.asarray(x)
        rows = x.reshape(-1, x.shape[-1])
        values = np.asarray(function(rows))
        if values.shape != (len(rows),) or values.dtype.kind not in "fiub":
            raise ValueError(
                f"an external integrand returns one real number for each of {len(rows)} events, "
                f"got {values.dtype} of the shape {values.shape}"
            )
        return values.reshape(x.shape[:-1]).astype(x.dtype)

    def integrand(x: Float[Array, " d"]) -> Float[Array, ""]:
        result = jax.ShapeDtypeStruct((), x.dtype)
        return jax.pure_callback(batch, result, x, vmap_method="expand_dims")

    return integrand


def draw_points(
    sampler: ImportanceSampler,
    params: Params,
    key: Key,
    num: int | Sequence[int],
    *,
    batch_size: int = 10_000,
) -> tuple[Points, ...]:
    """Points of all channels, [num] or as many as `num` says for each of them.

    Args:
      sampler: what makes them.
      params: of one member.
      key: typed PRNG key.
      num: points of each channel; see `best_numbers`.
      batch_size: points at once.

    Raises:
      ValueError: as `draw`, or for another number of channels.
    """
    channels = len(sampler.points)
    nums = list(num) if isinstance(num, Sequence) else [num] * channels
    if len(nums) != channels:
        raise ValueError(f"num must be one number or one for each of {channels} channels")
    return tuple(
        draw(point, params, stream(key, f"channel {c}"), n, batch_size=batch_size)
        for c, (point, n) in enumerate(zip(sampler.points, nums, strict=True))
    )


def buffered(points: Sequence[Points]) -> Batch:
    """Points as training data, which are used again at no evaluation of the integrand.

    `fit(sampler.model, buffered(points), ...)` trains flows and shares on events of an earlier
    flow, by the densities that they were drawn with.

    Raises:
      ValueError: unless there are as many points of each channel.
    """
    lengths = {len(p.value) for p in points}
    if len(lengths) != 1:
        raise ValueError(f"a buffer needs as many points of each channel, got {sorted(lengths)}")
    return Batch(jax.tree.map(lambda *c: np.stack(c, 1), *points))


def fit_buffered(
    sampler: ImportanceSampler,
    key: Key,
    config: TrainConfig,
    *,
    rounds: int,
    num: int,
    progress: bool = True,
) -> Params:
    """Train with few values of the integrand: rounds of drawing points and many steps on them.

    `rounds * num` values for each channel in all, whatever the number of steps, where training
    without a buffer takes `config.steps * config.batch_size`. The points of all rounds so far are
    used. Each round compiles its step anew, so this is for integrands that cost more than seconds.

    Args:
      sampler: what is trained.
      key: typed PRNG key.
      config: of the whole training; one member.
      rounds: that its steps are divided into.
      num: points of each channel in a round.
      progress: show a bar.

    Returns:
      The parameters.

    Raises:
      ValueError: for several members, or fewer steps than rounds.
    """
    check_whole(rounds=rounds, num=num)
    if config.ensemble != 1 or config.steps < rounds:
        raise ValueError(
            "a buffered training has one member and a step a round or more, got "
            f"{config.ensemble} and {config.steps} steps in {rounds} rounds"
        )
    optimizer = make_optimizer(config.optimizer, config.steps)
    params, state, data = sampler.model.init(stream(key, "init")), None, None
    for i in range(rounds):
        points = draw_points(sampler, params, stream(key, f"points {i}"), num)
        new = buffered(points)
        join = lambda old, new: np.concatenate([old, new])
        data = new if data is None else jax.tree.map(join, data, new)
        part = dataclasses.replace(config, steps=math.ceil((i + 1) * config.steps / rounds))
        start = params if state is None else state
        fitted = fit(
            sampler.model,
            data,
            stream(key, "steps"),
            part,
            initial=start,
            optimizer=optimizer,
            progress=progress,
        )
        params, state = fitted.one, fitted.state
    return params
