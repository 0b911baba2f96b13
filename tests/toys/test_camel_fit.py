"""Fits of the camel back: maxima in closed form, and the error of the best estimator."""

import numpy as np
import pytest

from jgen.toys import camel_back, quantile_edges
from jgen.toys.camel_fit import TRUTH, exact_fit_error, fit_camel_backs


def test_fits_end_at_the_maximum_of_the_likelihood():
    """Separated humps have a maximum in closed form: moments of either side."""
    rng = np.random.default_rng(0)
    x = rng.normal(4, 1, (3, 400, 1)) * rng.choice([-1, 1], (3, 400, 1))
    # Away from the middle, where the other hump has no say.
    x = np.where(x > 0, np.maximum(x, 2), np.minimum(x, -2)).astype(np.float32)
    found, gradient = fit_camel_backs(x)
    assert np.all(gradient < 1e-5)
    for one, data in zip(np.asarray(found), x[..., 0], strict=True):
        left, right = data[data < 0], data[data > 0]
        expected = [left.mean(), right.mean(), left.std(), right.std(), len(left) / len(data)]
        np.testing.assert_allclose(one, expected, rtol=1e-3)


def test_the_exact_error_of_the_fit_falls_as_one_over_n():
    edges = quantile_edges(camel_back(4, 1).marginals[0], 2)
    # Two halves: only the fraction matters, of variance f (1 - f) / n, and a little the humps.
    assert exact_fit_error(edges, 50) == pytest.approx(0.25 / 50, rel=1e-3)
    assert exact_fit_error(edges, 50) == pytest.approx(2 * exact_fit_error(edges, 100))
    assert TRUTH[4] == 0.5
