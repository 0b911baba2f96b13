"""Weights of a Gaussian proposal on a Gaussian target: everything in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jgen.generative_model import GenerativeModel
from jgen.inference import (
    bin_probabilities,
    draw_weighted,
    effective_sample_size,
    forward_effective_sample_size,
    free_energy_difference,
    log_partition,
    log_weights,
    uncovered_fraction,
    weighted_mean,
)
from jgen.solvers import normal_log_prob

WIDTH, SHIFT = 1.1, 0.4  # of the proposal, on a target of width one around zero
SHAPE = (3, 2)  # events are no vectors
NUM = 20_000


def proposal(params, key, x, cond):
    return normal_log_prob((x - params) / WIDTH) - x.size * jnp.log(WIDTH)


MODEL = GenerativeModel(
    init=lambda key: jnp.full(SHAPE, SHIFT),
    loss=None,
    sample=lambda params, key, cond: params + WIDTH * jax.random.normal(key, (6,)).reshape(SHAPE),
    log_prob=proposal,
)
PARAMS = MODEL.init(None)
LOG_Z = 0.5 * 6 * np.log(2 * np.pi) - 1.7


def energy(x, cond):
    return 0.5 * jnp.sum(x**2) + 1.7


def exact_ess():
    """1 / E_q[w^2] for w = N(x; 0, 1) / N(x; shift, width), to the power of the dimensions."""
    variance = 1 / (2 - 1 / WIDTH**2)
    exponent = SHIFT**2 / WIDTH**2 / 2 + (SHIFT / WIDTH**2) ** 2 * variance / 2
    return (WIDTH * variance**0.5 * np.exp(exponent)) ** -6


@pytest.fixture(scope="module")
def weighted():
    return draw_weighted(MODEL, PARAMS, jax.random.key(1), NUM, energy)


def within(estimate, exact, sigmas=4.0):
    return abs(estimate.value - exact) < sigmas * estimate.error


def test_closed_forms(weighted):
    log_w = weighted.log_weight
    assert weighted.x.shape == (NUM, *SHAPE)
    ess = effective_sample_size(log_w)
    assert within(ess, exact_ess())
    assert ess.error < 0.02
    log_z = log_partition(log_w)
    assert within(log_z, LOG_Z)
    # The variance of log Z is (1 / ESS - 1) / N.
    assert log_z.error == pytest.approx(((1 / exact_ess() - 1) / NUM) ** 0.5, rel=0.1)
    x = weighted.x[:, 0, 0]
    assert within(weighted_mean(x, log_w), 0.0)
    assert within(weighted_mean(x**2, log_w), 1.0)
    assert abs(x.mean() - SHIFT) < 0.04  # without weights it is another mean
    region, rest = x > 1, x <= 1
    difference = free_energy_difference(log_w, region, rest)
    assert within(difference, np.log(stats.norm.cdf(1) / stats.norm.sf(1)))
    swapped = free_energy_difference(log_w, rest, region)
    assert swapped.value == pytest.approx(-difference.value)
    assert swapped.error == pytest.approx(difference.error)


def test_forward_sample_size_from_the_target_is_the_same_number(weighted):
    x = np.random.default_rng(2).normal(size=(NUM, *SHAPE))
    log_w = log_weights(MODEL, PARAMS, jax.random.key(0), x, energy, batch_size=777)
    forward = forward_effective_sample_size(log_w)
    assert within(forward, exact_ess())
    # Nothing depends on the scale of the weights, even where they overflow.
    shifted = forward_effective_sample_size(log_w + 1e4)
    assert shifted == pytest.approx(forward, rel=1e-9)
    assert effective_sample_size(weighted.log_weight - 1e4) == pytest.approx(
        effective_sample_size(weighted.log_weight), rel=1e-9
    )


def test_a_lost_mode_shows_only_in_events_of_the_target():
    """A target with two humps, a model of one of them: -log 2, and a forward size near zero."""
    hump = lambda x, mean: stats.norm.logpdf(x, mean)
    target = lambda x: np.logaddexp(hump(x, -5), hump(x, 5)) - np.log(2)
    rng = np.random.default_rng(3)
    own = rng.normal(5, 1, 5000)
    assert effective_sample_size(target(own) - hump(own, 5)).value > 0.999
    assert log_partition(target(own) - hump(own, 5)).value == pytest.approx(-np.log(2), abs=1e-4)
    true = rng.normal(rng.choice([-5, 5], 5000), 1)
    log_w = target(true) - hump(true, 5)
    assert forward_effective_sample_size(log_w).value < 1e-6
    lost = uncovered_fraction(log_w + 3.0, 3.0)
    assert within(lost, 0.5)
    assert lost.error == pytest.approx(0.5 / 5000**0.5, rel=0.01)
    assert uncovered_fraction(np.log([2.0, 9.9, 10.1, 1e5]), 0.0).value == 0.5


def test_errors_are_those_of_repetitions():
    """The spread over 300 repetitions, against the errors that each of them gives."""
    rng, found = np.random.default_rng(4), {}
    for _ in range(300):
        x, target = rng.normal(SHIFT, WIDTH, 2000), rng.normal(size=2000)
        log_w = lambda x: stats.norm.logpdf(x) - stats.norm.logpdf(x, SHIFT, WIDTH)
        for name, estimate in {
            "ess": effective_sample_size(log_w(x)),
            "forward": forward_effective_sample_size(log_w(target)),
            "log_z": log_partition(log_w(x)),
            "mean": weighted_mean(x, log_w(x)),
            "difference": free_energy_difference(log_w(x), x > 1, x <= 1),
        }.items():
            found.setdefault(name, []).append(estimate)
    for estimates in found.values():
        values, errors = np.array(estimates).T
        # A spread of 300 values is known to 4 %.
        assert errors.mean() == pytest.approx(values.std(), rel=0.16)


def test_conditions_and_pairs_reach_the_energy():
    cond = np.linspace(1, 3, 50)
    one = lambda params, key, cond: (jnp.full(SHAPE, cond), jnp.log(cond))
    found = draw_weighted(
        MODEL._replace(sample_and_log_prob=one),
        PARAMS,
        jax.random.key(0),
        50,
        lambda x, c: c * x[0, 0],
        cond,
    )
    np.testing.assert_allclose(found.log_weight, -(cond**2) - np.log(cond), rtol=1e-5)
    at = log_weights(
        MODEL, PARAMS, jax.random.key(0), found.x, lambda x, c: c * x[0, 0], cond, batch_size=7
    )
    density = [float(proposal(PARAMS, None, x, None)) for x in found.x]
    np.testing.assert_allclose(at, -(cond**2) - density, rtol=1e-5)


def test_a_region_without_events_is_infinitely_far():
    none = np.zeros(3, bool)
    assert free_energy_difference(np.zeros(3), none, ~none) == (np.inf, np.inf)
    assert free_energy_difference(np.zeros(3), ~none, none) == (-np.inf, np.inf)


def test_bad_input():
    nothing = np.full(4, False)
    for call, message in (
        (lambda: effective_sample_size(np.array([0.0, np.nan])), "1 of 2 log weights"),
        (lambda: log_partition(np.array([np.inf, 0.0])), "NaN or"),
        (lambda: log_partition(np.full(3, -np.inf)), "all weights are zero"),
        (lambda: log_partition(np.zeros(1)), "two or more"),
        (lambda: uncovered_fraction(np.zeros(2), 0.0, 1.0), "above one"),
        (lambda: weighted_mean(np.zeros(3), np.zeros(4)), "one value an event"),
        (lambda: free_energy_difference(np.zeros(4), nothing, nothing), "no event is in"),
        (lambda: free_energy_difference(np.zeros(4), nothing, nothing[1:]), "one truth value"),
        (
            lambda: draw_weighted(
                MODEL._replace(log_prob=None), PARAMS, jax.random.key(0), 2, energy
            ),
            "log_prob",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_probabilities_of_bins_have_the_errors_of_repetitions():
    """Weighted counts of a uniform proposal on a normal target, and plain counts."""
    rng, edges = np.random.default_rng(1), np.linspace(-2, 2, 9)
    x = rng.uniform(-4, 4, (100, 3000))
    values, errors = zip(*(bin_probabilities(v, edges, -0.5 * v**2) for v in x), strict=True)
    values, errors, exact = np.array(values), np.array(errors), np.diff(stats.norm.cdf(edges))
    np.testing.assert_allclose(errors.mean(axis=0), values.std(axis=0), rtol=0.3)
    assert np.all(np.abs(values.mean(axis=0) - exact) < 4 * errors.mean(axis=0) / 10)
    each = weighted_mean((x[0] >= -2) & (x[0] < -1.5), -0.5 * x[0] ** 2)
    np.testing.assert_allclose([values[0, 0], errors[0, 0]], each, rtol=1e-9)
    plain = bin_probabilities(np.array([-2.5, -2.5, 2.0, 99.0]), np.array([-3, 0, 3]))
    np.testing.assert_allclose(plain.value, [0.5, 0.25])
    np.testing.assert_allclose(plain.error, [0.25, (0.25 * 0.75 / 4) ** 0.5])
    for v in x:  # of all that there is, whatever rounding makes of the sums
        certain = bin_probabilities(v[:1001], np.array([-5, 5]), -0.5 * v[:1001] ** 2)
        np.testing.assert_allclose([certain.value[0], certain.error[0]], [1, 0], atol=1e-7)
    with pytest.raises(ValueError, match="one value an event"):
        bin_probabilities(x[0], edges, np.zeros(5))
