import tracemalloc
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score

from jgen.metrics import (
    ClassifierConfig,
    area_under_curve,
    auc_error,
    classifier_test,
    trained_classifier,
)
from jgen.metrics.classifier import _calibrated, _evaluate, _split, calochallenge_classifier
from jgen.metrics.classifier_training import Part, _epoch, _init, place
from jgen.metrics.scaling import image_scaling, robust_scaling
from jgen.nets.resnet import ResNetConfig

FAST = ClassifierConfig(hidden=(32, 32), learning_rate=3e-3, batch_size=500, epochs=12, num_seeds=3)
SHIFT = 1.0
GRID = (4, 4, 3)
IMAGES = ClassifierConfig(
    network="resnet3d",
    shape=GRID,
    resnet=ResNetConfig(planes=(4, 8), blocks=1, groups=2),
    learning_rate=3e-3,
    batch_size=60,
    epochs=8,
    num_seeds=2,
)


def gaussians(n, m, shift, num_features=2):
    rng = np.random.default_rng(0)
    reference, generated = (rng.normal(size=(num, num_features)) for num in (n, m))
    reference[:, 0] += shift
    return reference, generated


@pytest.fixture(scope="module")
def shifted():
    return classifier_test(*gaussians(6000, 6000, SHIFT), jax.random.key(0), FAST)


def test_auc_agrees_with_sklearn():
    rng = np.random.default_rng(0)
    for decimals in (1, 8):
        a, b = rng.normal(0.3, size=70).round(decimals), rng.normal(size=90).round(decimals)
        expected = roc_auc_score(np.repeat([1, 0], [70, 90]), np.concatenate([a, b]))
        assert area_under_curve(a, b) == pytest.approx(expected, abs=1e-14)
        v, w = rng.random(70), rng.random(90)
        label, scores = np.repeat([1, 0], [70, 90]), np.concatenate([a, b])
        expected = roc_auc_score(label, scores, sample_weight=np.concatenate([v, w]))
        assert area_under_curve(a, b, v, w) == pytest.approx(expected, abs=1e-14)
    assert area_under_curve(np.arange(5), np.arange(5)) == 0.5
    assert area_under_curve(np.arange(5, 10), np.arange(5)) == 1.0


def test_auc_error_is_the_spread_of_repeated_samples():
    assert auc_error(0.5, 100, 300) == pytest.approx(np.sqrt(401 / (12 * 100 * 300)))
    assert auc_error(1.0, 10, 10) == 0.0
    rng = np.random.default_rng(1)
    # Hanley and McNeil assume exponential scores: with rate 1 against 3 the AUC is 3/4.
    values = [
        area_under_curve(rng.exponential(3.0, 200), rng.exponential(1.0, 100)) for _ in range(400)
    ]
    assert np.mean(values) == pytest.approx(0.75, abs=0.006)
    assert np.std(values) == pytest.approx(auc_error(0.75, 200, 100), rel=0.1)


def test_shifted_gaussians_have_the_exact_auc(shifted):
    expected = norm.cdf(SHIFT / np.sqrt(2))
    assert abs(shifted.mean("auc") - expected) < 3 * shifted.auc_statistical_error
    assert abs(shifted.mean("auc_calibrated") - expected) < 3 * shifted.auc_statistical_error
    assert shifted.auc_statistical_error < 0.01
    # Jensen-Shannon divergence in bits by quadrature.
    x = np.linspace(-8, 9, 20001)
    p, q = norm.pdf(x, SHIFT), norm.pdf(x)
    mixture = 0.5 * (p + q)
    terms = 0.5 * p * np.log2(p / mixture) + 0.5 * q * np.log2(q / mixture)
    assert shifted.mean("jsd") == pytest.approx(np.sum(terms) * (x[1] - x[0]), abs=0.03)


def test_weights_approximate_the_likelihood_ratio():
    # One dimension, so that the events of the test split are known by their weights.
    config = ClassifierConfig(hidden=(32,), learning_rate=3e-3, epochs=15, num_seeds=1)
    rng = np.random.default_rng(3)
    reference, generated = rng.normal(SHIFT, size=(6000, 1)), rng.normal(size=(4000, 1))
    result = classifier_test(reference, generated, jax.random.key(1), config)
    # ln w = shift x - shift^2 / 2 is normal with mean +-1/2 and standard deviation one.
    for weights, mean in ((result.weights_reference, 0.5), (result.weights_generated, -0.5)):
        log_w = np.log(weights[0])
        assert np.mean(log_w) == pytest.approx(mean, abs=0.1)
        assert np.std(log_w) == pytest.approx(1.0, abs=0.15)
    # Reweighted generated events are reference events: the weights have mean one, although
    # there are fewer generated events, because the classes count equally.
    assert np.mean(result.weights_generated) == pytest.approx(1.0, abs=0.1)


def test_event_weights_and_the_returned_networks():
    """Generated events weighted by the density ratio are reference events; the networks say it."""
    reference, generated = gaussians(4000, 6000, SHIFT)
    config = replace(FAST, hidden=(32,), num_seeds=1)
    log_ratio = SHIFT * generated[:, 0] - SHIFT**2 / 2
    key = jax.random.key(3)
    same = classifier_test(reference, generated, key, config, generated_weights=np.exp(log_ratio))
    assert abs(same.mean("auc") - 0.5) < 3 * same.auc_statistical_error
    # 1200 events with weights whose relative variance is e - 1.
    assert same.num_test == pytest.approx([800, 1200 / np.e], rel=0.3)
    assert same.auc_statistical_error > auc_error(0.5, 800, 1200)
    assert same.auc_estimate.error == same.auc_statistical_error
    classifier, plain = trained_classifier(reference, generated, key, config)
    assert plain.mean("auc") > 0.7
    assert plain.num_test == pytest.approx([800, 1200])
    x = np.random.default_rng(9).normal(size=(1000, 2))
    assert np.std(classifier.log_ratio(x) - (SHIFT * x[:, 0] - SHIFT**2 / 2)) < 0.25
    units = 7.0 * np.ones(len(generated))
    scaled = classifier_test(reference, generated, key, config, generated_weights=units)
    np.testing.assert_allclose(scaled.weights_generated, plain.weights_generated, rtol=1e-5)


def test_null_is_consistent_with_one_half():
    # In many dimensions a network learns its training events by heart, so that the test split
    # must be another one.
    result = classifier_test(*gaussians(2000, 3000, 0.0, 30), jax.random.key(2), FAST)
    assert result.weights_reference.shape == (3, 400)
    assert result.weights_generated.shape == (3, 600)
    assert [np.sqrt(v) for v in np.diag(result.covariances["auc"])] == pytest.approx(
        [auc_error(0.5, 400, 600)] * 3, rel=0.1
    )
    assert result.auc_statistical_error < 0.9 * auc_error(0.5, 400, 600)
    assert abs(result.mean("auc") - 0.5) < 3 * result.auc_statistical_error


@pytest.mark.parametrize(("columns", "low", "high"), [(5, 0.2, 0.6), (1, 0.7, 1.4)])
def test_errors_of_a_mean_over_seeds_know_how_far_they_agree(columns, low, high):
    """Seeds that have learnt noise disagree: their mean fluctuates less than each of them.

    The classifiers are random directions, so that nothing is compiled: five of them, or one that
    all seeds have found.
    """
    rng, found = np.random.default_rng(0), []
    label = np.repeat([1.0, 0.0], [120, 80]).astype(np.float32)
    part = Part(np.arange(200), label, np.where(label > 0, 200 / 240, 200 / 160))
    empty = np.zeros((5, 1))
    for _ in range(150):
        events, directions = rng.normal(size=(200, 20)), rng.normal(size=(20, columns))
        scores = (events @ directions).T * np.ones((5, 1))
        found.append(_evaluate(part, part, scores, scores, np.zeros(5, int), empty, empty))
    value, error = np.array([r.auc_estimate for r in found]).T
    assert 0.55 < np.mean(np.abs(value - value.mean()) < error) < 0.81
    assert np.std(value) / np.mean(error) == pytest.approx(1, abs=0.25)
    assert low < np.mean(error) / auc_error(0.5, 120, 80) < high
    if columns == 1:
        # The seeds are one classifier, whose error is the known one.
        assert np.mean(error) == pytest.approx(auc_error(0.5, 120, 80), rel=0.05)


@pytest.mark.study
def test_quoted_errors_of_retrained_classifiers_cover_truth_against_truth():
    config = ClassifierConfig(
        hidden=(16,), learning_rate=3e-3, batch_size=100, epochs=6, num_seeds=3
    )
    rng, found = np.random.default_rng(1), []
    for i in range(60):
        samples = rng.normal(size=(2, 400, 10))
        found.append(classifier_test(*samples, jax.random.key(i), config).auc_estimate)
    value, error = np.array(found).T
    assert 0.54 < np.mean(np.abs(value - value.mean()) < error) < 0.82
    assert np.std(value) / np.mean(error) == pytest.approx(1, abs=0.25)


def test_splits_are_disjoint_and_complete():
    parts = _split(101, jax.random.key(0), FAST)
    assert [len(part) for part in parts] == [71, 10, 20]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(101))


@pytest.mark.parametrize(("patience", "dropout"), [(None, 0.0), (1, 0.2)])
def test_a_seed_equals_its_solo_run(patience, dropout):
    samples = gaussians(400, 300, 0.7)
    config = {"hidden": (16,), "learning_rate": 0.02, "batch_size": 60, "epochs": 8}
    config |= {"patience": patience, "dropout": dropout}
    solo, many = (
        classifier_test(*samples, jax.random.key(21), ClassifierConfig(num_seeds=s, **config))
        for s in (1, 3)
    )
    if patience:
        # With this key the first seed would get better after it has given up.
        assert many.validation_loss[0].argmin() > solo.best_epoch[0] + patience
    assert solo.best_epoch[0] == many.best_epoch[0]
    np.testing.assert_allclose(solo.weights_reference[0], many.weights_reference[0], rtol=1e-3)
    np.testing.assert_allclose(solo.weights_generated[0], many.weights_generated[0], rtol=1e-3)
    epochs = solo.train_loss.shape[1]
    np.testing.assert_allclose(solo.train_loss[0], many.train_loss[0, :epochs], rtol=1e-4)
    assert len(np.unique(many.auc)) > 1


def test_patience_stops_when_all_seeds_have_given_up():
    config = ClassifierConfig(
        hidden=(64,), learning_rate=0.02, epochs=100, num_seeds=3, patience=3, batch_size=100
    )
    result = classifier_test(*gaussians(300, 300, 0.3), jax.random.key(4), config)
    assert result.train_loss.shape[1] == result.best_epoch.max() + 4 < 100


@pytest.mark.parametrize("select", ["loss", "accuracy"])
def test_the_best_epoch_is_kept(select):
    samples = gaussians(400, 400, 0.5)
    config = {"hidden": (64,), "learning_rate": 0.02, "batch_size": 100, "num_seeds": 2}
    key = jax.random.key(5)
    long = classifier_test(*samples, key, ClassifierConfig(epochs=6, select=select, **config))
    if select == "loss":
        np.testing.assert_array_equal(long.best_epoch, long.validation_loss.argmin(axis=1))
    # The network kept is the one a run that ends with the best epoch of this seed keeps.
    for seed, best in enumerate(long.best_epoch):
        short = ClassifierConfig(epochs=int(best) + 1, select=select, **config)
        weights = classifier_test(*samples, key, short).weights_generated[seed]
        np.testing.assert_allclose(weights, long.weights_generated[seed], rtol=1e-5)


def test_standardised_inputs_do_not_depend_on_units():
    reference, generated = gaussians(300, 300, 1.0)
    constant = np.full((300, 1), 3.3)
    config = ClassifierConfig(hidden=(16,), learning_rate=0.02, epochs=3, num_seeds=1)
    scaled = [np.hstack([1024 * x - 4096, constant]) for x in (reference, generated)]
    plain = [np.hstack([x, constant]) for x in (reference, generated)]
    a, b = (classifier_test(*s, jax.random.key(6), config) for s in (plain, scaled))
    np.testing.assert_allclose(a.weights_generated, b.weights_generated, rtol=1e-2)


def test_calibration_agrees_with_sklearn():
    rng = np.random.default_rng(7)
    scores = rng.normal(size=200).round(1)
    label = (rng.random(200) < 1 / (1 + np.exp(-scores))).astype(float)
    weight = rng.random(200)
    new = np.linspace(-4, 4, 101)
    oracle = IsotonicRegression(out_of_bounds="clip", y_min=1e-6, y_max=1 - 1e-6)
    expected = oracle.fit(scores, label, weight).predict(new)
    found = _calibrated(scores, Part(None, label, weight), new)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_bad_input_is_refused():
    key, good = jax.random.key(0), np.zeros((100, 3))
    bad = good.copy()
    bad[7, 2] = np.nan
    with pytest.raises(ValueError, match=r"generated is not finite .* column 2"):
        classifier_test(good, bad, key, FAST)
    with pytest.raises(ValueError, match="1 of 300 entries of reference are masked"):
        classifier_test(np.ma.masked_invalid(bad), good, key, FAST)
    with pytest.raises(ValueError, match="generated must be an array of real numbers, got text"):
        classifier_test(good, good.astype(str), key, FAST)
    with pytest.raises(ValueError, match="100 columns|3 columns"):
        classifier_test(good, good[:, :2], key, FAST)
    with pytest.raises(ValueError, match="too few"):
        classifier_test(good[:3], good, key, FAST)
    with pytest.raises(ValueError, match="needs the shape"):
        classifier_test(good[:, 0], good, key, FAST)
    with pytest.raises(ValueError, match=r"100 events need weights \[100\]"):
        classifier_test(good, good, key, FAST, generated_weights=np.ones(99))
    with pytest.raises(ValueError, match="not negative"):
        classifier_test(good, good, key, FAST, reference_weights=-np.ones(100))
    alone = np.eye(1, 100)[0]
    with pytest.raises(ValueError, match="a split has no events but of weight zero"):
        classifier_test(good, good, key, FAST, reference_weights=alone)
    with pytest.raises(ValueError, match="leave events to test"):
        ClassifierConfig(train_fraction=0.9, validation_fraction=0.1)
    with pytest.raises(ValueError, match="select must be one of loss, accuracy"):
        ClassifierConfig(select="auc")
    with pytest.raises(ValueError, match="network must be one of dense, resnet3d"):
        ClassifierConfig(network="vit")
    with pytest.raises(ValueError, match="resnet3d needs the shape"):
        ClassifierConfig(network="resnet3d")
    with pytest.raises(ValueError, match=r"3 columns, but the grid \(4, 4, 3\) needs 49"):
        classifier_test(good, good, key, IMAGES)
    with pytest.raises(ValueError, match="epochs must be a whole number"):
        ClassifierConfig(epochs=0)
    with pytest.raises(ValueError, match="dropout"):
        ClassifierConfig(dropout=1.0)


def test_a_loss_that_is_not_finite_is_reported():
    config = ClassifierConfig(hidden=(4,), epochs=2, num_seeds=2, standardize=False)
    with pytest.raises(FloatingPointError, match=r"epoch 0 of seeds \[0, 1\]"):
        classifier_test(np.full((50, 1), 3e38), np.full((50, 1), -3e38), jax.random.key(0), config)


def images(num, seed, scale=1.0):
    """Rows of log10 of an energy and of sparse voxels, as far as a shower's fluctuate."""
    rng = np.random.default_rng(seed)
    voxels = 1e-3 * rng.exponential(size=(num, 48)) * (rng.random((num, 48)) < 0.5)
    energy = rng.uniform(3, 6, size=(num, 1))
    return np.hstack([energy, scale * voxels]).astype(np.float32)


@pytest.mark.study
def test_resnet_tells_positions_and_energies_but_not_truth():
    reference, key = images(500, 0), jax.random.key(0)
    moved = images(500, 1)
    moved[:, 1:25] = 0  # the upper half of the layers is empty
    assert classifier_test(reference, moved, key, IMAGES).mean("auc") > 0.99
    # The same images up to a factor: a norm that takes each event by itself would hide it.
    brighter = classifier_test(reference, images(500, 1, 3.0), key, IMAGES)
    assert brighter.mean("auc") > 0.95
    truth = classifier_test(reference, images(500, 1), key, IMAGES)
    assert abs(truth.mean("auc") - 0.5) < 3 * truth.auc_statistical_error


@pytest.mark.parametrize(
    "config",
    [FAST, replace(IMAGES, resnet=ResNetConfig(planes=(4,), blocks=1, groups=2))],
    ids=["dense", "resnet3d"],
)
def test_seeds_side_by_side_equal_a_solo_run_in_turn(config):
    samples, key = (images(120, 0), images(120, 1, 1.2)), jax.random.key(3)
    vmapped, scanned = (
        classifier_test(*samples, key, replace(config, epochs=2, axis=axis, num_seeds=num))
        for axis, num in (("vmap", 2), ("scan", 1))
    )
    np.testing.assert_allclose(vmapped.train_loss[0], scanned.train_loss[0], rtol=1e-4)
    for name in ("weights_reference", "weights_generated"):
        both, one = getattr(vmapped, name), getattr(scanned, name)
        np.testing.assert_allclose(both[0], one[0], rtol=2e-3)
        assert not np.allclose(both[0], both[1], rtol=1e-2)


@pytest.mark.parametrize("axis", ["vmap", "scan"])
def test_an_epoch_copies_no_data(axis):
    """Of 40 MB of events, three seeds take minibatches only, whether in training or validation."""
    num, width = 100_000, 100
    config = ClassifierConfig(hidden=(4,), batch_size=500, num_seeds=3, axis=axis)
    array = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    rows = lambda n: Part(jax.ShapeDtypeStruct((n,), jnp.int32), array(n), array(n))
    data = array(num, width)
    keys = jax.random.split(jax.random.key(0), 3)
    state = jax.eval_shape(lambda k: _init(k, width, config), keys)
    arguments = (state, keys, jnp.int32(0), data, rows(70_000), rows(10_000))
    memory = _epoch.lower(*arguments, config).compile().memory_analysis()
    assert memory.argument_size_in_bytes > 4 * num * width
    assert memory.temp_size_in_bytes < 4 * num * width / 5


def test_placing_events_needs_no_second_copy_on_the_host():
    samples = [images(40_000, seed) for seed in (0, 1)]
    rows = [np.arange(30_000), np.arange(0, 40_000, 2)]
    tracemalloc.start()
    x, _ = place(samples, rows, ClassifierConfig())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < samples[0].nbytes / 2
    # Images keep their zeros, and one scale for all voxels.
    whole = np.concatenate(samples)
    image, scaling = place(samples, rows, IMAGES)
    np.testing.assert_array_equal(np.asarray(image[:, 1:]) == 0, whole[:, 1:] == 0)
    assert len(np.unique(scaling.scale[1:])) == 1
    np.testing.assert_allclose(np.square(image[:, 1:]).mean(), 1, rtol=0.05)
    assert np.abs(x).max() < 20


def separated(num, spread=1.0, offset=0.0, outlier=None):
    """N(0, 1) against N(1.5, 1), scaled and shifted, with one value far off in each."""
    rng = np.random.default_rng(4)
    samples = [rng.normal(shift, size=(num, 1)) * spread + offset for shift in (1.5, 0.0)]
    for sample in samples:
        sample[7] = sample[7] if outlier is None else outlier
    return samples


ONE_COLUMN = ClassifierConfig(
    hidden=(16,), learning_rate=0.01, batch_size=100, epochs=5, num_seeds=1
)


@pytest.mark.parametrize(
    "options",
    [
        {"outlier": 1e6},
        {"outlier": -1e300},
        {"spread": 1e-2, "offset": 2e6},
        {"spread": 1e-2, "offset": -2e6, "outlier": 0.0},
        {"spread": 1e-60},
        {"spread": 1e60},
    ],
    ids=str,
)
def test_neither_offsets_nor_outliers_blind_a_classifier(options):
    result = classifier_test(*separated(3000, **options), jax.random.key(0), ONE_COLUMN)
    expected = norm.cdf(1.5 / np.sqrt(2))
    assert abs(result.mean("auc") - expected) < 3 * result.auc_statistical_error
    assert result.auc_statistical_error < 0.012
    assert ("compressed" in " ".join(result.notes)) == ("outlier" in options)


def test_constant_columns_and_integers():
    counts = [np.rint(10 * sample).astype(int) for sample in separated(1000)]
    samples = [np.hstack([sample, np.full_like(sample, 7)]) for sample in counts]
    result = classifier_test(*samples, jax.random.key(0), ONE_COLUMN)
    assert abs(result.mean("auc") - norm.cdf(1.5 / np.sqrt(2))) < 3 * result.auc_statistical_error
    assert result.notes == (
        "1 of 2 columns never change in training and are left out; the first is column 1, 7.",
    )


def test_scales_are_robust_and_exact_where_they_can_be():
    rng = np.random.default_rng(0)
    rows = [np.arange(20_000)]
    normal = rng.normal(3, 2, size=(20_000, 1))
    sparse = normal * (rng.random(normal.shape) < 0.01)
    lone = np.where(np.arange(20_000)[:, None] == 1, 5.0, 0.0)
    single = np.float32(0.1) * np.ones((20_000, 1), np.float32)
    scaling = robust_scaling([np.hstack([normal, sparse, lone])], rows)
    # Of a normal distribution 1.96 sigma bound 95 %, and 0.956 sigma is what is left.
    np.testing.assert_allclose(scaling.centre, [3, 0, 0], atol=0.06)
    np.testing.assert_allclose(scaling.scale[0], 2 * 0.956, rtol=0.02)
    np.testing.assert_allclose(scaling.scale[1], np.sqrt(0.01 * 13), rtol=0.1)
    np.testing.assert_allclose(scaling.scale[2], 5 / np.sqrt(20_000))
    # Rounding errors of single precision are no spread; the same numbers in double are.
    single[::2] = np.nextafter(single[0], 1)
    assert robust_scaling([single], rows).scale == np.inf
    assert robust_scaling([single.astype(float)], rows).scale < 1e-8
    # The order of values is kept however far they are.
    far = scaling(np.array([[3.0, 0, 0], [1e9, 0, 0], [2e9, 0, 0], [-1e300, 0, 0]]))[:, 0]
    assert np.all(np.diff(far[:3]) > 0.5)
    assert np.isfinite(far).all()


def test_one_shower_does_not_set_the_scale_of_images():
    samples = [images(200, seed) for seed in (0, 1)]
    rows = [np.arange(200)] * 2
    before = image_scaling(samples, rows)
    samples[0][3, 9] = 1e9
    after = image_scaling(samples, rows)
    np.testing.assert_allclose(after.scale, before.scale, rtol=0.02)
    assert np.isfinite(after(samples[0])).all()


def test_networks_refuse_other_events():
    config = ClassifierConfig(hidden=(4,), epochs=1, num_seeds=1)
    classifier, _ = trained_classifier(*gaussians(50, 50, 0.0), jax.random.key(0), config)
    with pytest.raises(ValueError, match=r"need the shape \[events, 2\]"):
        classifier.log_ratio(np.zeros((3, 1)))
    with pytest.raises(ValueError, match="event 1 is not finite"):
        classifier.log_ratio(np.array([[0.0, 0.0], [np.nan, 0.0]]))


def test_official_protocols():
    low, high = calochallenge_classifier("low"), calochallenge_classifier("high", (45, 16, 9))
    assert low == high
    assert (low.hidden, low.learning_rate, low.batch_size) == ((2048,) * 3, 2e-4, 1000)
    assert (low.epochs, low.num_seeds, low.select, low.dropout) == (50, 10, "accuracy", 0)
    assert not low.standardize
    assert low.patience is None
    assert [len(part) for part in _split(100, jax.random.key(0), low)] == [60, 20, 20]
    resnet = calochallenge_classifier("resnet", (45, 16, 9))
    assert resnet.resnet == ResNetConfig((32, 64, 64, 128), 2)
    same = {"network": "dense", "shape": None, "standardize": False}
    assert replace(resnet, **same) == low
    with pytest.raises(ValueError, match="needs the shape"):
        calochallenge_classifier("resnet")
    with pytest.raises(ValueError, match="one of low, high, resnet"):
        calochallenge_classifier("normed")
