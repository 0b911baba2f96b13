import jax
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score

from jgen.metrics import ClassifierConfig, area_under_curve, auc_error, classifier_test
from jgen.metrics.classifier import _calibrated, _Part, _split

FAST = ClassifierConfig(hidden=(32, 32), learning_rate=3e-3, batch_size=500, epochs=12, num_seeds=3)
SHIFT = 1.0


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


def test_null_is_consistent_with_one_half():
    # In many dimensions a network learns its training events by heart, so that the test split
    # must be another one.
    result = classifier_test(*gaussians(2000, 3000, 0.0, 30), jax.random.key(2), FAST)
    assert result.weights_reference.shape == (3, 400)
    assert result.weights_generated.shape == (3, 600)
    assert result.auc_statistical_error == pytest.approx(0.0186, abs=2e-3)
    assert abs(result.mean("auc") - 0.5) < 3 * result.auc_statistical_error


def test_splits_are_disjoint_and_complete():
    parts = _split(np.arange(101), jax.random.key(0), FAST)
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
    found = _calibrated(scores, _Part(None, label, weight), new)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_bad_input_is_refused():
    key, good = jax.random.key(0), np.zeros((100, 3))
    bad = good.copy()
    bad[7, 2] = np.nan
    with pytest.raises(ValueError, match=r"generated is not finite .* column 2"):
        classifier_test(good, bad, key, FAST)
    with pytest.raises(ValueError, match="100 columns|3 columns"):
        classifier_test(good, good[:, :2], key, FAST)
    with pytest.raises(ValueError, match="too few"):
        classifier_test(good[:3], good, key, FAST)
    with pytest.raises(ValueError, match="needs the shape"):
        classifier_test(good[:, 0], good, key, FAST)
    with pytest.raises(ValueError, match="leave events to test"):
        ClassifierConfig(train_fraction=0.9, validation_fraction=0.1)
    with pytest.raises(ValueError, match="'loss' or 'accuracy'"):
        ClassifierConfig(select="auc")
    with pytest.raises(ValueError, match="must be positive"):
        ClassifierConfig(epochs=0)
    with pytest.raises(ValueError, match="dropout"):
        ClassifierConfig(dropout=1.0)


def test_a_loss_that_is_not_finite_is_reported():
    config = ClassifierConfig(hidden=(4,), epochs=2, num_seeds=2, standardize=False)
    with pytest.raises(FloatingPointError, match=r"epoch 0 of seeds \[0, 1\]"):
        classifier_test(np.full((50, 1), 3e38), np.full((50, 1), -3e38), jax.random.key(0), config)
