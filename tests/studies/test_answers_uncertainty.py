"""The uncertainty study: its Bayesian loss, its members and its options."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.showers import uncertainty as study
from jgen import Batch
from jgen.showers import calodream, get_geometry, read_showers
from jgen.transforms import draw_weights

SMOKE = study.SMOKE
LATENT = ("--calodream.space", "latent", "--calodream.shape-network.patch", 5, 9, 3)


def test_the_divergence_counts_in_units_of_the_loss():
    """Loss minus the inner one, against the closed form for weights at the prior's mean."""
    posterior = dataclasses.replace(SMOKE.posterior, prior_scale=0.5, temperature=3.0)
    config = dataclasses.replace(SMOKE, posterior=posterior)
    model = study.trained_model(config, "bayesian", "energy", num_train=7)
    key = jax.random.key(1)
    shapes = jax.eval_shape(model.init, key)
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    inner = calodream.parts(config.calodream)["energy"].model
    batch = Batch(jnp.zeros((2, 45)), jnp.zeros(2))
    narrow = params | {"log_scale": jax.tree.map(lambda a: a - 20.0, params["log_scale"])}
    num = sum(leaf.size for leaf in jax.tree.leaves(params["mean"]))
    divergence = num * (math.log(0.5) + 20.0 - 0.5)
    weights_key, loss_key = jax.random.split(key)
    data = jax.jit(inner.loss)(jax.jit(draw_weights)(narrow, weights_key), loss_key, batch)
    difference = jax.jit(model.loss)(narrow, key, batch) - data
    assert float(difference) == pytest.approx(3.0 * 2 / 45 * divergence / 7, rel=1e-5)


def test_members_of_an_ensemble_are_its_rows():
    assert study.training(SMOKE, "ensemble", "shape").ensemble == SMOKE.members == 4
    assert study.training(SMOKE, "bayesian", "shape").ensemble == 1
    stacked = {"energy": {"w": np.arange(4)}, "shape": {"w": 10 * np.arange(4)}}
    members = list(study.members(SMOKE, "ensemble", stacked, None))
    assert [(m["energy"]["w"], m["shape"]["w"]) for m in members] == [
        (0, 0), (1, 10), (2, 20), (3, 30),
    ]  # fmt: skip


@pytest.mark.study
def test_draws_differ_by_their_networks_alone(smoke):
    """Incident energies and noise are the same, so that narrow posteriors make close showers."""
    out, geometry = smoke("uncertainty"), get_geometry("ds2")
    first, second = (read_showers(out / f"bayesian/samples-{i}.h5", geometry) for i in (0, 1))
    np.testing.assert_array_equal(first.energies, second.energies)
    assert np.any(first.voxels != second.voxels)
    totals = [np.log(one.voxels.sum(axis=1) / one.energies) for one in (first, second)]
    assert np.corrcoef(totals)[0, 1] > 0.99


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--members", 3), "at least 4"),
        (("--layer", 45), "layer must be one of the 45 layers"),
        (("--smallest-bin", 1), "smallest_bin must be at least 5"),
        (("--posterior.prior-scale", 0), "prior_scale"),
        (LATENT, "networks in voxels"),
    ],
)
def test_bad_options(options, message, command):
    with pytest.raises(SystemExit, match=message):
        command("uncertainty", *options, "--dry-run")
