"""Integrals and unweighting from weights, against brute force."""

import jax
import numpy as np
import pytest

from jgen import toys
from jgen.inference import (
    Points,
    best_numbers,
    bootstrap_maximum,
    channel_weights,
    combined_weights,
    integral,
    largest_share,
    overweight_limit,
    relative_deviation,
    unweighted,
    unweighting,
)

RNG = np.random.default_rng(0)


def test_errors_are_the_spread_of_repetitions():
    """Two channels of other numbers and other widths, the second of negative weights, too."""
    draws = [(RNG.gamma(2, 1, 800), RNG.normal(0.5, 3, 200)) for _ in range(600)]
    integrals = np.array([integral(w) for w in draws])
    deviations = np.array([relative_deviation(w) for w in draws])
    assert abs(integrals[:, 0].mean() - 2.5) < 4 * integrals[:, 0].std() / 600**0.5
    assert integrals[:, 1].mean() == pytest.approx(integrals[:, 0].std(), rel=0.15)
    exact = (1000 * (2 / 800 + 9 / 200)) ** 0.5 / 2.5
    assert deviations[:, 0].mean() == pytest.approx(exact, rel=0.03)
    assert deviations[:, 1].mean() == pytest.approx(deviations[:, 0].std(), rel=0.15)
    assert combined_weights(draws[0]).mean() == pytest.approx(integrals[0, 0])
    # Least variance: numbers as the standard deviations.
    first, second = best_numbers([RNG.gamma(2, 1, 10**5), RNG.normal(0.5, 3, 10**5)], 1000)
    assert first == pytest.approx(1000 * 2**0.5 / (3 + 2**0.5), abs=8)
    assert first + second == pytest.approx(1000, abs=1)


def test_the_maximum_of_bootstraps_and_the_limit_of_overweights():
    weights = RNG.pareto(3, 2000)
    for num in (200, 2000):
        maxima = [RNG.choice(weights, num).max() for _ in range(2001)]
        near = np.sort(maxima)[[900, 1100]]
        assert near[0] <= bootstrap_maximum(weights, num) <= near[1]
    assert bootstrap_maximum(weights, 2000) == weights.max()
    for share in (0.0, 1e-3, 0.3):
        limit = overweight_limit(weights, share)
        over = np.maximum(weights - limit, 0).sum() / weights.sum()
        assert over == pytest.approx(share, abs=1e-12)
        found = unweighting(weights, limit)
        assert found.overweight == pytest.approx(share, abs=1e-12)
        assert found.efficiency == pytest.approx((1 - share) * weights.mean() / limit)
    assert largest_share(np.array([1.0, 0.0, -3.0])) == pytest.approx(0.75)
    with pytest.raises(ValueError, match="all weights are zero"):
        largest_share(np.zeros(3))


def test_unweighted_events_follow_the_integrand():
    """f = 2 x from flat points; the mean of x is 2 / 3."""
    x = RNG.uniform(size=(20_000, 1)).astype(np.float32)
    flat = np.zeros(20_000)
    points = [Points(x, x, 2 * x[:, 0], flat, flat)]
    for limit, share in ((2.0, 1.0), (1.5, 1 - 1 / 16)):
        events = unweighted(points, jax.random.key(0), limit)
        assert len(events.x) == pytest.approx(20_000 * share / limit, rel=0.03)
        mean = np.average(events.x[:, 0], weights=events.weight)
        assert abs(mean - 2 / 3) < 4 * 0.24 / len(events.x) ** 0.5
        assert (events.weight.max() > 1) == (limit < 2)
        assert events.weight.min() == 1
    assert channel_weights(points)[0].mean() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("toy", [toys.camel(1), toys.camel(2, 0.1), toys.cut_ring()])
def test_toys_have_the_integrals_of_quadrature(x64, toy):
    value = jax.jit(jax.vmap(toy.value))
    nodes, weights = np.polynomial.legendre.leggauss(40)
    if toy.integral < 0.5:  # the ring, in polar coordinates with its cuts
        grid = lambda low, high, n: np.linspace(low, high, n + 1)[:-1] + 0.5 * (high - low) / n
        r, phi = grid(0.0, 0.5, 2000), grid(-np.pi, np.pi, 16)
        x = 0.5 + r[:, None, None] * np.stack([np.cos(phi), np.sin(phi)], -1)
        f = np.asarray(value(x.reshape(-1, 2))).reshape(2000, 16)
        measure = (0.5 / 2000) * (2 * np.pi / 16) * r[:, None]
        first, second = np.sum(f * measure), np.sum(f**2 * measure)
    else:
        axis = np.concatenate([(nodes + 1 + 2 * i) / 20 for i in range(10)])
        step = np.tile(weights / 20, 10)
        x = np.stack(np.meshgrid(*[axis] * toy.dim), -1).reshape(-1, toy.dim)
        measure = np.prod(np.stack(np.meshgrid(*[step] * toy.dim), -1).reshape(-1, toy.dim), -1)
        f = np.asarray(value(x))
        first, second = np.sum(f * measure), np.sum(f**2 * measure)
    assert toy.integral == pytest.approx(first, rel=1e-4)
    assert toy.flat_deviation == pytest.approx((second / first**2 - 1) ** 0.5, rel=1e-4)


def test_camels_have_the_published_values():
    for dim, exact in ((2, 0.981660), (4, 0.963657), (8, 0.928635), (16, 0.862363)):
        assert toys.camel(dim).integral == pytest.approx(exact, abs=1e-6)
    with pytest.raises(ValueError, match="mean below 0.5, got 0.6"):
        toys.cut_ring(0.6)
