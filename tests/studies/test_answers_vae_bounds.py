"""Bounds of VAEs: exact values of a small run, baselines by hand."""

import json

import numpy as np
import pytest

from experiments import study as harness
from experiments.models import vae_bounds as study
from jgen import models
from jgen.metrics import pca_log_prob

SMALL = study.SMOKE


@pytest.fixture
def metrics(smoke):
    return json.loads((smoke("vae_bounds") / "metrics.json").read_text())


@pytest.mark.study
def test_the_trained_linear_bound_is_the_likelihood_of_probabilistic_pca(metrics):
    assert metrics["linear/elbo"] == pytest.approx(metrics["linear/pca"], abs=0.01)
    assert metrics["linear/log_prob"] <= metrics["linear/pca"] + 1e-4
    assert 0 <= metrics["linear/elbo_short"] + 3 * metrics["linear/elbo_short_error"]


@pytest.mark.study
def test_a_wide_encoder_falls_short_by_its_kl_and_draws_make_up_for_it(metrics):
    gap, error = metrics["widened/gap"], metrics["widened/gap_error"]
    assert metrics["widened/gap_exact"] == pytest.approx(np.e - 2, rel=1e-6)
    assert abs(gap - metrics["widened/gap_exact"]) < 4 * error + 0.01
    # With z the standardised latent under the exact posterior, log w - log p(x) is this for every
    # event: the ratio of N(z; 0, 1) and N(z; 0, e) at z = sqrt(e) n.
    square = np.random.default_rng(0).normal(size=(20_000, 64, 2)) ** 2
    log_w = np.sum(0.5 + 0.5 * (1 - np.e) * square, axis=-1)
    for k in (2, 8, 64):
        expected = -np.mean(np.log(np.mean(np.exp(log_w[:, :k]), axis=1)))
        error = metrics[f"widened/short_{k}_error"]
        assert metrics[f"widened/short_{k}"] == pytest.approx(expected, abs=4 * error + 0.01), k


@pytest.mark.study
def test_bounds_of_digits_rise_to_the_quadrature(metrics):
    values = [metrics[f"digits/plane/iwae_{2**i}"] for i in range(7)]
    assert values[0] == metrics["digits/plane/elbo"]
    # What is missing to the quadrature falls as 1/K where the weights vary little.
    short = metrics["digits/plane/log_prob"] - np.array(values)
    assert 0 < short[-1] < 0.7 * short[-2]
    assert metrics["digits/plane/quadrature_error"] < 1e-3
    # Even this short training beats independent pixels.
    assert metrics["digits/plain/iwae_64"] > metrics["digits/product"]


def test_quadrature_and_draws_agree_on_a_decoder_that_ignores_its_latent():
    logits = np.linspace(-2, 2, 64, dtype=np.float32)
    coder = models.Autoencoder(None, None, lambda params, r, cond=None: params + 0 * r[0])
    x = np.float32(np.random.default_rng(0).random((3, 64)) < 0.5)
    expected = np.sum(x * logits - np.logaddexp(0, logits), axis=1)
    found = study.quadrature_log_prob(coder, logits, x, 61)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_splits_of_the_digits():
    data = study.digits_data(SMALL)
    assert {name: len(x) for name, x in data.items()} == {
        "test": 360, "validation": 200, "train": 1237
    }  # fmt: skip
    assert all(set(np.unique(x)) == {0, 1} for x in data.values())


def test_probabilistic_pca_is_the_likelihood_at_its_solution():
    x = study.linear_events(SMALL).astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    noise = values[:2].mean()
    weights = vectors[:, 2:] * np.sqrt(values[2:] - noise)
    decoder = {
        "mean": {"weights": weights, "shift": x.mean(axis=0)}, "log_scale": np.log(noise) / 2
    }  # fmt: skip
    found = study.exact_linear_log_prob({"decoder": decoder}, x).mean()
    assert found == pytest.approx(pca_log_prob(x, 2), rel=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--num-importance 48", "power of two, got 48"),
        ("--mixtures 1", "mixtures must be at least 2"),
        ("--digits.grid 20", "odd number from 3 on, got 20"),
        ("--linear.num-latent 4", "fewer latent numbers"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(SystemExit, match=message):
        harness.run(study.STUDY, ["--preset", "smoke", "--dry-run", *options.split()])
