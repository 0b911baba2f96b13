"""Data sets of the studies of flows and families, with the fixed map that all train behind."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from sklearn.datasets import load_digits

from jgen.bijectors import Bijector, compose, standardize
from jgen.estimate import Estimate
from jgen.generative_model import GenerativeModel
from jgen.jets import read_features, sample_path
from jgen.random import stream
from jgen.toys import camel_back, circles, eight_gaussians, entropy, moons

DataName = Literal["moons", "circles", "eight-gaussians", "jets", "digits"]
"""Data sets of the flow study, which has none of one dimension."""

RADIUS, WIDTH = 2.0, 0.2
"""Circle of the eight Gaussians' centres, and their standard deviation."""
TOYS = {
    "moons": moons(0.05),
    "circles": circles(0.5, 0.05),
    "eight-gaussians": eight_gaussians(RADIUS, WIDTH),
    "camel": camel_back(),
}
"""Toys of this study and of that of the families, experiments/families.py."""
PT_RANGE = (500.0, 1000.0)
"""The jets were selected in this window of pT [GeV], in which their spectrum is nearly flat."""
NUM_LEVELS = 17
"""Grey levels of a digit's pixel, 0 to 16."""
# 1437 digits to train and validate on, 360 for the test, as is usual.
_NUM_DIGITS = 1437
# Copies of every digit with other noise, in which losses are random.
_COPIES = 5


class DataSet(NamedTuple):
    """One data set, in its own units.

    Attributes:
      train: events to train on [n, dim].
      validation: events that choose the best step.
      test: events that nothing was chosen on.
      bijector: from these events to numbers of order one, the same for all families.
      exact: the density, where it is known: its entropy, and log_prob of one event.
      repeats: how often every event is there, one after another, each time with other noise.
    """

    train: Float[np.ndarray, "n dim"]
    validation: Float[np.ndarray, "v dim"]
    test: Float[np.ndarray, "m dim"]
    bijector: Bijector
    exact: tuple[Estimate, Callable] | None = None
    repeats: int = 1

    @property
    def dim(self) -> int:
        """Numbers of an event."""
        return self.train.shape[1]


def make_data(
    name: DataName | Literal["camel"], num_train: int, num_test: int, seed: int
) -> DataSet:
    """A data set; both numbers are for the toys, and upper limits for the jets."""
    key = stream(jax.random.key(seed), f"data {name}")
    if name in TOYS:
        return _toy_data(name, num_train, num_test, key)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    return _jet_data(num_train, num_test, rng) if name == "jets" else _digit_data(rng)


def _toy_data(name, num_train, num_test, key):
    toy = TOYS[name]
    sizes = np.cumsum([num_train, max(num_train // 10, 1), num_test])
    x = np.asarray(jax.jit(jax.vmap(toy.sample))(jax.random.split(key, sizes[-1])))
    train, validation, test = np.split(x, sizes[:-1])
    scale = standardize(train.mean(axis=0), train.std(axis=0))
    return DataSet(train, validation, test, scale, (entropy(toy), toy.log_prob))


def _jet_data(num_train, num_test, rng):
    """One half of the jets is for the test; a tenth of the other half for the validation."""
    x = read_features(sample_path()).features
    x = x[rng.permutation(len(x))]
    test, rest = x[: len(x) // 2], x[len(x) // 2 :]
    validation, train = rest[: len(rest) // 10], rest[len(rest) // 10 :][:num_train]
    z = np.asarray(jax.vmap(lambda x: _straight().forward(x, None)[0])(train))
    bijector = compose(_straight(), standardize(z.mean(axis=0), z.std(axis=0)))
    return DataSet(train, validation, test[:num_test], bijector)


def _straight() -> Bijector:
    """(pT, mass, tau21, tau32) to (log-odds of pT in its window, log mass, tau21, tau32)."""
    low, high = PT_RANGE

    def log_det(pt, mass):
        return jnp.log((high - low) / ((pt - low) * (high - pt))) - jnp.log(mass)

    def forward(x, cond=None):
        pt, mass, *taus = x
        z = jnp.stack([jnp.log((pt - low) / (high - pt)), jnp.log(mass), *taus])
        return z, log_det(pt, mass)

    def inverse(z, cond=None):
        odds, log_mass, *taus = z
        pt, mass = low + (high - low) * jax.nn.sigmoid(odds), jnp.exp(log_mass)
        return jnp.stack([pt, mass, *taus]), -log_det(pt, mass)

    return Bijector(forward, inverse)


def _digit_data(rng):
    """Digits as (level + noise) / 17, a validation tenth of the 1437 training digits."""
    levels = load_digits().data.astype(int)
    levels = levels[rng.permutation(len(levels))]
    validation, train, test = np.split(levels, [_NUM_DIGITS // 10, _NUM_DIGITS])
    noisy = lambda n: _noisy(rng, n)
    return DataSet(
        noisy(np.repeat(train, _COPIES, axis=0)),
        noisy(np.repeat(validation, _COPIES, axis=0)),
        noisy(np.repeat(test, _COPIES, axis=0)),
        level_gaussian(train),
        repeats=_COPIES,
    )


def _noisy(rng, levels):
    # Below one also in float32, whose largest number below it is 1 - 2^-24.
    noise = np.minimum(rng.random(levels.shape), 1 - 1e-6)
    return ((levels + noise) / NUM_LEVELS).astype(np.float32)


def level_gaussian(levels: Int[np.ndarray, "n dim"], prior: float = 0.5) -> Bijector:
    """The map under which dequantised pixels (level + u) / 17 are standard normal one by one.

    z = quantile of the normal distribution at F(x), with F the distribution function that has the
    frequency of each level, and `prior` more counts of it, spread evenly over its bin. What is left
    to learn is how the pixels hang together; a pixel that is always dark is a normal number.
    """
    num, dim = levels.shape
    counts = prior + np.stack([np.bincount(c, minlength=NUM_LEVELS) for c in levels.T])
    share = counts / (num + NUM_LEVELS * prior)
    below = np.cumsum(share, axis=1) - share
    above = np.cumsum(share[:, ::-1], axis=1)[:, ::-1] - share
    share, below, above = (a.astype(np.float32) for a in (share, below, above))
    pixel = np.arange(dim)

    def log_det(z, level):
        density = jnp.log(NUM_LEVELS * jnp.asarray(share)[pixel, level])
        return jnp.sum(density - jax.scipy.stats.norm.logpdf(z))

    def forward(x, cond=None):
        level = jnp.clip(jnp.floor(NUM_LEVELS * x), 0, NUM_LEVELS - 1).astype(int)
        # The ends would be infinite where the level is the first or the last one.
        u = jnp.clip(NUM_LEVELS * x - level, 1e-6, 1 - 1e-6)
        width = jnp.asarray(share)[pixel, level]
        low = jnp.asarray(below)[pixel, level] + width * u
        high = jnp.asarray(above)[pixel, level] + width * (1 - u)
        # Of both tails the smaller one has the digits.
        z = jnp.where(low < high, 1, -1) * jax.scipy.special.ndtri(jnp.minimum(low, high))
        return z, log_det(z, level)

    def inverse(z, cond=None):
        low = jax.scipy.stats.norm.cdf(z)
        level = jnp.sum(low[:, None] >= below[:, 1:], axis=1)
        width = jnp.asarray(share)[pixel, level]
        u = jnp.where(
            z < 0,
            (low - jnp.asarray(below)[pixel, level]) / width,
            1 - (jax.scipy.stats.norm.cdf(-z) - jnp.asarray(above)[pixel, level]) / width,
        )
        return (level + jnp.clip(u, 1e-6, 1 - 1e-6)) / NUM_LEVELS, -log_det(z, level)

    return Bijector(forward, inverse)


def with_new_noise(model: GenerativeModel) -> GenerativeModel:
    """A model of dequantised levels that trains on other noise at every step.

    1437 digits are few: with noise of their own for good, networks would learn it by heart. The
    loss takes the level of each pixel and adds the noise of this step.
    """

    def loss(params, key, batch):
        key_noise, key_loss = jax.random.split(key)
        u = jax.random.uniform(key_noise, (batch.x.size,), maxval=1 - 1e-6).reshape(batch.x.shape)
        x = (jnp.floor(NUM_LEVELS * batch.x) + u) / NUM_LEVELS
        return model.loss(params, key_loss, batch._replace(x=x))

    return model._replace(loss=loss)
