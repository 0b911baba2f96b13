"""A number and its statistical error."""

from typing import NamedTuple


class Estimate(NamedTuple):
    """What samples say about a number.

    Attributes:
      value: the estimate.
      error: its standard error, to first order in the fluctuations.
    """

    value: float
    error: float
