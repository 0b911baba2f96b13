"""The Kolmogorov distribution, and what a Kolmogorov-Smirnov distance says about a sample's size.

Two samples of n and m events of one distribution have a distance D = K sqrt(1/n + 1/m), where K
follows the Kolmogorov distribution for large samples (arXiv:2509.08048, Eq. 34). At a thousand
events K is a percent or two smaller, which nothing here corrects.
"""

import functools

import numpy as np
from jaxtyping import Float, Real
from scipy import special

from jgen.amplification.averaging import ONE_SIGMA
from jgen.arrays import double_array, fraction_array, not_negative_array, positive_array
from jgen.checks import check_finite, check_open_fraction, check_positive

MEAN = float(np.sqrt(np.pi / 2) * np.log(2))
"""Mean of K, 0.8687 (arXiv:2509.08048, Eq. 35)."""
STD = float(np.sqrt(np.pi**2 / 12 - MEAN**2))
"""Standard deviation of K, 0.2603."""


def kolmogorov_cdf(k: Real[np.ndarray, " *shape"]) -> Float[np.ndarray, " *shape"]:
    """Probability that K is at most `k`.

    Raises:
      ValueError: for NaN or what is no number.
    """
    k = double_array(k, "k")
    if np.isnan(k).any():
        raise ValueError("k has NaN: look at the distances")
    return 1 - special.kolmogorov(np.maximum(k, 0.0))


def kolmogorov_quantile(
    probability: Real[np.ndarray, " *shape"],
) -> Float[np.ndarray, " *shape"]:
    """The k that K exceeds with probability 1 - `probability`.

    Raises:
      ValueError: for what is no probability.
    """
    return special.kolmogi(1 - fraction_array(probability, "probability"))


def kolmogorov_band(level: float = ONE_SIGMA, *, printed: bool = False) -> tuple[float, float]:
    """Central interval (low, high) that holds K with probability `level`.

    Args:
      level: between 0 and 1; 0.6827, 0.9545 and 0.9973 are one, two and three standard deviations.
      printed: give arXiv:2509.08048, Eq. 37, as it is printed instead: <K> -+ c with
        c = sqrt(ln(2 / (1 - level)) / 2). But c is itself the upper quantile of K, no distance
        from its mean, so that these intervals are far too wide: the one for 0.6827 holds K with
        probability 0.9975.

    Raises:
      ValueError: for a level outside of (0, 1).
    """
    check_open_fraction(level=level)
    if printed:
        half = float(np.sqrt(np.log(2 / (1 - level)) / 2))
        return MEAN - half, MEAN + half
    low, high = kolmogorov_quantile(np.array([(1 - level) / 2, (1 + level) / 2]))
    return float(low), float(high)


def expected_distance(
    n: Real[np.ndarray, " *shape"], m: Real[np.ndarray, " *shape"], k: float = MEAN
) -> Float[np.ndarray, " *shape"]:
    """Distance k sqrt(1/n + 1/m) of samples of one distribution (arXiv:2509.08048, Eq. 35).

    Sizes may be infinite. With `k` from `kolmogorov_band` these are the edges of the bands.

    Raises:
      ValueError: for sizes that are not positive, or a `k` that is not finite.
    """
    check_finite(k=k)
    return k * np.sqrt(1 / positive_array(n, "n") + 1 / positive_array(m, "m"))


def size_interval(
    distance: Real[np.ndarray, " *shape"], floor: float, level: float = ONE_SIGMA
) -> tuple[Float[np.ndarray, " *shape"], Float[np.ndarray, " *shape"]]:
    """Interval (low, high) of the size n of a sample at a measured distance.

    The hypothesis is that the distance is K sqrt(1/n + floor). For each n the measurements that
    agree with it are those of the highest likelihood relative to that of the best n > 0, together
    of probability `level`; the interval holds all n that the measurement agrees with (Feldman and
    Cousins, physics/9711021). So it has the stated coverage for every n, infinity included, it is
    never empty, and it turns into a lower limit (high = infinity) by itself where the distance
    does not stand out from the floor: below the `level` quantile of K there.

    Args:
      distance: D, not negative.
      floor: 1/m for a reference of m events, plus whatever else makes samples fluctuate.
      level: coverage.

    Raises:
      ValueError: for negative distances, a floor that is not positive, or an unusable level.
    """
    check_open_fraction(level=level)
    check_positive(floor=floor)
    distance = not_negative_array(distance, "distance")
    excess, lower, upper = _acceptance(level)
    k = distance / np.sqrt(floor)
    # Beyond the grid the floor no longer matters, and the accepted k grow with the scale.
    scale = np.sqrt(1 + excess[-1])
    worst = np.where(k > lower[-1], (k * scale / lower[-1]) ** 2 - 1, np.interp(k, lower, excess))
    best = np.where(k > upper[-1], (k * scale / upper[-1]) ** 2 - 1, np.interp(k, upper, excess))
    with np.errstate(divide="ignore"):
        return 1 / (floor * worst), 1 / (floor * best)


@functools.cache
def _acceptance(level):
    """Accepted range of k = D / sqrt(floor) against the excess 1 / (n floor).

    Returns (excess [grid], lower [grid], upper [grid]); the first excess is 0, for infinite n.
    """
    excess = np.concatenate([[0.0], np.geomspace(1e-6, 8.0, 600)])
    scale = np.sqrt(1 + excess)
    # Ends in units of the scale: the lower one between 0 and where the upper one is infinite.
    low, high = np.zeros_like(scale), np.full_like(scale, kolmogorov_quantile(1 - level))
    for _ in range(60):
        middle = (low + high) / 2
        other = kolmogorov_quantile(np.minimum(kolmogorov_cdf(middle) + level, 1 - 1e-15))
        left, right = (_log_likelihood_ratio(scale * end, scale) for end in (middle, other))
        low, high = np.where(left < right, middle, low), np.where(left < right, high, middle)
    lower = np.where(excess > 0, (low + high) / 2, 0.0)
    upper = kolmogorov_quantile(kolmogorov_cdf(lower) + level)
    return excess, scale * lower, scale * upper


def _log_likelihood_ratio(k, scale):
    """Log likelihood of a scale at the measurement k, relative to that of the best scale >= 1."""
    best = np.maximum(1.0, k / _mode())
    return _log_density(k / scale) - np.log(scale) - _log_density(k / best) + np.log(best)


@functools.cache
def _mode():
    """The k at which k p(k) is largest: a measurement's most likely scale is k over this."""
    k = np.linspace(0.5, 1.5, 100_001)
    return float(k[np.argmax(np.log(k) + _log_density(k))])


def _log_density(k):
    """Log of K's density from its two series, each where few terms are exact to 1e-12."""
    k = np.maximum(k, 1e-100)
    small, large = np.minimum(k, 1.0), np.maximum(k, 1.0)
    a = np.pi**2 / (8 * small**2)
    # Terms exp(-a (2 j - 1)^2) without the leading exponential, which may underflow.
    series = (2 * a - 1) + (18 * a - 1) * np.exp(-8 * a) + (50 * a - 1) * np.exp(-24 * a)
    below = np.log(np.sqrt(2 * np.pi) / small**2 * series) - a
    tail = 1 - 4 * np.exp(-6 * large**2) + 9 * np.exp(-16 * large**2)
    above = np.log(8 * large * (tail - 16 * np.exp(-30 * large**2))) - 2 * large**2
    return np.where(k < 1, below, above)
