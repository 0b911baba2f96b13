"""What unfolding of a smeared Gaussian gives, iteration by iteration."""

from typing import NamedTuple

from jgen.checks import check_finite, check_positive, check_whole


class Normal(NamedTuple):
    """A normal distribution.

    Attributes:
      mean: of it.
      width: its standard deviation.
    """

    mean: float
    width: float


def unfolded_gaussian(
    prior: Normal, truth: Normal, resolution: float, iterations: int
) -> list[Normal]:
    """The prior and what is unfolded from infinitely many events after each iteration.

    Of events x of the truth x plus normal noise is measured. With k = v / (v + s^2) for a prior of
    variance v and noise of width s, p(x | measured) is normal about m + k (measured - m) with
    variance (1 - k) v, and its mean over the data is normal with m + k (m_d - m) and
    v (1 - k) + k^2 (v_d + s^2), the prior of the next iteration. Iterative Bayesian unfolding,
    OmniFold (1911.09107) and iterated conditional generation share this law.

    Args:
      prior: of the simulation.
      truth: of the data.
      resolution: s, the width of the noise.
      iterations: number of them.

    Returns:
      One distribution more than iterations, the first is the prior.

    Raises:
      ValueError: for widths that are not positive.
    """
    check_finite(prior_mean=prior.mean, truth_mean=truth.mean)
    check_positive(prior_width=prior.width, truth_width=truth.width, resolution=resolution)
    check_whole(0, iterations=iterations)
    found = [prior]
    for _ in range(iterations):
        mean, width = found[-1]
        share = width**2 / (width**2 + resolution**2)
        variance = width**2 * (1 - share) + share**2 * (truth.width**2 + resolution**2)
        found.append(Normal(mean + share * (truth.mean - mean), variance**0.5))
    return found
