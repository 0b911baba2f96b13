"""The ratio of two densities as a pure function of weights, for methods that iterate.

`cross_fitted_log_ratio` and `trained_classifier` are trained on the host until an epoch is the best
one. Here all is one program of fixed length, so that ensembles of whole methods, each member with
its own weights, run side by side under `jax.vmap`.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.checks import check_positive, check_whole, check_widths
from jgen.nets import MLP, from_linen
from jgen.random import stream
from jgen.training import OptimizerConfig, gradient_step, initial_state, make_optimizer
from jgen.typing import Key


@dataclass(frozen=True)
class RatioConfig:
    """Network and training of a ratio."""

    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers."""
    steps: int = 500
    """Steps of Adam; the learning rate falls to zero along a cosine."""
    batch_size: int = 1000
    """Events a step."""
    learning_rate: float = 5e-3
    """At the start."""
    folds: int = 2
    """Parts of the events, each scored by a network that was trained on the others; 1 scores
    events by the network that was trained on them, as is published for OmniFold."""

    def check(self) -> None:
        """Raise a ValueError for numbers out of range."""
        check_widths(hidden=self.hidden)
        check_whole(steps=self.steps, batch_size=self.batch_size, folds=self.folds)
        check_positive(learning_rate=self.learning_rate)


def weighted_log_ratio(
    key: Key,
    x: Float[Array, "n d"],
    numerator: Float[Array, " n"],
    denominator: Float[Array, " n"],
    config: RatioConfig,
) -> Float[Array, " n"]:
    """log(p / q) in nats at every x, for the density p of the numerator's weights, q of the other.

    Both are normalised, so the ratio is that of shapes, and its mean over q is one. Events may have
    both weights: where numerator = w d, the ratio is the mean of w at x over the mean of w. By the
    cross-entropy, whose minimum is there (1907.08209; 1911.09107 for OmniFold).

    A pure function; jit it with `config` static.

    Args:
      key: of the start, the folds and the minibatches.
      x: all events, those of p and q together; scaled inside by their weighted means and spreads.
      numerator: weights of p, zero for events of q alone.
      denominator: weights of q.
      config: network and training.
    """
    num, folds = len(x), config.folds
    numerator, denominator = (w * num / jnp.sum(w) for w in (numerator, denominator))
    x = _standardised(x, numerator + denominator)
    network = from_linen(
        MLP(config.hidden, 1, zero_output=True), jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    )
    logits = jax.vmap(lambda params, x: network.apply(params, x)[0], (None, 0))
    adam = make_optimizer(OptimizerConfig(config.learning_rate), config.steps)

    def loss(params, key, rows):
        f = logits(params, x[rows])
        return jnp.mean(
            numerator[rows] * jax.nn.softplus(-f) + denominator[rows] * jax.nn.softplus(f)
        )

    step = gradient_step(loss, adam)
    size = -(-num // folds)
    order = jax.random.permutation(stream(key, "folds"), num)

    def score(fold):
        """Rows of a fold and their scores by a network that was trained on the others."""
        own = jax.random.fold_in(stream(key, "training"), fold)
        left_out = jnp.minimum(size, num - fold * size) * (folds > 1)

        def one(state, key):
            drawn = jax.random.randint(key, (config.batch_size,), 0, num - left_out)
            drawn = jnp.where(drawn < fold * size, drawn, drawn + left_out)
            return step(state, key, order[drawn])[0], None

        state = initial_state(network.init(own), adam)
        keys = jax.random.split(stream(own, "rows"), config.steps)
        params = jax.lax.scan(one, state, keys)[0].params
        # The last fold may be smaller: it repeats its last row.
        rows = order[jnp.minimum(fold * size + jnp.arange(size), num - 1)]
        values = logits(params, x[rows])
        # The ratio's mean over the denominator is one, exactly for the true ratio.
        return rows, values - _log_mean(values, denominator[rows])

    rows, values = jax.lax.map(score, jnp.arange(folds))
    return jnp.zeros(num, x.dtype).at[rows.ravel()].set(values.ravel())


def _standardised(x, weight):
    """Columns of mean zero and width one, those that are constant without change of scale."""
    average = lambda a: jnp.average(a, axis=0, weights=weight)[None]
    mean = average(x)
    width = jnp.sqrt(average((x - mean) ** 2))
    return (x - mean) / jnp.where(width > 0, width, 1)


def _log_mean(values, weights):
    total = jax.nn.logsumexp(values, b=weights)
    return total - jnp.log(jnp.sum(weights))
