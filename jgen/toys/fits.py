"""Generators of known amplification: fits in closed form, and the memoriser as a control.

A fit that knows the family of the truth has only the errors of its parameters, so what it is worth
follows without any network: G = sum p (1 - p) / (n_train sum <(I_fit - p)^2>) over regions of
probability p (arXiv:2509.08048, Eqs. 3, 12, 19). `ideal_amplification` computes it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real
from scipy import stats

from jgen.checks import check_finite, check_positive
from jgen.random import normal
from jgen.toys.gaussian import normal_log_prob
from jgen.toys.ring import ring_log_prob, sample_ring
from jgen.toys.toy import normal_probability
from jgen.typing import Key, Params


class Fit(NamedTuple):
    """A generator with a closed-form training, vmappable over data sets and weights.

    Attributes:
      fit: (data [n, dim], weight [n] or None) -> params. Weights are numbers of copies: a bootstrap
        member is the fit with `bootstrap_weights`.
      sample: (params, key, cond) -> x, one event; `draw` takes it as it is.
      log_prob: (params, key, x, cond) -> scalar in nats, None without a density.
    """

    fit: Callable[[Float[Array, "n dim"], Float[Array, " n"] | None], Params]
    sample: Callable[..., Array]
    log_prob: Callable[..., Array] | None = None


def normal_fit(width: float | None = None) -> Fit:
    """Maximum-likelihood fit of a one-dimensional Gaussian, events [1].

    Args:
      width: known width, only the mean is fitted (2509.08048, Eq. 22 with 1); None fits both.

    Raises:
      ValueError: if `width` is not positive.
    """
    if width is not None:
        check_positive(width=width)

    def fit(data, weight=None):
        mean, fitted = _moments(data[:, 0], weight)
        return {"mean": mean, "width": fitted if width is None else jnp.full_like(mean, width)}

    return Fit(
        fit,
        sample=lambda params, key, cond=None: params["mean"] + params["width"] * normal(key, (1,)),
        log_prob=lambda params, key, x, cond=None: normal_log_prob(
            x[0], params["mean"], params["width"]
        ),
    )


def radial_fit(dim: int) -> Fit:
    """Fit of a ring's mean and width to the radii, directions flat by assumption.

    The maximum of the likelihood but for the mirrored directions of a shell, which the fit takes
    as positive radii: exact for the ring of 2509.08048, and for the shell N(4, 1) a shift of some
    1e-4 of a width.
    """

    def fit(data, weight=None):
        mean, width = _moments(jnp.linalg.norm(data, axis=-1), weight)
        return {"mean": mean, "width": width}

    return Fit(
        fit,
        sample=lambda params, key, cond=None: sample_ring(
            key, dim, params["mean"], params["width"]
        ),
        log_prob=lambda params, key, x, cond=None: ring_log_prob(
            x, params["mean"], params["width"]
        ),
    )


def memoriser() -> Fit:
    """Draws events of the training set again, with replacement; it has no density.

    The negative control: it is worth its training events, G = 1 (n / (n - 1) from the spread of
    bootstrap members), in every region, however many it generates.
    """

    def fit(data, weight=None):
        weight = jnp.ones(len(data)) if weight is None else weight
        return {"data": data, "cumulative": jnp.cumsum(weight)}

    def sample(params, key, cond=None):
        cumulative = params["cumulative"]
        u = cumulative[-1] * jax.random.uniform(key)
        index = jnp.searchsorted(cumulative, u, side="right")
        # The product may round up to the sum of all weights, which belongs to no event.
        return params["data"][jnp.minimum(index, len(cumulative) - 1)]

    return Fit(fit, sample)


def bootstrap_weights(key: Key, num: int) -> Float[Array, " num"]:
    """How often each of `num` events is in a bootstrap sample of the same size."""
    return jnp.bincount(jax.random.randint(key, (num,), 0, num), length=num).astype(float)


class FitError(NamedTuple):
    """Errors of a fit's integrals over many training sets.

    Attributes:
      variance: of the integrals [regions].
      bias: mean minus the truth [regions].
    """

    variance: Float[np.ndarray, " regions"]
    bias: Float[np.ndarray, " regions"]

    @property
    def mean_square(self) -> Float[np.ndarray, " regions"]:
        """Mean squared deviation from the truth, the model variance of 2509.08048, Eq. 11."""
        return self.variance + self.bias**2


def fit_error(
    low: Real[np.ndarray, " *regions"],
    high: Real[np.ndarray, " *regions"],
    num_train: float,
    mean: float = 0.0,
    width: float = 1.0,
    *,
    fits_width: bool = True,
) -> FitError:
    """Errors of the integrals of a fitted normal variable, exact for any number of events.

    The fitted mean is N(mean, width^2 / n) and, independent of it, n (fitted width / width)^2 is
    chi-square with n - 1 degrees of freedom. Both are integrated over by the trapezoidal rule on
    a normal variable, which is exact to rounding. For a ring the variable is the radius,
    whose mirrored part is left out (1e-21 for the default ring).

    Args:
      low: lower edges of the regions.
      high: upper edges.
      num_train: events of a training set, or as many as it is worth, which may be a fraction.
      mean: of the truth.
      width: of the truth.
      fits_width: whether the width is fitted, too.

    Raises:
      ValueError: if there are fewer than two events.
    """
    check_finite(mean=mean)
    check_positive(num_train=num_train, width=width)
    if num_train < 2:
        raise ValueError(f"num_train must be at least 2, got {num_train}")
    z = np.linspace(-9.0, 9.0, 145)
    normal_weight = stats.norm.pdf(z) / stats.norm.pdf(z).sum()
    weight = normal_weight[:, None]
    fitted_mean, fitted_width = mean + width * z[:, None] / num_train**0.5, width
    if fits_width:
        weight = weight * normal_weight
        # The chi-square as a function of a normal variable, from the tail that has the digits.
        below, above = stats.norm.cdf(np.minimum(z, 0)), stats.norm.sf(np.maximum(z, 0))
        freedom = num_train - 1.0
        q = np.where(z < 0, stats.chi2.ppf(below, freedom), stats.chi2.isf(above, freedom))
        fitted_width = width * np.sqrt(q / num_train)
    variance, bias = [], []
    for edges in zip(np.atleast_1d(low), np.atleast_1d(high), strict=True):
        # Deviations before squares, so that the variance is no difference of large numbers.
        truth = normal_probability(*edges, mean, width)
        deviation = normal_probability(*edges, fitted_mean, fitted_width) - truth
        bias.append(np.sum(weight * deviation))
        variance.append(np.sum(weight * (deviation - bias[-1]) ** 2))
    return FitError(np.array(variance), np.array(bias))


def ideal_amplification(
    low: Real[np.ndarray, " *regions"],
    high: Real[np.ndarray, " *regions"],
    mean: float = 0.0,
    width: float = 1.0,
    *,
    fits_width: bool = True,
    num_train: float | None = None,
) -> float:
    """Amplification factor of a fitted normal variable in regions taken together.

    Without `num_train` the limit of many training events, in which errors are linear in the
    parameters:

        G = sum p (1 - p) / sum [(dI/dmean)^2 width^2 + (dI/dwidth)^2 width^2 / 2]

    Args:
      low: lower edges of the regions, as many as are combined (2509.08048, Eq. 19).
      high: upper edges.
      mean: of the truth.
      width: of the truth.
      fits_width: whether the width is fitted, or known and only the mean is.
      num_train: events of a training set, for the curvature of the integrals.
    """
    low, high = (np.atleast_1d(np.asarray(edge, np.float64)) for edge in (low, high))
    p = normal_probability(low, high, mean, width)
    if num_train is None:
        a, b = (low - mean) / width, (high - mean) / width
        model = (stats.norm.pdf(a) - stats.norm.pdf(b)) ** 2
        if fits_width:
            model = model + 0.5 * (_times_density(a) - _times_density(b)) ** 2
    else:
        error = fit_error(low, high, num_train, mean, width, fits_width=fits_width)
        model = num_train * error.mean_square
    return float(np.sum(p * (1 - p)) / np.sum(model))


def _times_density(z):
    """Z times the normal density, zero at infinity."""
    return np.where(np.isfinite(z), z, 0.0) * stats.norm.pdf(z)


def _moments(x, weight):
    """Weighted mean and standard deviation, the maximum-likelihood one."""
    mean = jnp.average(x, weights=weight)
    return mean, jnp.sqrt(jnp.average((x - mean) ** 2, weights=weight))
