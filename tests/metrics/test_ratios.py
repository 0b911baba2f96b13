import functools

import jax
import numpy as np
import pytest

from jgen.metrics import RatioConfig, area_under_curve, weighted_log_ratio

SMALL = RatioConfig((16,), 250, 300, 1e-2)
ratio = functools.partial(jax.jit, static_argnums=4)(weighted_log_ratio)


def test_events_of_both_weights_have_their_mean_ratio():
    """With w = exp(c x) the mean over a normal x is exp(c^2 / 2); y says nothing."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6000, 2)).astype(np.float32)
    noise = rng.exponential(1, 6000)
    weight = (np.exp(0.5 * x[:, 0]) * noise).astype(np.float32)
    found = np.asarray(ratio(jax.random.key(0), x, weight, np.ones(6000, np.float32), SMALL))
    exact = 0.5 * x[:, 0] - 0.5**2 / 2
    assert np.sqrt(np.mean((found - exact) ** 2)) < 0.1
    # Of each fold by itself, since each network is normalised on what it did not see.
    assert np.mean(np.exp(found)) == pytest.approx(1, abs=1e-5)


def test_samples_of_different_sizes_give_the_ratio_of_shapes():
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(0.5, 1, 2000), rng.normal(0, 1, 6000)])[:, None]
    first = (np.arange(8000) < 2000).astype(np.float32)
    args = (x.astype(np.float32), first, 1 - first, SMALL)
    found = np.asarray(ratio(jax.random.key(0), *args))[2000:]
    assert np.sqrt(np.mean((found - 0.5 * x[2000:, 0] + 0.125) ** 2)) < 0.1


@pytest.mark.study
def test_an_event_is_not_scored_by_what_it_was_trained_on():
    """Labels without information: what a large network learns by heart it cannot use."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(200, 3)).astype(np.float32)
    label = (rng.uniform(size=200) < 0.5).astype(np.float32)
    auc = {}
    for folds in (1, 2):
        config = RatioConfig((64, 64), 300, 100, 1e-2, folds)
        found = np.asarray(ratio(jax.random.key(0), x, label, 1 - label, config))
        auc[folds] = area_under_curve(found[label > 0], found[label == 0])
    assert auc[1] > 0.7
    # Three standard deviations of an area of two hundred events without information.
    assert abs(auc[2] - 0.5) < 0.125


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="folds must be"):
        RatioConfig(folds=0).check()
