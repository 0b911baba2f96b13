"""Exact answers of the study of families."""

import json

import jax
import numpy as np
import pytest

from experiments import study as harness
from experiments.models import families as study
from experiments.models import zoo
from experiments.models.data import make_data
from jgen.nets import num_parameters

SMALL = study.SMOKE
FAMILIES = zoo.FAMILIES


@pytest.mark.study
def test_metrics_of_the_smoke_run(smoke):
    metrics = json.loads((smoke("families") / "metrics.json").read_text())
    name = "eight-gaussians"
    # log 8 + log(2 pi e 0.04) would be the entropy of Gaussians that do not overlap.
    apart = np.log(8 * 2 * np.pi * np.e * 0.2**2)
    assert metrics[f"entropy/{name}"] == pytest.approx(apart, abs=0.01)
    assert abs(metrics[f"truth/{name}"] - apart) < 4 / 1000**0.5
    for family in FAMILIES:
        where = f"{family}/{name}"
        # Truth against truth, 1000 events a side.
        assert abs(metrics[f"auc/{where}_truth"] - 0.5) < 4 * metrics[f"auc/{where}_truth_error"]
        assert metrics[f"sw1/{where}"] > metrics[f"sw1/{where}_truth"]
        assert 0 < metrics[f"sw1/{where}_error"] < 0.1
        assert metrics[f"modes/{family}/lowest"] <= 1 <= metrics[f"modes/{family}/highest"]
        has_density = family not in ("gan", "wgan-gp", "consistency", "mean-flow")
        assert (f"nll/{where}" in metrics) == has_density
        if has_density:
            gap = metrics[f"nll/{where}"] - metrics[f"truth/{name}"]
            assert metrics[f"gap/{where}"] == pytest.approx(gap, abs=1e-3)
            assert gap > -4 * metrics[f"gap/{where}_error"]
    # A Gaussian of the same covariance, 2.04 in both coordinates, is worse than the bins.
    assert metrics[f"nll/autoregressive/{name}"] < np.log(2 * np.pi * np.e * 2.04)


def test_shares_of_modes_of_known_events():
    angles = np.pi / 4 * np.repeat(np.arange(8), 2)
    centres = 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    shares, astray = study.mode_shares(centres + 0.1)
    np.testing.assert_array_equal(shares, np.ones(8))
    assert astray == 0
    # Near both borders of the first mode, of angles +-pi / 8.
    events = 2 * np.array([[np.cos(0.35), np.sin(0.35)], [np.cos(0.35), -np.sin(0.35)]])
    assert study.mode_shares(events)[0][0] == 8
    # Two modes only, three to one, and one event of them out in the middle.
    events = np.array([[2, 0], [2, 0.1], [0.9, 0], [0, 2]])
    shares, astray = study.mode_shares(events)
    np.testing.assert_array_equal(shares, [6, 0, 2, 0, 0, 0, 0, 0])
    assert astray == 0.25
    modes = study.mode_metrics(events)
    assert (modes["lost"], modes["lowest"]) == (6, (0, 0))
    # 8 sqrt(p (1 - p) / n) at p = 3 / 4 and n = 4.
    assert modes["highest"].error == pytest.approx(8 * (3 / 4 / 4 / 4) ** 0.5)


def test_truth_has_no_distance_and_a_shift_has_its_own(tmp_path):
    data = make_data(SMALL, "eight-gaussians")
    with harness.Run(tmp_path, SMALL) as run:
        distances = lambda x: SMALL.distances(run, "eight-gaussians", x)
        assert distances(data.test)["sw1"].value == pytest.approx(0, abs=1e-12)
        far = distances(data.test + 10 * data.test.std(axis=0) * [1, 0])
    # The mean of |cos| over eight angles, and a shift that every classifier sees.
    mean = np.abs(np.cos(np.pi * np.arange(8) / 8)).mean()
    assert far["sw1"].value == pytest.approx(10 * mean, rel=1e-5)
    assert far["auc"].value > 0.99


@pytest.mark.parametrize("name", ["camel", "digits"])
def test_every_family_is_a_model_of_vectors(name):
    data = make_data(SMALL, name)
    sizes, key = SMALL.of(name).sizes, jax.random.key(0)
    for family in FAMILIES:
        model = zoo.make_model(family, sizes, data)
        params = jax.eval_shape(model.init, key)
        x = jax.eval_shape(model.sample, params, key, None)
        assert x.shape == (data.dim,)
        if model.log_prob is not None:
            assert jax.eval_shape(model.log_prob, params, key, x, None).shape == ()
        calls = zoo.calls_an_event(family, sizes, data.dim)
        expected = {"autoregressive": data.dim, "diffusion": 9, "flow-matching": 8}
        assert calls == expected.get(family, 1)


def test_bins_of_digits_are_their_grey_levels():
    """With any network, the density of the last pixel is flat in each level and not across."""
    data = make_data(SMALL, "digits")
    model = zoo.make_model("autoregressive", SMALL.digits.sizes, data)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda a: rng.normal(size=a.shape).astype(np.float32),
        jax.eval_shape(model.init, jax.random.key(0)),
    )
    x = np.repeat(data.test[:1], 34, axis=0)
    level = np.repeat(np.arange(17), 2)
    x[:, -1] = (level + np.tile([0.02, 0.98], 17)) / 17
    one = lambda x: model.log_prob(params, jax.random.key(0), x, None)
    low, high = np.asarray(jax.jit(jax.vmap(one))(x)).reshape(17, 2).T
    np.testing.assert_allclose(low, high, atol=1e-3)
    assert (abs(np.diff(low)) > 0.01).all()


def test_only_gans_have_two_players():
    training = SMALL.toys.adversarial
    for family in FAMILIES:
        has_two = family in ("gan", "wgan-gp")
        assert (zoo.players(family, SMALL.toys.sizes, training) is not None) == has_two


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--families", "data and families must name at least one each"),
        ("--num-draw 5", "num_draw must be at least 100, got 5"),
        ("--bootstrap 1", "bootstrap must be at least 2, got 1"),
        ("--toys.sizes.hidden 16 0", "hidden must be positive"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(SystemExit, match=message):
        harness.run(study.STUDY, ["--preset", "smoke", "--dry-run", *options.split()])


def test_parameters_by_hand():
    sizes = {name: num_parameters(model.init) for name, model in study.build(SMALL).items()}
    # Layers 16 -> 16 -> 2 and 2 -> 16 -> 1, weights and biases.
    assert sizes["gan eight-gaussians"] == 17 * 16 + 17 * 2 + 3 * 16 + 17
    # The consistency function has the network of its teacher.
    assert sizes["consistency eight-gaussians"] == sizes["flow-matching eight-gaussians"]
    # MeanFlow's is as wide here and has one input more, the width of the interval.
    assert sizes["mean-flow eight-gaussians"] == sizes["flow-matching eight-gaussians"] + 16
