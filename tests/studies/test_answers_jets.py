"""The study of jets: its halves, its selection and its costs."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest, wasserstein_distance

from experiments.jets import jets
from experiments.jets.generators import (
    DISTILLED,
    GENERATORS,
    condition,
    flop_per_jet,
    jet_score,
    train,
    turned,
)
from experiments.study import variant
from jgen import Batch, GenerativeModel, nets
from jgen.jets import jet_kinematics, point_map

pytestmark = pytest.mark.study


def test_halves_share_no_jet_and_have_as_many_of_each_class():
    train, truth = jets.inputs(jets.SMOKE)
    counts = [np.bincount(half.labels) for half in (train, truth)]
    np.testing.assert_array_equal(counts, [[150, 150], [150, 150]])
    assert train.points.shape[1] == truth.points.shape[1] == 6
    pt = [{tuple(row) for row in half.jets.tolist()} for half in (train, truth)]
    assert not pt[0] & pt[1]


def test_a_dry_run_of_a_published_preset_reads_no_files(command, capsys):
    command("jets", "--preset", "paper-jetnet30", "--dry-run")
    found = json.loads(capsys.readouterr().out)["parameters"]
    assert set(found) == set(GENERATORS)
    assert found["EPiC-FM"] == found["MeanFlow"] == found["consistency"]
    # Of every linear map: the width of an interval more, six sines and six cosines less.
    assert 0.9 * found["EPiC-JeDi"] < found["EPiC-FM"] < found["EPiC-JeDi"]


def test_the_score_is_the_mean_over_classes_of_the_distances_of_masses_and_points():
    """A model that makes jets of twice the angles, which have about twice the mass."""
    true, _ = jets.inputs(jets.SMOKE)
    n = np.arange(len(true.n), dtype=np.int32) % 5 + 2
    there = np.arange(true.points.shape[1]) < n[:, None]
    true = true._replace(points=true.points * there[..., None], n=n)
    scale = point_map(true.points, true.n)
    cond = condition(true.n, true.labels, 2)
    z = jax.vmap(scale.forward)(true.points, cond)[0]
    expected = []
    for k in (0, 1):
        of, n = true.points[true.labels == k], true.n[true.labels == k]
        twice = of * np.array([2, 2, 1], np.float32)
        there = np.arange(of.shape[1]) < n[:, None]
        masses = (np.asarray(jax.vmap(jet_kinematics)(x))[:, 3] for x in (of, twice))
        columns = zip(of[there].T, twice[there].T, strict=True)
        points = np.mean([wasserstein_distance(*pair) for pair in columns])
        expected.append(wasserstein_distance(*masses) + points)
    wide = point_map(true.points * np.array([2, 2, 1], np.float32), true.n)
    made = jax.vmap(scale.forward)(jax.vmap(wide.inverse)(z, cond)[0], cond)[0]
    # What is drawn for the jet of a condition: looked up by its row.
    rows = cond._replace(cond=np.column_stack([cond.cond, np.arange(len(z))]).astype(np.float32))
    look_up = GenerativeModel(
        lambda key: {}, None, lambda params, key, c: made[c.cond[2].astype(jnp.int32)]
    )
    score = jet_score(look_up, scale, 2)({}, jax.random.key(0), Batch(z, rows))
    assert score == pytest.approx(np.mean(expected), rel=1e-3)


@pytest.mark.parametrize("informed", [True, False])
def test_what_is_distilled_begins_as_its_teacher_in_any_order(informed):
    """All that is trained for a student is the teacher, whose parameters are given to it."""
    jets_, _ = jets.inputs(jets.SMOKE)
    config, asked = variant(jets.SMOKE.models, informed=informed), {}

    def fit(name, model, data, training, *, initial=None):
        asked[name] = training, initial
        return SimpleNamespace(one=model.init(jax.random.key(len(asked))))

    scale = point_map(jets_.points, jets_.n)
    for student in DISTILLED:
        asked.clear()
        _, teacher = train(config, SimpleNamespace(fit=fit), "EPiC-FM", jets_, scale)
        asked.clear()
        train(config, SimpleNamespace(fit=fit), student, jets_, scale)
        assert list(asked) == ["EPiC-FM", student]
        assert asked["EPiC-FM"] == (config.training, None)
        assert asked[student][0] == config.distilled
        jax.tree.map(np.testing.assert_array_equal, asked[student][1], teacher)


def test_operations_of_a_jet_are_those_of_all_calls():
    # EPiC-FM and EPiC-JeDi are networks alike where both see as many harmonics.
    plain = variant(jets.SMOKE.models, informed=False, harmonics=8)
    train, _ = jets.inputs(jets.SMOKE)
    whole = np.zeros((1, 2), np.float32)
    flop = {}
    for name, config in (
        *((n, plain) for n in GENERATORS),
        ("EPiC-FM", variant(plain, informed=True)),
    ):
        given = condition(np.array([5]), np.array([1]), 2, None if "GAN" in name else whole)
        cond = jax.tree.map(lambda a: a[0], given)
        model = config.model(name, train)
        params = model.init(jax.random.key(0))
        cost = flop_per_jet(config, name, model, params, cond, train)
        flop[name if config is plain else "corrected"] = cost
    # Four calls and one of the same network; five of one that does not see the interval.
    assert flop["EPiC-FM"] / flop["consistency"] == pytest.approx(4)
    assert flop["EPiC-FM"] / flop["MeanFlow"] == pytest.approx(4, rel=0.01)
    assert 1.2 < flop["EPiC-JeDi"] / flop["EPiC-FM"] < 5 / 4
    assert flop["corrected"] > flop["EPiC-FM"]  # what the corrections take is counted


def test_the_published_game_is_that_of_the_paper():
    """2301.08128: points of width five, Adam at 1e-4; other trainings are those of 2310.00049."""
    models = jets.JETNET30.models
    assert models.width == 5
    assert not models.turned
    rates = [
        getattr(models, name).optimizer.learning_rate
        for name in ("game", "training", "others", "distilled")
    ]
    assert rates == [1e-4, 1e-3, 1e-3, 1e-3]
    assert models.game.optimizer.schedule == "constant"


def test_points_of_the_game_have_the_width_that_is_asked():
    """The same parameters make points that are narrower by the width."""
    cond = jax.tree.map(lambda a: a[0], condition(np.array([5]), np.array([1]), 2))
    made, (train, _) = {}, jets.inputs(jets.SMOKE)
    for width in (1.0, 5.0):
        model = variant(jets.SMOKE.models, width=width).model("EPiC-GAN", train)
        made[width] = model.sample(model.init(jax.random.key(0)), jax.random.key(1), cond)
    np.testing.assert_allclose(made[1.0], 5 * made[5.0], rtol=1e-5)
    assert np.abs(made[1.0]).max() > 0


def test_jets_of_the_game_are_turned_about_their_axis():
    """By an angle of their own, with all distances to the axis and all pT as they were."""
    cond = jax.tree.map(lambda a: a[0], condition(np.array([5]), np.array([1]), 2))
    generator = nets.epic_generator(6, 3, 2, jets.SMOKE.models.generator)
    params, round_ = generator.init(jax.random.key(0)), turned(generator)
    noise = round_.noise(jax.random.key(1))
    plain = generator.apply(params, noise["points"], cond)
    for angle in (0.0, 0.7, 2.0):
        made = round_.apply(params, noise | {"angle": angle}, cond)
        expected = (plain[:, 0] + 1j * plain[:, 1]) * np.exp(1j * angle)
        np.testing.assert_allclose(made[:, 0] + 1j * made[:, 1], expected, atol=1e-6)
        np.testing.assert_array_equal(made[:, 2], plain[:, 2])
    angles = jax.vmap(lambda key: round_.noise(key)["angle"])(
        jax.random.split(jax.random.key(2), 4000)
    )
    assert kstest(angles / (2 * np.pi), "uniform").pvalue > 1e-3


def test_bad_data_are_refused(command, tmp_path):
    for options, said in (
        (("--data", tmp_path), "g.hdf5: no such file"),
        (("--num-points", 31), "constituents at most, not 31"),
        (("--classes", "gluon", "b"), "classes must be of gluon"),
        (("--models.width", "0"), "models.width must be positive"),
        (("--generators", "MeanFlow"), "MeanFlow learns from EPiC-FM"),
    ):
        more = ("--classes", "g") if "--data" in options else ()
        with pytest.raises(SystemExit, match=said):
            command("jets", "--out", tmp_path / "none", *options, *more)
    assert not (tmp_path / "none").exists()
