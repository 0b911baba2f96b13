"""Models of a Gaussian path from noise to data: diffusion (2006.11239, 2011.13456), EDM and more.

Whatever a network predicts, it can be trained on any path and sampled by any sampler, and models
that differ in the sampler alone share their parameters. Flow matching is the case of a network that
predicts the velocity. EDM (2206.00364) is

    path = edm()
    diffusion(
        preconditioned(network, path, data_std),
        shape,
        path=path,
        prediction="data",
        weighting=preconditioned_weighting(path, data_std),
        times=log_normal_times(path),
        sampler=Denoised(EDMHeun(17)),
    )

and classifier-free guidance trains `with_unconditional(model, null)` and samples with
`guided(network, null, weight)` in the place of the network.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.checks import (
    check_finite,
    check_known,
    check_open_fraction,
    check_positive,
    check_shape,
    check_sizes,
)
from jgen.couplings import Coupling, paired
from jgen.generative_model import GenerativeModel, loss_at, mean_loss, num_events
from jgen.models.parts import applied, check_prediction_network
from jgen.nets.network import Network, NetworkLike, as_network
from jgen.paths import (
    Path,
    Prediction,
    check_ends,
    check_prediction,
    convert,
    interpolate,
    on_unit_interval,
    time_of_noise,
    variance_preserving,
)
from jgen.random import normal
from jgen.sets import SetCondition, event_mean, event_size, masked
from jgen.solvers import (
    DDIM,
    RungeKutta,
    Sampler,
    check_sampler,
    log_likelihood,
    normal_log_prob,
    run_sampler,
    runge_kutta,
    step_posterior,
    time_grid,
)
from jgen.solvers.likelihood import Divergence
from jgen.solvers.sampler import check_steps
from jgen.typing import Cond, Key


def diffusion(
    network: NetworkLike,
    shape: int | tuple[int, ...],
    *,
    path: Path | None = None,
    prediction: Prediction = "noise",
    weighting: Callable[[Array], Array] | None = None,
    times: Callable[[Key], Array] | None = None,
    coupling: Coupling | None = None,
    sampler: Sampler | None = None,
    likelihood_solver: RungeKutta | None = None,
    divergence: Divergence = "exact",
    num_probes: int = 1,
) -> GenerativeModel:
    """A network that predicts one of the five things of `jgen.paths`, for events of one `shape`.

    The sampler is only used to sample: models built with different ones share their parameters.
    `log_prob` is that of the probability-flow ODE (2011.13456, Sec. 4.3) for events that still
    carry the noise of the path's t_max; `variational_bound` is the other one.

    Args:
      network: apply(params, t, x, cond) -> prediction, an array of x's shape.
      shape: of one event.
      path: `variance_preserving()` unless given.
      prediction: what the network predicts.
      weighting: t -> factor on the squared error of the prediction. Unless given it is 1, and
        sigma(t)^2 for the score, which makes it the error of the noise (2011.13456, Eq. 7).
      times: key -> t in training, uniform on the path's interval unless given.
      coupling: of noise and data, see `jgen.couplings`; they are independent unless given.
      sampler: one of `jgen.solvers` or your own, see `jgen.solvers.Sampler`; DDIM with 50 steps
        unless given.
      likelihood_solver: for `log_prob`; default is `sampler` where that is a Runge-Kutta method,
        else midpoint with 50 steps.
      divergence: "exact" or "hutchinson"; with the latter `log_prob` is random in its key.
      num_probes: of the Hutchinson estimate.

    Raises:
      ValueError: for an unknown prediction, or one that is singular at an end of the path.
      TypeError: for a sampler that is none.
    """
    network, shape = as_network(network), check_shape(shape)
    check_sizes(num_probes=num_probes)
    check_prediction_network(network, shape)
    check_known(Divergence, divergence=divergence)
    path = variance_preserving() if path is None else path
    check_prediction(path, prediction)
    sampler = DDIM(50) if sampler is None else sampler
    check_sampler(sampler)
    if likelihood_solver is None:
        is_rk = isinstance(sampler, RungeKutta)
        likelihood_solver = sampler if is_rk else runge_kutta("midpoint", 50)
    if times is None:
        times = lambda key: jax.random.uniform(key, minval=path.t_min, maxval=path.t_max)
    if weighting is None and prediction == "score":
        weighting = lambda t: path.sigma(t) ** 2

    def loss(params, key, batch):
        if coupling is not None:
            key, key_pairs = jax.random.split(key)
            batch = paired(coupling, key_pairs, batch)

        def single(key, event, cond):
            key_t, key_x = jax.random.split(key)
            t = times(key_t)
            x0, x1 = (normal(key_x, event.shape, event.dtype), event) if coupling is None else event
            x, target = interpolate(path, t, masked(x0, cond), masked(x1, cond), prediction)
            error = event_mean((applied(network, params, t, x, cond) - target) ** 2, cond)
            return error if weighting is None else weighting(t) * error

        return mean_loss(single, key, batch)

    def log_prob(params, key, x, cond=None):
        predict = predictor(network, path, prediction, params, cond)
        return log_likelihood(
            on_unit_interval(path, lambda t, x: predict(t, x, "velocity")),
            x,
            lambda x0: base_log_prob(path, x0, cond),
            likelihood_solver,
            divergence=divergence,
            key=key,
            num_probes=num_probes,
        )

    sampling = _sampling(network, path, prediction, sampler, shape)
    return GenerativeModel(network.init, loss, log_prob=log_prob, **sampling)


def _sampling(network, path, prediction, sampler, shape) -> dict[str, Callable]:
    """The functions of the model that make events."""

    def sample(params, key, cond=None):
        key_x, key_sampler = jax.random.split(key)
        predict = predictor(network, path, prediction, params, cond)
        x0 = path.base_std * normal(key_x, shape)
        return masked(run_sampler(sampler, key_sampler, path, predict, x0), cond)

    def noise(key, cond=None):
        key_x, key_sampler = jax.random.split(key)
        return {"start": normal(key_x, shape), "steps": sampler.noise(key_sampler, shape)}

    def sample_from(params, noise, cond=None):
        predict = predictor(network, path, prediction, params, cond)
        x0 = path.base_std * noise["start"]
        return masked(sampler.sample(path, predict, x0, noise["steps"]), cond)

    return {"sample": sample, "noise": noise, "sample_from": sample_from}


def predictor(
    network: Network, path: Path, prediction: Prediction, params, cond: Cond
) -> Callable[[Array, Array, Prediction], Array]:
    """(t, x_t, kind) -> any prediction of a network that predicts `prediction`."""

    def predict(t, x, kind):
        x = masked(x, cond)
        return convert(path, t, x, applied(network, params, t, x, cond), prediction, kind)

    return predict


def base_log_prob(path: Path, x0: Float[Array, "*x"], cond: Cond = None) -> Float[Array, ""]:
    """Log-density of the normal distribution that sampling starts from, over an event's points."""
    size = event_size(x0, cond)
    # Zeros count as log-densities at the mode, which are taken out again.
    total = normal_log_prob(masked(x0, cond) / path.base_std)
    total += 0.5 * jnp.log(2 * jnp.pi) * (x0.size - size)
    return total - size * jnp.log(path.base_std)


def preconditioned(network: NetworkLike, path: Path, data_std: float) -> Network:
    """A network F as the data prediction c_skip x + c_out F(c_in x) (2206.00364, Eq. 7, Table 1).

    F sees inputs of unit variance and, under `preconditioned_weighting`, is trained on targets of
    unit variance. On a path with any alpha the variance of x_t is alpha^2 data_std^2 + sigma^2, and

        c_in = 1 / std(x_t),  c_skip = alpha data_std^2 c_in^2,  c_out = sigma data_std c_in.

    For alpha = 1 these are the paper's. F gets the time t of the path, in the place of the paper's
    c_noise = log(sigma) / 4.

    Args:
      network: F, apply(params, t, x, cond) -> array of x's shape.
      path: the path.
      data_std: standard deviation of the data.

    Raises:
      ValueError: if `data_std` is not positive.
    """
    check_positive(data_std=data_std)
    network = as_network(network)

    def apply(params, t, x, cond):
        alpha, sigma = path.alpha(t), path.sigma(t)
        c_in = 1 / jnp.sqrt((alpha * data_std) ** 2 + sigma**2)
        rest = network.apply(params, t, c_in * x, cond)
        return alpha * (data_std * c_in) ** 2 * x + sigma * data_std * c_in * rest

    return Network(network.init, apply, network.num_cond)


def preconditioned_weighting(path: Path, data_std: float) -> Callable[[Array], Array]:
    """1 / c_out^2, under which the data error of `preconditioned` is that of F (2206.00364)."""
    check_positive(data_std=data_std)
    return lambda t: (path.alpha(t) / path.sigma(t)) ** 2 + data_std**-2


def log_normal_times(
    path: Path, mean: float = -1.2, std: float = 1.2
) -> Callable[[Key], Float[Array, ""]]:
    """Times at which log(sigma / alpha) is normal (2206.00364, Table 1), within the path's ends.

    Args:
      path: the path, sigma / alpha falling.
      mean: of log(sigma / alpha), P_mean in the paper.
      std: P_std.
    """
    check_finite(mean=mean)
    check_positive(std=std)
    return lambda key: time_of_noise(path, jnp.exp(mean + std * jax.random.normal(key)))


def with_unconditional(
    model: GenerativeModel, null: Cond, probability: float = 0.1
) -> GenerativeModel:
    """Train on events without their condition, too (2207.12598, Algorithm 1).

    In each batch, the condition of an event becomes `null` with this probability. Sampling and
    `log_prob` are the model's; a null condition gives those of the unconditional one.

    Args:
      model: a conditional model.
      null: what stands for no condition, of one event's structure and shapes. Of a `SetCondition`
        the number of points does not matter: an event keeps its own.
      probability: of losing the condition.

    Raises:
      ValueError: if the probability is not between 0 and 1; in training, if `null` does not look
        like a condition.
    """
    check_open_fraction(probability=probability)

    def loss(params, key, batch, progress=1.0):
        shapes = lambda tree: jax.tree.map(jnp.shape, tree)
        one = shapes(jax.tree.map(lambda c: c[0], batch.cond))
        if batch.cond is None or one != shapes(null):
            raise ValueError(
                f"null must have the shapes of the condition of one event, got {shapes(null)} for "
                f"{one}"
            )
        key_drop, key_loss = jax.random.split(key)
        dropped = jax.random.bernoulli(key_drop, probability, (num_events(batch),))
        pick = lambda d: lambda n, c: jnp.where(d, n, c)
        replace = lambda d, cond: jax.tree.map(pick(d), _null_of(null, cond), cond)
        cond = jax.vmap(replace)(dropped, batch.cond)
        return loss_at(model, params, key_loss, batch._replace(cond=cond), progress)

    return model._replace(loss=loss)


def guided(network: NetworkLike, null: Cond, weight: float | Float[Array, ""]) -> Network:
    """Classifier-free guidance: (1 + w) prediction(cond) - w prediction(null) (2207.12598, Eq. 6).

    Works for every kind of prediction, because they are linear in one another and the two weights
    add up to one. A call costs two of the network.

    Args:
      network: trained by `with_unconditional`.
      null: the condition that stands for none.
      weight: w; 0 is the conditional model, -1 the unconditional one.
    """
    check_finite(weight=weight)
    network = as_network(network)

    def apply(params, t, x, cond):
        conditional = network.apply(params, t, x, cond)
        free = network.apply(params, t, x, _null_of(null, cond))
        return conditional + weight * (conditional - free)

    return Network(network.init, apply, network.num_cond)


def _null_of(null: Cond, cond: Cond) -> Cond:
    """What stands for no condition of an event; a set keeps its number of points."""
    return null._replace(n=cond.n) if isinstance(null, SetCondition) else null


def variational_bound(
    network: NetworkLike, *, path: Path, prediction: Prediction, steps: int
) -> Callable[..., Float[Array, ""]]:
    """Lower bound on log p of the chain of `Ancestral(steps)` and a last normal step to x1.

    Steps that are equal in t are coarse near the data, so that few of them make a loose bound
    whatever the network: take hundreds or more.

    The bound of DDPM (2006.11239, Eq. 5): with x_k at the nodes of the sampler, from the noise on,

        log p(x1) >= E[ log p(x1 | x_K) - sum_k KL(q(x_{k+1} | x_k, x1) | p(x_{k+1} | x_k)) ]
                     - KL(q(x_0 | x1) | base),

    where each KL is (SNR_{k+1} - SNR_k) |x1 - prediction of it|^2 / 2, SNR = alpha^2 / sigma^2
    (2107.00630, Eq. 14). The data being continuous, p(x1 | x_K) is the normal distribution around
    x_K / alpha with width sigma / alpha, in place of DDPM's discrete decoder.

    Args:
      network: apply(params, t, x, cond) -> prediction.
      path: the path; it needs sigma > 0 at t_max.
      prediction: what the network predicts.
      steps: K.

    Returns:
      A function as `GenerativeModel.log_prob`, (params, key, x, cond) -> scalar in nats, an
      unbiased estimate of the bound with one noise vector for each of the K steps.

    Raises:
      ValueError: for no steps, or a path whose alpha or sigma vanishes where it must not.
    """
    check_steps(steps)
    network = as_network(network)
    check_ends(path, alpha=prediction in ("noise", "score"), sigma=True)
    times = time_grid(path, steps)

    def bound(params, key, x, cond=None):
        if isinstance(cond, SetCondition):
            raise ValueError("the bound is not there for sets of points; use log_prob")
        predict = predictor(network, path, prediction, params, cond)

        def divergence(total, inputs):
            i, t, s = inputs
            noise = normal(jax.random.fold_in(key, i), x.shape, x.dtype)
            x_t, _ = interpolate(path, t, noise, x)
            mean, std = step_posterior(path, t, s, x_t, x)
            predicted, _ = step_posterior(path, t, s, x_t, predict(t, x_t, "data"))
            return total + 0.5 * jnp.sum(((mean - predicted) / std) ** 2), None

        zero = jnp.zeros((), x.dtype)
        inputs = (jnp.arange(steps), times[:-1], times[1:])
        divergences, _ = jax.lax.scan(divergence, zero, inputs)
        # The base is N(0, b^2), x_0 is N(alpha x1, sigma^2).
        ratio = path.sigma(times[0]) / path.base_std
        mean = path.alpha(times[0]) * x / path.base_std
        prior = 0.5 * (jnp.sum(mean**2) + x.size * (ratio**2 - 1 - 2 * jnp.log(ratio)))
        width = path.sigma(times[-1]) / path.alpha(times[-1])
        decoder = -x.size * (0.5 * jnp.log(2 * jnp.pi) + 0.5 + jnp.log(width))
        return decoder - divergences - prior

    return bound
