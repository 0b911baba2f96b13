"""Discrepancies against closed forms and loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.models.mmd import gaussian_mmd, sorted_kernel_mmd

SCALES = (0.4, 1.5)


def kernel(a, b):
    return np.mean([np.exp(-np.sum((a - b) ** 2) / (2 * s**2)) for s in SCALES])


def test_mmd_is_the_sum_over_pairs(key):
    x = np.asarray(jax.random.normal(key, (5, 3)))
    y = np.asarray(jax.random.normal(jax.random.fold_in(key, 1), (4, 3))) + 0.3
    own = lambda a: np.mean(
        [kernel(a[i], a[j]) for i in range(len(a)) for j in range(len(a)) if i != j]
    )
    expected = own(x) + own(y) - 2 * np.mean([kernel(a, b) for a in x for b in y])
    np.testing.assert_allclose(gaussian_mmd(x, y, SCALES), expected, rtol=1e-5)


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_mmd_of_normal_samples_is_that_of_their_densities(shift, key):
    """E k(x, y) of N(0, 1) and N(m, 1) is s / sqrt(s^2 + 2) exp(-m^2 / 2 (s^2 + 2))."""
    overlap = lambda m: np.mean(
        [s / np.sqrt(s**2 + 2) * np.exp(-(m**2) / (2 * (s**2 + 2))) for s in SCALES]
    )
    keys = jax.random.split(key, 400)

    @jax.jit
    @jax.vmap
    def one(key):
        x, y = jax.random.normal(key, (2, 40, 1))
        return gaussian_mmd(x, y + shift, SCALES)

    found = np.asarray(one(keys))
    expected = 2 * (overlap(0) - overlap(shift))
    assert abs(found.mean() - expected) < 4 * found.std() / 20
    assert found.std() / 20 < 0.004


def test_sorted_windows_are_compared_rank_by_rank(key):
    x = np.asarray(jax.random.normal(key, (9,)))
    y = np.asarray(jax.random.normal(jax.random.fold_in(key, 1), (9,)))
    a, b = np.sort(x)[::-1], np.sort(y)[::-1]
    terms = []
    for first in (0, 2, 4):  # windows of 3 in the largest 7
        u, v = a[first : first + 3], b[first : first + 3]
        pairs = lambda p, q: np.mean([kernel(i, j) for i in p for j in q])
        terms.append(pairs(u, u) + pairs(v, v) - 2 * pairs(u, v))
    found = sorted_kernel_mmd(jnp.asarray(x), jnp.asarray(y), SCALES, window=3, stride=2, num=7)
    np.testing.assert_allclose(found, np.mean(terms), rtol=1e-5)


def test_order_does_not_matter_and_gradients_lead_to_the_same_spectrum(key):
    x = jnp.sort(jax.random.normal(key, (20,)))
    options = {"scales": (0.3, 1.0), "window": 4, "stride": 2, "num": 20}
    shuffled = jax.random.permutation(jax.random.fold_in(key, 1), x)
    assert abs(sorted_kernel_mmd(x, shuffled, **options)) < 1e-6
    value = jax.jit(lambda y: sorted_kernel_mmd(y, shuffled, **options))
    start = 0.5 * x + 1
    y = jax.lax.fori_loop(0, 3000, lambda i, y: y - 0.3 * jax.grad(value)(y), start)
    assert value(y) < 0.02 * value(start)
    # The number that does not count has no gradient.
    fewer = lambda y: sorted_kernel_mmd(y, shuffled, **(options | {"num": 10}))
    np.testing.assert_array_equal(np.asarray(jax.jit(jax.grad(fewer))(x))[:10], 0)


@pytest.mark.parametrize("window", [0, 8])
def test_windows_that_do_not_fit_are_refused(window):
    x = jnp.arange(9.0)
    with pytest.raises(ValueError, match=f"windows of {window} numbers out of 7"):
        sorted_kernel_mmd(x, x, (1.0,), window=window, stride=1, num=7)


def test_one_event_has_no_unbiased_distance():
    x = jnp.ones((3, 2))
    for pair in ((x, x[:1]), (x[:1], x)):
        with pytest.raises(ValueError, match="two events or more of each, got"):
            gaussian_mmd(*pair, SCALES)
