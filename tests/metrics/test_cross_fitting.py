import jax
import numpy as np
import pytest

from jgen.metrics import ClassifierConfig, classifier_training, cross_fitted_log_ratio

FAST = ClassifierConfig(hidden=(8,), learning_rate=1e-2, batch_size=64, epochs=3, num_seeds=2)


def samples(n, m, shift=0.0):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 2)) + [shift, 0.0], rng.normal(size=(m, 2))


@pytest.mark.parametrize("scheme", ["forward", "cross"])
def test_no_event_is_scored_by_what_was_trained_on_it(scheme, key):
    reference, generated = samples(60, 90)
    options = {"folds": 2, "scheme": scheme}
    first = cross_fitted_log_ratio(reference, generated, key, FAST, **options)
    # An event of the last fold, among those that are trained on, at another place.
    moved, row = generated.copy(), 5
    moved[row] += [3.0, -3.0]
    second = cross_fitted_log_ratio(reference, moved, key, FAST, **options)
    mates = (first.generated_rows % 2 == row % 2) & (first.generated_rows != row)
    np.testing.assert_array_equal(first.generated[mates], second.generated[mates])
    others = first.generated_rows % 2 != row % 2
    # Forward, the last fold trains nothing; crossed, it trains the classifiers of the others.
    same = np.array_equal(first.generated[others], second.generated[others])
    assert same == (scheme == "forward")
    assert (
        first.generated[first.generated_rows == row]
        != second.generated[second.generated_rows == row]
    )


def test_rows_say_which_events_the_scores_belong_to(key, monkeypatch):
    monkeypatch.setattr(classifier_training, "_CHUNK", 16)
    reference, generated = samples(60, 90)
    found = cross_fitted_log_ratio(reference, generated, key, FAST, folds=2, scheme="cross")
    np.testing.assert_array_equal(found.reference_rows, np.arange(60))
    np.testing.assert_array_equal(found.generated_rows, np.arange(90))
    found = cross_fitted_log_ratio(reference, generated, key, FAST, folds=2)
    np.testing.assert_array_equal(found.generated_rows, np.arange(1, 90, 2))
    assert len(found.reference_rows) == len(found.reference) == 30
    assert np.isfinite(found.reference).all()
    # Chunks change nothing.
    monkeypatch.setattr(classifier_training, "_CHUNK", 2**16)
    whole = cross_fitted_log_ratio(reference, generated, key, FAST, folds=2)
    np.testing.assert_allclose(found.generated, whole.generated, atol=1e-6)


def test_scores_approach_the_log_likelihood_ratio(key):
    reference, generated = samples(2000, 6000, shift=1.0)
    config = ClassifierConfig(
        hidden=(16,), learning_rate=3e-3, batch_size=100, epochs=10, num_seeds=1
    )
    found = cross_fitted_log_ratio(reference, generated, key, config, folds=2)
    # Exactly x_0 - 1/2; the classes count equally although there are more generated events.
    exact = generated[found.generated_rows, 0] - 0.5
    assert np.sqrt(np.mean((found.generated - exact) ** 2)) < 0.3
    assert np.mean(found.generated - exact) == pytest.approx(0.0, abs=0.2)
    exact = reference[found.reference_rows, 0] - 0.5
    assert np.corrcoef(found.reference, exact)[0, 1] > 0.97


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (samples(60, 60), {"scheme": "both"}, "scheme must be one of forward, cross, got 'both'"),
        (samples(60, 60), {"folds": 1}, "folds need 2"),
        (samples(10, 60), {}, "at least 20 events"),
        ((np.zeros((60, 2)), np.zeros((60, 3))), {}, "same features"),
        ((np.zeros((60, 2)), np.full((60, 2), np.nan)), {}, "not finite"),
    ],
)
def test_bad_input_is_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        cross_fitted_log_ratio(*arguments, jax.random.key(0), FAST, **options)
