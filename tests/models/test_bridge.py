import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import Batch, draw
from jgen.models import bridge
from jgen.nets.network import Network

V, S = 0.64, 0.5  # variance of the events, noise of their starts


def drift(sigma):
    """Exact: the mean of (x - x_t) / (1 - t) of jointly normal pairs, all of mean zero."""

    def apply(params, t, x, cond=None):
        start, both = V + S**2, V
        mixed = (1 - t) ** 2 * start + t**2 * V + 2 * t * (1 - t) * both
        variance = mixed + sigma**2 * t * (1 - t)
        return x * (((1 - t) * both + t * V) / variance - 1) / (1 - t)

    return Network(lambda key: {"a": jnp.ones(())}, apply, 0)


def test_a_bridge_of_the_noise_is_the_exact_posterior():
    """With sigma = S the pairs are those of the Schroedinger bridge: p(x | c) for every c."""
    model = bridge(drift(S), 1, S, steps=50)
    starts = np.repeat([[1.0], [-2.0]], 20_000, axis=0).astype(np.float32)
    x = draw(model, {"a": jnp.ones(())}, jax.random.key(0), len(starts), starts, batch_size=40_000)
    share = V / (V + S**2)
    for half, start in zip(x.reshape(2, -1), (1.0, -2.0), strict=True):
        assert half.mean() == pytest.approx(share * start, abs=0.015)
        assert half.std() == pytest.approx(((1 - share) * V) ** 0.5, rel=0.015)


def test_other_widths_map_the_distributions_but_change_the_pairs():
    """Sigma to infinity makes both independent; the correlation law of Schroedinger bridges."""
    starts = np.random.default_rng(0).normal(0, (V + S**2) ** 0.5, (40_000, 1)).astype(np.float32)
    model = bridge(drift(2.0), 1, 2.0, steps=100)
    x = draw(model, {"a": jnp.ones(())}, jax.random.key(0), 40_000, starts, batch_size=40_000)
    assert x.std() == pytest.approx(V**0.5, rel=0.03)
    assert np.cov(x[:, 0], starts[:, 0])[0, 1] < 0.8 * V


def test_the_loss_is_smallest_at_the_exact_drift():
    rng = np.random.default_rng(0)
    x = rng.normal(0, V**0.5, (4000, 1)).astype(np.float32)
    batch = Batch(x, (x + S * rng.normal(size=x.shape)).astype(np.float32))
    exact = drift(S).apply
    scaled = Network(
        lambda key: {"a": jnp.ones(())}, lambda p, t, x, cond=None: p["a"] * exact(p, t, x), 0
    )
    loss = jax.jit(jax.value_and_grad(bridge(scaled, 1, S).loss))
    value, slope = loss({"a": jnp.ones(())}, jax.random.key(0), batch)
    # What is left is the integral of var(x | x_t) / (1 - t) over t.
    assert value == pytest.approx(V * np.log(1 + S**2 / V), rel=0.08)
    assert abs(slope["a"]) < 0.02
    assert loss({"a": jnp.asarray(0.5)}, jax.random.key(0), batch)[0] > value + 0.005


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="sigma must be positive"):
        bridge(drift(S), 1, 0.0)
