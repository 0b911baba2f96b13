"""Likelihoods that a network has to beat: simple densities fitted in closed form or by EM.

All in nats, on the host. A likelihood alone says little; beside that of ten Gaussians it does.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from jgen.arrays import finite_array, real_array
from jgen.checks import check_not_negative, check_whole
from jgen.random import numpy_generator
from jgen.typing import Key


def gaussian_mixture_log_prob(
    train: Float[np.ndarray, "n dim"],
    validation: Float[np.ndarray, "v dim"],
    test: Float[np.ndarray, "m dim"],
    num: int = 10,
    *,
    regularisations: Sequence[float] = (1e-4, 1e-3, 3e-3, 1e-2),
) -> Float[np.ndarray, " m"]:
    """Log-densities of the test events under a mixture of full Gaussians (scikit-learn's EM).

    Args:
      train: events that it is fitted to, with columns of order one.
      validation: events that choose the regularisation.
      test: events to score.
      num: Gaussians.
      regularisations: what may be added to the diagonal of the covariances.

    Raises:
      ValueError: if there is no regularisation to choose from, more Gaussians than events, or the
        samples are no finite tables of the same columns.
    """
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    if not regularisations:
        raise ValueError("regularisations must name at least one")
    for regularisation in regularisations:
        check_not_negative(regularisation=regularisation)
    train, validation, test = _tables(train=train, validation=validation, test=test)
    check_whole(1, len(train), num=num)
    # Threads of the small products would only wait for each other.
    with threadpool_limits(1):
        fits = [
            GaussianMixture(num, reg_covar=r, random_state=0).fit(train) for r in regularisations
        ]
        best = max(fits, key=lambda fit: fit.score(validation))
        return best.score_samples(test)


def bernoulli_mixture_log_prob(
    train: Float[np.ndarray, "n dim"],
    test: Float[np.ndarray, "m dim"],
    num: int,
    *,
    key: Key | None = None,
    steps: int = 200,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """Log-probabilities of binary events under a mixture of product Bernoullis, fitted by EM.

    One component is the product of the pixels' frequencies. Half a bright and half a dark event
    are added to each component (Jeffreys' prior), so that no pixel has probability zero.

    Args:
      train: events of zeros and ones that it is fitted to.
      test: others.
      num: components.
      key: of the start.
      steps: of expectation maximisation.

    Returns:
      log p of the events of `train` and of `test`.

    Raises:
      ValueError: if the samples are no tables of zeros and ones with the same columns, or a number
        is not whole and positive.
    """
    train, test = _tables(train=train, test=test)
    if not all(np.all((x == 0) | (x == 1)) for x in (train, test)):
        raise ValueError("train and test must be events of zeros and ones; round them")
    check_whole(num=num, steps=steps)
    rng = numpy_generator(key)
    shares = rng.dirichlet(np.ones(num), size=len(train))

    def log_joint(x, pixels, weights):
        return x @ np.log(pixels).T + (1 - x) @ np.log1p(-pixels).T + np.log(weights)

    for _ in range(steps if num > 1 else 1):
        total = shares.sum(axis=0)
        pixels = (shares.T @ train + 0.5) / (total[:, None] + 1)
        weights = (total + 0.5) / (total + 0.5).sum()
        joint = log_joint(train, pixels, weights)
        shares = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    train, test = (logsumexp(log_joint(x, pixels, weights), axis=1) for x in (train, test))
    return train, test


def pca_log_prob(x: Float[np.ndarray, "n dim"], num_latent: int) -> float:
    """Largest mean log-likelihood of probabilistic PCA on events (Tipping and Bishop 1999, Eq. 7).

    The best that a linear VAE with `num_latent` latent numbers can reach on them.

    Raises:
      ValueError: unless there are fewer latent numbers than columns, and at least one, and `x` is a
        finite table of two or more events.
    """
    (x,) = _tables(x=x)
    check_whole(num_latent=num_latent)
    values = np.linalg.eigvalsh(np.cov(np.float64(x).T, bias=True))[::-1]
    num = len(values)
    if not num_latent < num:
        raise ValueError(f"num_latent must be from 1 to {num - 1}, got {num_latent}")
    noise = values[num_latent:].mean()
    log_det = np.log(values[:num_latent]).sum() + (num - num_latent) * np.log(noise)
    return float(-0.5 * (num * np.log(2 * np.pi) + log_det + num))


def _tables(**samples):
    """The samples as finite tables of the same columns, in the precision that they have."""
    tables = [real_array(x, name) for name, x in samples.items()]
    for name, table in zip(samples, tables, strict=True):
        finite_array(table, name, ndim=2)
        if table.shape[1] != tables[0].shape[1]:
            raise ValueError(
                f"{name} has {table.shape[1]} columns and {next(iter(samples))} "
                f"{tables[0].shape[1]}: give the same ones"
            )
    return tables
