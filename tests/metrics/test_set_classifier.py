"""A classifier of sets, where the best possible area under the curve is known."""

import jax
import numpy as np
import pytest
from scipy.stats import norm

from jgen import OptimizerConfig, TrainConfig
from jgen.metrics import SetClassifierConfig, set_classifier_auc
from jgen.nets import EpicConfig
from jgen.sets import SetCondition

KEY = jax.random.key(0)
CONFIG = SetClassifierConfig(
    EpicConfig(8, 2, 1),
    TrainConfig(
        150, 64, keep="best", validate_every=50, optimizer=OptimizerConfig(1e-2)
    ),
)  # fmt: skip


def sets(shift, num, seed):
    """Points N(shift, 1) whose number does not say where they are from; garbage in padding."""
    rng = np.random.default_rng(seed)
    n = rng.integers(2, 5, num)
    points = shift + rng.normal(size=(num, 4, 1))
    points = np.where((np.arange(4) < n[:, None])[..., None], points, 1e3 * shift)
    return points.astype(np.float32), SetCondition(n.astype(np.int32))


def test_the_area_is_that_of_the_likelihood_ratio():
    """Of a shift of n points: for the same n it is Phi(shift sqrt(n / 2))."""
    found = set_classifier_auc(sets(0.0, 3000, 0), sets(0.6, 2000, 1), KEY, CONFIG)
    scores = []
    for x, cond in (sets(0.0, 3000, 2), sets(0.6, 3000, 3)):
        total = np.where(np.arange(4) < cond.n[:, None], x[..., 0], 0).sum(axis=1)
        scores.append(0.3 * cond.n - total)
    best = np.mean(scores[0][:, None] > scores[1][None])
    assert norm.cdf(0.6) < best < norm.cdf(0.6 * np.sqrt(2))
    assert 0.01 < found.error < 0.02
    assert found.value == pytest.approx(best, abs=4 * found.error)


@pytest.mark.study
def test_samples_of_one_law_cannot_be_told_apart():
    found = set_classifier_auc(sets(0.0, 1000, 4), sets(0.0, 1000, 5), KEY, CONFIG)
    assert found.value == pytest.approx(0.5, abs=4 * found.error)


def test_sets_that_cannot_be_used_are_refused():
    points, cond = same = sets(0.0, 1000, 4)
    with pytest.raises(ValueError, match="2 events are too few"):
        set_classifier_auc(sets(0.0, 2, 0), same, KEY, CONFIG)
    with pytest.raises(ValueError, match="a set needs its number of points"):
        set_classifier_auc((points, cond.n), same, KEY, CONFIG)
    with pytest.raises(ValueError, match="numbers of points must be from 0 to 3"):
        set_classifier_auc((points[:, :3], cond), same, KEY, CONFIG)
    with pytest.raises(ValueError, match="must leave events to test on, got 0.9 and 0.1"):
        SetClassifierConfig(train_fraction=0.9, validation_fraction=0.1).check()
