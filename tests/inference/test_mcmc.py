"""Chains against their stationary distributions, and autocorrelation times known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal, stats

from jgen.inference import (
    autocorrelation_time,
    chain_mean,
    hamiltonian,
    independence_metropolis,
    random_walk,
)


def energy(x, cond):
    """A Gaussian of widths 1 and 1/2 around `cond`, events of shape [2, 1]."""
    return 0.5 * jnp.sum((x - cond) ** 2 * jnp.array([[1.0], [4.0]]))


def test_independence_metropolis_by_the_transition_matrix():
    """Four states: the chain's pairs of neighbours against the matrix written out."""
    q, p = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.1, 0.2, 0.3, 0.4])
    num, chains = 4000, 10
    states = np.random.default_rng(0).choice(4, (chains, num), p=q)
    log_w = np.log(p / q)[states]
    run = independence_metropolis(jax.random.key(0), jnp.asarray(log_w))
    chain = np.take_along_axis(states, np.asarray(run.index), 1)[:, 20:]
    w = p / q
    matrix = q * np.minimum(1, w[None, :] / w[:, None])
    matrix += np.diag(1 - matrix.sum(axis=1))
    np.testing.assert_allclose(p @ matrix, p)  # what is to be left invariant
    pairs = np.zeros((4, 4))
    np.add.at(pairs, (chain[:, :-1], chain[:, 1:]), 1)
    np.testing.assert_allclose(pairs.sum(axis=1) / pairs.sum(), p, atol=0.015)
    np.testing.assert_allclose(pairs / pairs.sum(axis=1, keepdims=True), matrix, atol=0.03)
    acceptance = np.sum(p[:, None] * q * np.minimum(1, w[None, :] / w[:, None]))
    assert np.mean(run.accepted) == pytest.approx(acceptance, abs=0.01)


def test_independence_metropolis_of_a_perfect_model_takes_everything():
    run = independence_metropolis(jax.random.key(0), jnp.full(100, -3.0))
    np.testing.assert_array_equal(run.index, np.arange(100))
    assert np.all(run.accepted)
    # Proposals without weight are not taken, and a start without weight is left at once.
    run = independence_metropolis(jax.random.key(0), jnp.array([-jnp.inf, 0.0, -jnp.inf, 0.0]))
    np.testing.assert_array_equal(run.index, [0, 1, 1, 3])


@pytest.fixture(scope="module")
def chains():
    start = np.full((20, 2, 1), 2.0)
    kwargs = {"cond": jnp.array([[2.0], [1.0]])}
    return {
        "walk": random_walk(jax.random.key(1), energy, start, 1000, width=1.0, thin=6, **kwargs),
        "hmc": hamiltonian(
            jax.random.key(2), energy, start, 1000, step_size=0.4, max_steps=6, **kwargs
        ),
    }


@pytest.mark.parametrize("name", ["walk", "hmc"])
def test_chains_follow_the_target(chains, name):
    run = chains[name]
    assert run.x.shape == (20, 1000, 2, 1)
    assert 0.2 < np.mean(run.acceptance) < 0.99
    x = np.asarray(run.x[:, 50:, :, 0], np.float64)
    for i, (mean, width) in enumerate([(2.0, 1.0), (1.0, 0.5)]):
        first, second = chain_mean(x[..., i]), chain_mean((x[..., i] - mean) ** 2)
        assert abs(first.value - mean) < 4 * first.error
        assert abs(second.value - width**2) < 4 * second.error
        assert max(first.error, second.error) < 0.05
        thinned = x[:, ::50, i].ravel()
        assert stats.kstest(thinned, stats.norm(mean, width).cdf).pvalue > 1e-3


def test_hmc_with_random_lengths_moves_every_mode():
    """The longest trajectory is a period of both oscillators: with all so long they would stick."""
    stiff = lambda x, cond: 0.5 * jnp.sum(x**2 * jnp.array([1.0, 4.0]))
    run = hamiltonian(
        jax.random.key(3), stiff, np.ones((10, 2)), 500, step_size=0.05 * np.pi, max_steps=40
    )
    x = np.asarray(run.x[:, 20:])
    for i, width in enumerate([1.0, 0.5]):
        assert autocorrelation_time(x[..., i]).value < 3
        found = chain_mean(x[..., i] ** 2)
        assert abs(found.value - width**2) < 4 * found.error


def ar1(a, chains, num, seed):
    """x_t = a x_(t-1) + noise with variance one: rho(t) = a^t, tau = (1 + a) / (2 (1 - a))."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(chains, num)) * (1 - a**2) ** 0.5
    noise[:, 0] = rng.normal(size=chains)
    return signal.lfilter([1], [1, -a], noise, axis=1)


@pytest.mark.parametrize("a", [0.0, 0.6, 0.9, -0.4])
def test_autocorrelation_time_of_a_first_order_process(a):
    exact = (1 + a) / (2 * (1 - a))
    found = autocorrelation_time(ar1(a, 1, 50_000, 5))
    # Beside the statistical error there is that of the window, exp(-W / tau) of the value.
    assert abs(found.value - exact) < 4 * found.error + exact * abs(a) ** found.window
    assert found.error < 0.07 * exact + 0.02
    assert found.window > 4 * exact  # what is left out is small
    replica = autocorrelation_time(ar1(a, 10, 5000, 6))
    assert abs(replica.value - exact) < 4 * replica.error + exact * abs(a) ** replica.window


def test_errors_of_means_are_those_of_repetitions():
    runs = [ar1(0.8, 2, 2000, seed) for seed in range(200)]
    means = [chain_mean(run + 3.0) for run in runs]
    values, errors = np.array(means).T
    assert errors.mean() == pytest.approx(values.std(), rel=0.2)
    exact = (2 * 4.5 / 4000) ** 0.5
    assert errors.mean() == pytest.approx(exact, rel=0.05)
    taus = np.array([autocorrelation_time(run)[:2] for run in runs])
    assert taus[:, 1].mean() == pytest.approx(taus[:, 0].std(), rel=0.25)
    # The subtraction of the mean is corrected: without, tau would be low by 2 tau / 4000 of it.
    assert taus[:, 0].mean() == pytest.approx(4.5, rel=0.03)


def test_chains_stuck_apart_have_a_long_time():
    stuck = ar1(0.2, 4, 1000, 7) + np.array([[-5.0], [5.0], [-5.0], [5.0]])
    assert autocorrelation_time(stuck).value > 100


def test_bad_input():
    start, key = np.zeros((2, 1)), jax.random.key(0)
    nan, infinite = np.array([[1.0], [np.nan]]), np.array([[0.0, 1.0], [0.0, np.inf]])
    for call, message in (
        (lambda: random_walk(key, energy, start, 0, width=1.0), "num must be a whole number"),
        (lambda: random_walk(key, energy, np.zeros(3), 5, width=1.0), r"\[chains, \*event\]"),
        (
            lambda: hamiltonian(key, energy, start, 5, step_size=0.0, max_steps=1),
            "must be positive",
        ),
        (
            lambda: random_walk(key, lambda x, c: jnp.sum(x**2), nan, 5, width=1.0),
            "chain 1 starts where its energy is nan",
        ),
        (
            lambda: hamiltonian(
                key, lambda x, c: jnp.sum(jnp.exp(x)), start + 999.0, 5, step_size=0.1, max_steps=2
            ),
            "chain 0 starts where its energy is inf",
        ),
        (lambda: independence_metropolis(key, nan[:, 0]), r"log weight \(1,\) is nan"),
        (lambda: independence_metropolis(key, infinite), r"log weight \(1, 1\) is inf"),
        (lambda: autocorrelation_time(np.zeros(3)), "four or more"),
        (lambda: autocorrelation_time(np.ones(10)), "never moved"),
        (lambda: chain_mean(np.array([0.0, 1.0, np.nan, 2.0])), "not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
