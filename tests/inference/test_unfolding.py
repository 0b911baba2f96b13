"""Unfolding of Gaussians, of which every iteration is known."""

import jax
import numpy as np
import pytest

from jgen import OptimizerConfig, TrainConfig, models, nets
from jgen.inference import Simulation, UnfoldingConfig, iterated_generation, omnifold
from jgen.metrics import RatioConfig, histogram, separation
from jgen.toys import Normal, unfolded_gaussian

PRIOR, TRUTH, RESOLUTION = Normal(0.2, 0.8), Normal(0.0, 1.0), 0.5
FAKES = Normal(1.5, 0.7)
QUICK = RatioConfig((16,), 30, 200, 1e-2)


def events(num, seed=0):
    rng = np.random.default_rng(seed)
    gen, truth = (rng.normal(*of, (num, 1)) for of in (PRIOR, TRUTH))
    smeared = lambda x: x + rng.normal(0, RESOLUTION, x.shape)
    return Simulation(gen, smeared(gen)), smeared(truth)


def moments(result, iteration, member=0):
    x, weights = result.sample(iteration, member)
    mean = np.average(x[:, 0], weights=weights)
    return Normal(mean, np.average((x[:, 0] - mean) ** 2, weights=weights) ** 0.5)


def test_the_law_of_all_iterations():
    """Numbers by hand; the last is the truth, and the separation power falls to it."""
    found = unfolded_gaussian(PRIOR, TRUTH, RESOLUTION, 5)
    means, widths = zip(*found, strict=True)
    np.testing.assert_allclose(means, [0.2, 0.0562, 0.0131, 0.0028, 0.0006, 0.0001], atol=6e-5)
    np.testing.assert_allclose(widths, [0.8, 0.9089, 0.9636, 0.9864, 0.9950, 0.9982], atol=6e-5)
    assert unfolded_gaussian(PRIOR, TRUTH, RESOLUTION, 200)[-1] == pytest.approx(TRUTH, abs=1e-6)


X = np.linspace(-8, 8, 801)


def in_bins(of):
    density = np.exp(-0.5 * ((X - of.mean) / of.width) ** 2)
    return density / density.sum()


def bayes_in_bins(fake, num):
    """Distributions of iterative Bayesian unfolding on a fine grid, with a fraction of fakes."""
    response = np.array([in_bins(Normal(x, RESOLUTION)) for x in X])
    prior, fakes = in_bins(PRIOR), in_bins(FAKES)
    data = (1 - fake) * in_bins(TRUTH) @ response + fake * fakes
    push, push_fakes, found = np.ones(len(X)), np.ones(len(X)), [prior]
    for _ in range(num):
        reco = (1 - fake) * (prior * push) @ response + fake * fakes * push_fakes
        push = push * (response @ (data / reco))
        push /= prior @ push
        push_fakes = ((prior * push) @ response) / (prior @ response)
        found.append(prior * push)
    return found


def moments_in_bins(p):
    return Normal(X @ p, (X**2 @ p - (X @ p) ** 2) ** 0.5)


def test_a_round_of_bayes_in_bins_has_the_same_law():
    """And the triangular discriminator of 1911.09107, which is the separation power."""
    edges = np.append(X, 8.02) - 0.01
    data, powers = histogram(X, edges, in_bins(TRUTH)), []
    found = bayes_in_bins(0.0, 5)
    for p, exact in zip(found, unfolded_gaussian(PRIOR, TRUTH, RESOLUTION, 5), strict=True):
        assert moments_in_bins(p) == pytest.approx(exact, abs=1e-3)
        powers.append(1e3 * separation(data, histogram(X, edges, p), num_bootstrap=0).value)
    np.testing.assert_allclose(powers, [33.44, 5.31, 0.728, 0.096, 0.013, 0.002], atol=6e-3)


@pytest.mark.study
def test_omnifold_with_lost_events_and_fakes_is_bayes_with_fakes():
    """A fifth of the events is lost, which changes nothing, a tenth of the measured ones fakes."""
    num = 40_000
    simulation, measured = events(num)
    rng = np.random.default_rng(5)
    seen = rng.uniform(size=num) < 0.8
    real = (rng.uniform(size=num) < 0.9) | ~seen
    fakes = rng.normal(*FAKES, (num, 1))
    reco = np.where(real[:, None], simulation.reco, fakes)
    reco[~seen] = -10
    measured[: num // 10] = rng.normal(*FAKES, (num // 10, 1))
    simulation = Simulation(simulation.gen, reco, None, real, seen)
    config = UnfoldingConfig(2, ratio=RatioConfig((64, 64), 400, 1000, 1e-2))
    found = omnifold(simulation, measured, jax.random.key(0), config)
    assert found.events.shape == (1, 1, real.sum(), 1)
    for iteration, p in enumerate(bayes_in_bins(0.1, 2)[1:]):
        mean, width = moments(found, iteration)
        exact = moments_in_bins(p)
        assert mean == pytest.approx(exact.mean, abs=0.025)
        assert width == pytest.approx(exact.width, rel=0.025)


@pytest.mark.study
def test_a_bridge_follows_the_law():
    simulation, measured = events(20_000)
    model = models.bridge(nets.velocity_mlp(1, hidden=(32, 32), time_features=0), 1, 0.5, steps=20)
    training = TrainConfig(800, 512, optimizer=OptimizerConfig(1e-2))
    config = UnfoldingConfig(2, ratio=RatioConfig((32, 32), 400, 1000, 1e-2))
    args = (simulation, measured, jax.random.key(0), model, training, config)
    found = iterated_generation(*args, batch_size=20_000, progress=False)
    for iteration, exact in enumerate(unfolded_gaussian(PRIOR, TRUTH, RESOLUTION, 2)[1:]):
        mean, width = moments(found, iteration)
        assert mean == pytest.approx(exact.mean, abs=0.025)
        assert width == pytest.approx(exact.width, rel=0.025)


def test_weights_and_lost_events_keep_their_meaning():
    """Without training nothing is learnt: weights are those that came, lost events included."""
    simulation, measured = events(300)
    idle = UnfoldingConfig(1, ratio=RatioConfig((4,), 1, 10, 1e-30))
    weights = np.linspace(0.5, 1.5, 300)
    seen, real = np.arange(300) % 2 == 0, np.arange(300) % 3 > 0
    simulation = simulation._replace(weights=weights, is_measured=seen, is_generated=real)
    found = omnifold(simulation, measured, jax.random.key(0), idle)
    np.testing.assert_allclose(found.weights[0, 0], weights[real], rtol=1e-5)


def test_members_of_a_bootstrap_do_not_depend_on_their_number_or_the_axis():
    simulation, measured = events(200)
    found = {}
    for members, axis in ((2, "scan"), (3, "vmap")):
        config = UnfoldingConfig(2, members, True, QUICK, axis)
        found[members] = omnifold(simulation, measured, jax.random.key(0), config)
    np.testing.assert_allclose(found[2].weights, found[3].weights[:2], rtol=1e-3, atol=1e-3)
    drawn = found[3].weights[:, -1] == 0
    assert np.all(np.abs(drawn.mean(axis=1) - np.exp(-1)) < 0.12)
    assert (drawn[0] != drawn[1]).any()
    rows = found[3].fractions(0, np.linspace(-5, 5, 5))
    assert rows.shape == (3, 4)
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-5)


def test_bad_samples_are_refused():
    simulation, measured = events(50)
    key, model = jax.random.key(0), models.bridge(nets.velocity_mlp(1), 1, 0.5)
    with pytest.raises(ValueError, match="as many features as reco"):
        omnifold(simulation, np.ones((5, 2)), key)
    with pytest.raises(ValueError, match="weights must be finite, not negative"):
        omnifold(simulation, measured, key, measured_weights=-np.ones(50))
    with pytest.raises(ValueError, match="is_measured must have one boolean an event"):
        omnifold(simulation._replace(is_measured=np.zeros(50, bool)), measured, key)
    lost = simulation._replace(is_measured=np.arange(50) > 5)
    with pytest.raises(ValueError, match="or omnifold, which knows lost events"):
        iterated_generation(lost, measured, key, model, TrainConfig(1))
