"""Estimates: how they print, and the one table that metrics become."""

import math
from typing import NamedTuple

import numpy as np
import pytest

from jgen import Estimate, Judged
from jgen.estimate import flatten, judged, mean_estimate, mean_ratio, width_ratio


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.0123, 0.0014, "0.0123(14)"),
        (0.0181, 0.0024, "0.018(2)"),
        (0.5, 0.02, "0.50(2)"),
        (12.34, 0.096, "12.34(10)"),  # rounds to two digits of the error, not to 0.1(0)
        (12345.6, 30.0, "12346(30)"),
        (-1.0, 0.5, "-1.0(5)"),
        (1.5, 0.0, "1.5"),
        (1.0, 5e-17, "1"),  # rounding says nothing
        (1.5, math.nan, "1.5"),
        (math.inf, math.inf, "inf"),
        (3e-12, 2e-13, "3e-12(2e-13)"),
    ],
)
def test_errors_stand_behind_their_digits(value, error, text):
    assert str(Estimate(value, error)) == text
    assert f"{Estimate(value, error)}" == text


def test_several_estimates_are_printed_one_by_one():
    """As of the bins of a histogram."""
    assert str(Estimate(np.array([0.5, 1.0]), np.array([0.02, 0.5]))) == "[0.50(2), 1.0(5)]"
    assert str(Estimate(np.array([[0.5], [2.0]]), 0.02)) == "[[0.50(2)], [2.00(2)]]"


def test_truth_is_printed_in_brackets():
    both = Judged(Estimate(0.6, 0.02), Estimate(0.5, 0.03))
    assert str(both) == "0.60(2) [truth 0.50(3)]"


def test_mean_has_its_standard_error():
    values = np.array([1.0, 2.0, 3.0, 6.0])
    assert mean_estimate(values) == (3.0, pytest.approx(np.std(values, ddof=1) / 2))
    for bad in (np.ones(1), np.ones((2, 2))):
        with pytest.raises(ValueError, match="needs two values"):
            mean_estimate(bad)


def test_ratios_of_normal_samples_have_the_errors_of_normal_samples():
    """A tenth lower and a fifth wider: known ratios, relative errors of 1 / sqrt(2 n) a width."""
    rng = np.random.default_rng(0)
    values, reference = rng.normal(0.9, 0.06, 20_000), rng.normal(1.0, 0.05, 40_000)
    mean, width = mean_ratio(values, reference), width_ratio(values, reference)
    assert abs(mean.value - 0.9) < 4 * mean.error
    assert mean.error == pytest.approx(0.9 * np.hypot(0.06 / 0.9 / 141.4, 0.05 / 200), rel=0.03)
    assert abs(width.value - 1.2) < 4 * width.error
    assert width.error == pytest.approx(1.2 * np.hypot(1 / 200, 1 / 282.8), rel=0.03)


def test_ratios_of_nothing():
    """Zero over something has an error; something over zero is refused."""
    rng = np.random.default_rng(0)
    noise = rng.permutation(np.repeat([-1.0, 1.0], 50))
    assert mean_ratio(noise, np.full(9, 2.0)) == (0, pytest.approx(noise.std(ddof=1) / 20))
    assert (
        mean_ratio(np.zeros(5), np.arange(9.0)) == width_ratio(np.ones(5), np.arange(9.0)) == (0, 0)
    )
    values = np.arange(5.0)
    for ratio in (mean_ratio, width_ratio):
        with pytest.raises(ValueError, match="needs two values"):
            ratio(values[:1], values)
        with pytest.raises(ValueError, match="must be finite"):
            ratio(values, np.array([1, np.nan]))
        with pytest.raises(ValueError, match="must be an array with 1 axes"):
            ratio(values[:, None], values)
        with pytest.raises(ValueError, match="of zero"):
            ratio(values, np.zeros(5))


class Interval(NamedTuple):
    value: float
    low: float
    high: float


class Fit(NamedTuple):
    value: float
    error: float
    points: np.ndarray

    @property
    def estimate(self):
        return Estimate(self.value, self.error)


METRICS = {
    "auc": {"high": Judged(Estimate(0.6, 0.01), Estimate(0.5, 0.02)), "low": Estimate(0.7, 0.03)},
    "underflow/mass": Judged(0.1, 0.0),
    "scale": Interval(1.0, 0.5, 1.5),
    "fpd": Fit(2.0, 0.1, np.ones(3)),
    "steps": 10,
    "time": np.float32(0.5),
    "good": True,
}


def test_flat_names_have_one_convention():
    assert flatten(METRICS) == {
        "auc/high": 0.6,
        "auc/high_error": 0.01,
        "auc/high_truth": 0.5,
        "auc/high_truth_error": 0.02,
        "auc/low": 0.7,
        "auc/low_error": 0.03,
        "underflow/mass": 0.1,
        "underflow/mass_truth": 0.0,
        "scale": 1.0,
        "scale_low": 0.5,
        "scale_high": 1.5,
        "fpd": 2.0,
        "fpd_error": 0.1,
        "steps": 10.0,
        "time": 0.5,
        "good": 1.0,
    }
    assert all(type(value) is float for value in flatten(METRICS).values())
    assert flatten(flatten(METRICS)) == flatten(METRICS)


def test_a_judged_metric_comes_back():
    flat = flatten(METRICS)
    assert judged(flat, "auc/high") == METRICS["auc"]["high"]
    assert judged(flat, "underflow/mass") == METRICS["underflow/mass"]
    with pytest.raises(KeyError):
        judged(flat, "auc/low")


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"a": Estimate(1.0, 2.0), "a_error": 2.0}, "two metrics have the name 'a_error'"),
        ({"a/b": 1.0, "a": {"b": 2.0}}, "two metrics have the name 'a/b'"),
        ({"a": "high"}, "'a' must be a number"),
        ({"a": np.ones(2)}, "'a' must be a number"),
        ({"a": None}, "'a' must be a number"),
        ({"a": {"b": Judged(Estimate(1.0, 2.0), None)}}, "'a/b_truth' must be a number"),
    ],
)
def test_what_is_no_table_is_refused(metrics, message):
    with pytest.raises(ValueError, match=message):
        flatten(metrics)
