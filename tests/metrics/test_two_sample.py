"""Accuracies of a classifier against those of the best one."""

import numpy as np
import pytest
from scipy import stats

from jgen.metrics import c2st


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_shifted_normals(shift, key):
    """The best classifier of two unit normals is right in Phi(shift / 2) of the cases."""
    rng = np.random.default_rng(0)
    reference, generated = rng.normal(size=(2, 1500, 1))
    accuracy = c2st(reference, generated + shift, key, folds=3)
    assert accuracy.value == pytest.approx(stats.norm.cdf(shift / 2), abs=4 * accuracy.error)


def test_samples_of_two_sizes_are_refused(key):
    for others in (np.zeros((30, 1)), np.zeros(20), np.zeros((20, 2))):
        with pytest.raises(ValueError, match="samples of one size"):
            c2st(np.zeros((20, 1)), others, key)
