"""Study of families: models, helpers with known answers, a small run of all of them."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments import _families as parts
from experiments import _families_models as models
from experiments import _families_report as report
from experiments import _judging
from experiments import families as study
from experiments._command_line import run
from experiments._flows_data import make_data

FAMILIES = models.FAMILIES
# One of each way to train, each of which takes seconds to compile; flow matching is trained, too,
# as the teacher of the consistency model.
SMALL = dataclasses.replace(
    study.SMOKE, families=("wgan-gp", "vae", "diffusion", "consistency", "autoregressive")
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, study.main(SMALL, out)


def test_metrics_hold_every_family_beside_the_truth(finished):
    out, metrics = finished
    assert json.loads((out / "metrics.json").read_text()) == metrics
    name = "eight-gaussians"
    # log 8 + log(2 pi e 0.04) would be the entropy of Gaussians that do not overlap.
    apart = np.log(8 * 2 * np.pi * np.e * 0.2**2)
    assert metrics[f"entropy/{name}"] == pytest.approx(apart, abs=0.01)
    assert abs(metrics[f"truth/{name}"] - apart) < 4 / 1000**0.5
    # Truth against truth, 1000 events a side.
    assert abs(metrics[f"auc/truth/{name}"] - 0.5) < 4 * metrics[f"auc_error/truth/{name}"]
    for family in SMALL.families:
        where = f"{family}/{name}"
        assert metrics[f"sw1/{where}"] > metrics[f"sw1/truth/{name}"]
        assert 0 < metrics[f"sw1_error/{where}"] < 0.1
        assert 0 < metrics[f"auc_error/{where}"] < 0.3
        assert metrics[f"ms_sample/{where}"] > 0
        assert metrics[f"train_s/{where}"] > 0
        assert 0 <= metrics[f"modes/{family}/lowest"] <= 1 <= metrics[f"modes/{family}/highest"]
        has_density = family not in ("gan", "wgan-gp", "consistency")
        assert (f"nll/{where}" in metrics) == has_density
        if has_density:
            gap = metrics[f"nll/{where}"] - metrics[f"truth/{name}"]
            assert metrics[f"gap/{where}"] == pytest.approx(gap, abs=1e-3)
            assert gap > -4 * metrics[f"gap_error/{where}"]
    # A Gaussian of the same covariance, 2.04 in both coordinates, is worse than the bins.
    assert metrics[f"nll/autoregressive/{name}"] < np.log(2 * np.pi * np.e * 2.04)


def test_a_run_can_be_drawn_again_and_goes_on(finished, capsys):
    out, metrics = finished
    trained = out / "eight-gaussians" / "wgan-gp"
    for name in ("gallery", "quality-time"):
        (out / "figures" / f"{name}.png").unlink()
    # As if interrupted after the training: it is judged again, not trained.
    before = (trained / "params.npz").stat().st_mtime_ns
    (trained / "results.npz").unlink()
    with pytest.raises(ValueError, match="wgan-gp/results.npz is not there to plot"):
        study.main(SMALL, out, plot_only=True)
    again = study.main(SMALL, out)
    assert (trained / "params.npz").stat().st_mtime_ns == before
    timed = {name for name in metrics if name.startswith("ms_sample/wgan-gp/")}
    assert {k: v for k, v in again.items() if k not in timed} == {
        k: v for k, v in metrics.items() if k not in timed
    }
    capsys.readouterr()
    assert study.main(SMALL, out, plot_only=True) == again
    for name in ("gallery", "quality-time"):
        assert (out / "figures" / f"{name}.png").stat().st_size > 1000
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["NLL", "[nats],", "VAE:", "bound", "eight-gaussians"]
    assert table[3].split() == ["wgan-gp", "-"]


def test_shares_of_modes_of_known_events():
    angles = np.pi / 4 * np.repeat(np.arange(8), 2)
    centres = 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    shares, astray = report.mode_shares(centres + 0.1)
    np.testing.assert_array_equal(shares, np.ones(8))
    assert astray == 0
    # Near both borders of the first mode, of angles +-pi / 8.
    events = 2 * np.array([[np.cos(0.35), np.sin(0.35)], [np.cos(0.35), -np.sin(0.35)]])
    assert report.mode_shares(events)[0][0] == 8
    # Two modes only, three to one, and one event of them out in the middle.
    events = np.array([[2, 0], [2, 0.1], [0.9, 0], [0, 2]])
    shares, astray = report.mode_shares(events)
    np.testing.assert_array_equal(shares, [6, 0, 2, 0, 0, 0, 0, 0])
    assert astray == 0.25
    found = report._mode_metrics("gan", events)
    assert found["modes/gan/lost"] == 6
    assert (found["modes/gan/lowest"], found["modes_error/gan/lowest"]) == (0, 0)
    # 8 sqrt(p (1 - p) / n) at p = 3 / 4 and n = 4.
    assert found["modes_error/gan/highest"] == pytest.approx(8 * (3 / 4 / 4 / 4) ** 0.5)


def test_truth_has_no_distance_and_a_shift_has_its_own():
    data = make_data("eight-gaussians", SMALL.num_train, SMALL.num_test, 0)
    same = parts.compared(SMALL, "eight-gaussians", data, data.test)
    assert same["sw1"][0] == pytest.approx(0, abs=1e-12)
    std = data.test.std(axis=0)
    far = parts.compared(SMALL, "eight-gaussians", data, data.test + 10 * std * [1, 0])
    # The mean of |cos| over eight angles, and a shift that every classifier sees.
    mean = np.abs(np.cos(np.pi * np.arange(8) / 8)).mean()
    assert far["sw1"][0] == pytest.approx(10 * mean, rel=1e-5)
    assert far["auc"][0] > 0.99


def test_bins_hold_all_of_the_training_and_some_more():
    z = np.random.default_rng(0).normal(size=(100, 3)) * [1, 2, 3]
    edges = models.equal_bins(z, 12)
    assert edges.shape == (3, 13)
    width = np.ptp(z, axis=0) / 10
    np.testing.assert_allclose(np.diff(edges, axis=1), np.tile(width[:, None], 12), rtol=1e-12)
    np.testing.assert_allclose(edges[:, 1], z.min(axis=0))
    np.testing.assert_allclose(edges[:, -2], z.max(axis=0))


@pytest.mark.parametrize("name", ["camel", "digits"])
def test_every_family_is_a_model_of_vectors(name):
    data = make_data(name, 1000, 100, 0)
    kind, key = parts.kind_of(SMALL, name), jax.random.key(0)
    for family in FAMILIES:
        model = models.make_model(family, kind.sizes, data)
        params = jax.eval_shape(model.init, key)
        x = jax.eval_shape(model.sample, params, key, None)
        assert x.shape == (data.dim,)
        if model.log_prob is not None:
            assert jax.eval_shape(model.log_prob, params, key, x, None).shape == ()
        calls = models.calls_an_event(family, kind.sizes, data.dim)
        assert calls == {"autoregressive": data.dim, "diffusion": 9, "flow-matching": 8}.get(
            family, 1
        )


def test_bins_of_digits_are_their_grey_levels():
    """With any network, the density of the last pixel is flat in each level and not across."""
    data = make_data("digits", 1000, 100, 0)
    model = models.make_model("autoregressive", SMALL.digits.sizes, data)
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
        assert (models.players(family, SMALL.toys.sizes, training) is not None) == has_two


def test_a_table_has_errors_and_dashes():
    metrics = {"nll/flow/moons": 0.12345, "nll_error/flow/moons": 0.01, "ms/flow/moons": 2.0}
    lines = _judging.table_block(
        metrics, "NLL", ["moons", "jets"], {"A": "nll/flow", "B": "ms/flow"}, 2
    )
    assert [line.split() for line in lines] == [
        ["NLL", "moons", "jets"], ["A", "0.12", "+-", "0.01", "-"], ["B", "2.00", "-"], []
    ]  # fmt: skip


def test_bad_options(tmp_path, capsys):
    sizes = dataclasses.replace(SMALL.toys.sizes, hidden=(16, 0))
    training = dataclasses.replace(SMALL.toys.paths, steps=0)
    for options, message in (
        ({"families": ("gan", "maf")}, r"unknown families \['maf'\]; there are gan, wgan-gp"),
        ({"data": ("circles",)}, r"unknown data \['circles'\]; there are moons"),
        ({"families": ()}, "must name at least one each"),
        ({"num_draw": 5}, "num_draw must be at least 100, got 5"),
        ({"bootstrap": 1}, "two resamplings or more, got 1"),
        ({"toys": dataclasses.replace(SMALL.toys, sizes=sizes)}, r"hidden must be positive"),
        ({"toys": dataclasses.replace(SMALL.toys, paths=training)}, "steps must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            study.main(dataclasses.replace(SMALL, **options), tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
    with pytest.raises(ValueError, match="run without --plot-only"):
        study.main(SMALL, tmp_path / "none", plot_only=True)
    run("families", study.__doc__, study.PRESETS, study.main, study.count_parameters,
        ["--dry-run", "--preset", "smoke"])  # fmt: skip
    parameters = json.loads(capsys.readouterr().out)["parameters"]
    # Layers 16 -> 16 -> 2 and 2 -> 16 -> 1, weights and biases.
    assert parameters["gan eight-gaussians"] == 17 * 16 + 17 * 2 + 3 * 16 + 17
    # The consistency function has the network of its teacher.
    assert parameters["consistency eight-gaussians"] == parameters["flow-matching eight-gaussians"]
