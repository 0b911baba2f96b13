"""Bayesian networks by variational inference: the weights of a model become a distribution."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.checks import check_not_negative, check_positive, check_whole
from jgen.generative_model import Batch, GenerativeModel, loss_at, num_events
from jgen.nets.dense import NormalWeights
from jgen.random import normal
from jgen.typing import Key, Params, PyTree


@dataclass(frozen=True)
class BayesianConfig:
    """Options of `bayesian`, for configurations."""

    prior_scale: float = 1.0
    """Bayesian: standard deviation of every weight before training."""
    initial_scale: float = 0.003
    """Bayesian: standard deviation of every weight when training starts. In a short training it
    ends near there, so that it, not the data, sets the spread: the number to calibrate."""
    temperature: float = 1.0
    """Bayesian: weight of the KL divergence; 1 is Bayes' theorem."""

    def make(
        self,
        model: GenerativeModel,
        num_train: int,
        *,
        features: int | None = None,
        which: Callable[[str, Array], bool] = lambda path, leaf: True,
    ) -> GenerativeModel:
        """The Bayesian model.

        Args:
          model: what to make Bayesian.
          num_train: events of the training set.
          features: of an event, if the loss is a squared error averaged over so many, as that of
            flow matching is. It is then twice the negative logarithm of a normal density of width
            one over their number, and the KL divergence is put into the same unit.
          which: as `bayesian` takes it.
        """
        temperature = self.temperature * 2 / features if features else self.temperature
        return bayesian(
            model,
            num_train=num_train,
            prior_scale=self.prior_scale,
            initial_scale=self.initial_scale,
            temperature=temperature,
            which=which,
        )


def bayesian(
    model: GenerativeModel,
    *,
    num_train: int,
    prior_scale: float = 1.0,
    temperature: float = 1.0,
    initial_scale: float = 0.01,
    local: bool = False,
    which: Callable[[str, Array], bool] = lambda path, leaf: True,
) -> GenerativeModel:
    """Approximate the posterior of the weights by independent normal distributions q.

    The ansatz p(theta | D_train) ~ q(theta) of 2509.08048, Eq. 13, is trained by minimising

        loss = < model.loss(theta, batch) >_{theta ~ q} + temperature KL(q || prior) / num_train

    with the prior N(0, prior_scale^2) and its KL divergence in closed form. The expectation is
    taken with one draw of the weights a minibatch (1505.05424): the gradient is unbiased, but the
    noise of that draw does not shrink with the batch size. With `local`, every event has its own
    draw, and the same expectation a gradient whose noise does shrink. Dense layers that see one
    row an event draw their outputs for it (local reparameterisation, 1506.02557), which costs a
    second matrix product. Layers over tokens draw the weights anew for every event, since tokens
    share them (outputs drawn token by token would be independent, another model); so do biases and
    everything else that is no kernel of a `jgen.nets.dense.Dense`. That takes memory for a batch
    of such weights: choose few with `which`. A layer that an event calls twice with single rows
    has the right distribution in either call, but not jointly: exact for losses that are sums over
    the calls (and under `jax.vmap` within an event), not for a recurrence.

    What the loss is worth: if `model.loss` is the mean of -log p(x | theta), then for temperature
    1 num_train times the loss is the negative evidence lower bound. A temperature T leads to the
    posterior of likelihood^(1/T), as if there were num_train / T events; as T goes to zero the
    means maximise the likelihood and the scales shrink to nothing. If `model.loss` is a surrogate
    of the likelihood (flow matching regresses a velocity, moreover averaged over features), its
    units are not nats, no exact weight of the KL exists, and 1 / num_train is a choice: the usual
    one, whose scales are only as good as their calibration (see `jgen.metrics.calibration`).
    2408.00838 tunes such a factor.

    Independent weights ignore correlations: for a normal posterior of precision matrix P the means
    are exact and the scales are P_ii^(-1/2), at most the width of the exact marginals.

    Decay of the weights in the optimiser would count the prior twice and pull the logarithms of
    the scales to zero; train without.

    Deviations from the Bayesian layers of 2412.12074: all scales start equal, not with a jitter,
    and their logarithms are not clamped; `which` decides whether biases have a distribution.

    Args:
      model: what to make Bayesian.
      num_train: number of events in the training set (not in a minibatch).
      prior_scale: standard deviation of every chosen weight before training.
      temperature: weight of the KL divergence; 1 is Bayes' theorem, 0 leaves the KL out.
      initial_scale: standard deviation of every chosen weight when training starts.
      local: draw weights for every event instead of every minibatch. `model.loss` has to be the
        mean over the batch of a one-event loss, since it is called for every event alone.
      which: (path, leaf) -> whether that array of weights has a distribution; the others stay
        point estimates without a prior. Paths are like "Dense_2/kernel"; of the leaf only shape
        and dtype are known. `lambda path, leaf: path.startswith("Dense_2/")` makes one layer
        Bayesian.

    Returns:
      A model with parameters {"mean": parameters of `model`, "log_scale": {path: logarithm of the
      standard deviations}}. Its `sample` draws weights and then an event, so that many events
      follow the posterior predictive distribution; for data sets that share one draw see
      `draw_weights`. Its `log_prob` is that of one draw of the weights: over keys the mean of
      exp(log_prob) is the predictive density, and the mean of log_prob lies below its logarithm.

    Raises:
      ValueError: for numbers out of range; on `init`, if `which` chooses nothing or weights that
        are not floating-point numbers, or two of them have the same path, or if `local` finds no
        kernel of a dense layer among them; on `loss`, if `local` meets a kernel that the model
        uses by itself.
    """
    check_whole(num_train=num_train)
    check_positive(prior_scale=prior_scale, initial_scale=initial_scale)
    check_not_negative(temperature=temperature)

    def init(key):
        mean = model.init(key)
        chosen = {path: leaf for path, leaf in _by_path(mean).items() if which(path, leaf)}
        _check_chosen(chosen, mean)
        if local and not any(_is_kernel(path, leaf) for path, leaf in chosen.items()):
            raise ValueError(
                "local=True needs kernels of dense layers (jgen.nets.dense.Dense) among the "
                f"weights that have a distribution, which are {sorted(chosen)}; use local=False"
            )
        log_scale = {p: jnp.full_like(leaf, math.log(initial_scale)) for p, leaf in chosen.items()}
        return {"mean": mean, "log_scale": log_scale}

    def loss(params, key, batch, progress=1.0):
        if local:
            data = _loss_by_event(model, params, key, batch, progress)
        else:
            key_weights, key = jax.random.split(key)
            data = loss_at(model, draw_weights(params, key_weights), key, batch, progress)
        return data + temperature / num_train * _kl_divergence(params, prior_scale)

    def sample(params, key, cond=None):
        key_weights, key = jax.random.split(key)
        return model.sample(draw_weights(params, key_weights), key, cond)

    def log_prob(params, key, x, cond=None):
        key_weights, key = jax.random.split(key)
        return model.log_prob(draw_weights(params, key_weights), key, x, cond)

    def both(params, key, cond=None):
        key_weights, key = jax.random.split(key)
        return model.sample_and_log_prob(draw_weights(params, key_weights), key, cond)

    made = GenerativeModel(
        init,
        loss,
        sample,
        log_prob if model.log_prob else None,
        both if model.sample_and_log_prob else None,
    )
    return made._replace(**_from_noise(model, init)) if model.noise else made


def _from_noise(model: GenerativeModel, init: Callable[[Key], Params]) -> dict[str, Callable]:
    """Noise of a Bayesian model, that of its weights and of the event, and what it makes of it."""

    def noise(key, cond=None):
        key_weights, key = jax.random.split(key)
        shapes = jax.eval_shape(init, key)
        mean, keys = _by_path(shapes["mean"]), _keys(shapes["log_scale"], key_weights)
        weights = {p: normal(k, mean[p].shape, mean[p].dtype) for p, k in keys.items()}
        return {"weights": weights, "event": model.noise(key, cond)}

    def sample_from(params, noise, cond=None):
        def one(path, mean):
            if (name := _name(path)) not in params["log_scale"]:
                return mean
            return mean + jnp.exp(params["log_scale"][name]) * noise["weights"][name]

        weights = jax.tree_util.tree_map_with_path(one, params["mean"])
        return model.sample_from(weights, noise["event"], cond)

    return {"noise": noise, "sample_from": sample_from}


def draw_weights(params: Params, key: Key) -> Params:
    """One draw theta ~ q: parameters of the model that was made `bayesian`.

    For data sets that share their weights (2509.08048, Eq. 14), as spreads over the posterior
    need them. Mapped over keys it gives stacked members, like those of an ensemble:

        members = jax.vmap(draw_weights, in_axes=(None, 0))(params, jax.random.split(key, 50))
        events = draw(model, member(members, i), key, num)  # `model` without `bayesian`

    Args:
      params: of the Bayesian model, {"mean", "log_scale"}, of one ensemble member.
      key: typed PRNG key.
    """
    return _with_weights(params, key, lambda path, weights: weights.draw())


def _with_weights(params: Params, key: Key, make: Callable[[str, NormalWeights], PyTree]) -> Params:
    """Parameters of the inner model: `make` where there is a distribution, else the mean."""
    log_scale = params["log_scale"]
    keys = _keys(log_scale, key)

    def one(path, mean):
        if path not in log_scale:
            return mean
        return make(path, NormalWeights(mean, jnp.exp(log_scale[path]), keys[path]))

    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: one(_name(path), leaf), params["mean"]
    )


def _keys(log_scale: dict[str, Any], key: Key) -> dict[str, Key]:
    """A key for each array of weights that has a distribution."""
    return dict(zip(sorted(log_scale), jax.random.split(key, len(log_scale)), strict=True))


def _loss_by_event(
    model: GenerativeModel, params: Params, key: Key, batch: Batch, progress: float | Array
) -> Float[Array, ""]:
    """Mean of the losses of single events, each with its own weights; dense kernels undrawn."""

    def make(path, weights):
        return weights if _is_kernel(path, weights.mean) else weights.draw()

    def single(key, event):
        key_weights, key = jax.random.split(key)
        alone = jax.tree.map(lambda a: a[None], event)
        return loss_at(model, _with_weights(params, key_weights, make), key, alone, progress)

    return jnp.mean(jax.vmap(single)(jax.random.split(key, num_events(batch)), batch))


def _is_kernel(path: str, leaf: Array) -> bool:
    """Whether weights look like the kernel of a dense layer."""
    return path.split("/")[-1] == "kernel" and leaf.ndim == 2


def _kl_divergence(params: Params, prior_scale: float) -> Float[Array, ""]:
    """KL(q || prior) in nats, summed over all weights that have a distribution."""
    mean = _by_path(params["mean"])

    def one(path, log_scale):
        # With r = scale / prior_scale and m = mean / prior_scale: (r^2 + m^2 - 1) / 2 - log r.
        log_ratio = log_scale - math.log(prior_scale)
        square = jnp.exp(2 * log_ratio) + (mean[path] / prior_scale) ** 2
        return jnp.sum((square - 1) / 2 - log_ratio)

    return sum(one(path, log_scale) for path, log_scale in params["log_scale"].items())


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _by_path(params: Params) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


def _check_chosen(chosen: dict[str, Array], mean: PyTree) -> None:
    paths = _by_path(mean)
    if len(paths) != len(jax.tree.leaves(mean)):
        raise ValueError(f"two weights have the same path among {sorted(paths)}: rename one")
    if not chosen:
        raise ValueError(
            f"`which` chose none of the weights {sorted(paths)}, but a Bayesian model needs one"
        )
    bad = sorted(p for p, leaf in chosen.items() if not jnp.issubdtype(leaf.dtype, jnp.floating))
    if bad:
        raise ValueError(f"{bad} are not floating-point numbers: leave them out with `which`")
