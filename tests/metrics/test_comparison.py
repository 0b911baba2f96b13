import jax
import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from jgen.arrays import SampleWarning
from jgen.estimate import flatten, judged
from jgen.metrics import (
    ClassifierConfig,
    classifier_comparison,
    column_separations,
    compare,
    histogram,
    separation,
    separation_floor,
    wasserstein,
)

EDGES = np.linspace(-4, 4, 33)


def edges_of(name, values):
    return EDGES


def cut(values, num):
    """So many at even distances."""
    return values[np.arange(num) * len(values) // num]


def sample(seed, num, shift=0.0):
    rng = np.random.default_rng(seed)
    return {"mass": rng.normal(shift, size=num), "layers": rng.normal(shift, size=(num, 3))}


def test_numbers_are_those_of_the_metrics_at_the_common_size():
    reference, holdout, generated = sample(0, 900), sample(1, 800), sample(2, 1000, 0.5)
    found = compare(
        reference, holdout, generated, edges_of, num_bootstrap=20, key=jax.random.key(3)
    )
    assert found.num_events == {"mass": 800, "layers": 800}
    for field, other in (("value", generated), ("truth", holdout)):
        of = lambda name, table=found.metrics, field=field: getattr(table[name], field)
        pair = cut(reference["mass"], 800), cut(other["mass"], 800)
        power = of("separation/mass")
        assert power.value == separation(*(histogram(v, EDGES) for v in pair)).value
        columns = (v[:, None] for v in pair)
        found_again = column_separations(*columns, [EDGES], num_bootstrap=20, key=jax.random.key(3))
        assert power == found_again.estimate
        distance = wasserstein(*pair, num_bootstrap=20, key=jax.random.key(3))
        assert of("wasserstein/mass") == (distance.value, distance.error)
        columns = [
            wasserstein_distance(
                cut(reference["layers"], 800)[:, k], cut(other["layers"], 800)[:, k]
            )
            for k in range(3)
        ]
        by_layer = of("wasserstein/layers", found.columns)
        np.testing.assert_allclose(by_layer.value, columns)
        mean, error = of("wasserstein/layers")
        assert mean == pytest.approx(np.mean(columns))
        # Independent columns: the error of their mean is smaller than each one's.
        assert error < 0.8 * by_layer.error.mean()
        powers = of("separation/layers", found.columns)
        assert powers.value.shape == (3,)
        assert of("separation/layers").error < 0.8 * powers.error.mean()
    flat = flatten(found.metrics)
    names = {
        f"{m}/layers{t}{e}"
        for m in ("separation", "wasserstein")
        for t in ("", "_truth")
        for e in ("", "_error")
    }
    names |= {f"{side}/layers{t}" for side in ("underflow", "overflow") for t in ("", "_truth")}
    assert {name for name in flat if "layers" in name} == names
    assert all(judged(flat, name) == value for name, value in found.metrics.items())
    assert not any("mass" in name for name in found.columns)


def test_samples_in_order_are_cut_evenly():
    """Of a file sorted by energy the first events are no sample."""
    values = [np.sort(sample(seed, num)["mass"]) for seed, num in ((0, 2000), (1, 2000), (2, 900))]
    found = compare(
        *({"mass": v} for v in values), edges_of, num_bootstrap=5, key=jax.random.key(3)
    )
    assert found.metrics["wasserstein/mass"].value.value < 0.1
    assert found.metrics["wasserstein/mass"].truth.value < 0.1
    config = ClassifierConfig(hidden=(16,), epochs=4, num_seeds=1)
    columns = (v[:, None] for v in values)
    auc = classifier_comparison(*columns, jax.random.key(0), "mass", config).metrics["auc_mass"]
    assert auc.value.value < 0.65


def test_weights_are_those_of_the_metrics():
    samples = sample(0, 300), sample(1, 250), sample(2, 300, 0.5)
    rng = np.random.default_rng(4)
    weights = [rng.uniform(0.5, 2, len(s["mass"])) for s in samples]
    options = {"num_bootstrap": 20, "key": jax.random.key(3)}
    found = compare(*samples, edges_of, weights=tuple(weights), **options).metrics
    for field, i in (("truth", 1), ("value", 2)):
        pair = [(cut(samples[k]["mass"], 250), cut(weights[k], 250)) for k in (0, i)]
        power = separation(*(histogram(v, EDGES, w) for v, w in pair)).value
        assert getattr(found["separation/mass"], field).value == pytest.approx(power)
        exact = wasserstein_distance(*(v for v, _ in pair), *(w for _, w in pair))
        assert getattr(found["wasserstein/mass"], field).value == pytest.approx(exact)
    plain, same = (
        compare(*samples, edges_of, weights=w, **options).metrics
        for w in ((None,) * 3, (np.full(300, 3.0), None, np.full(300, 3.0)))
    )
    assert flatten(plain) == pytest.approx(flatten(same), rel=1e-12)
    # Few events that weigh much: the error is that of fewer events.
    heavy = np.where(np.arange(300) < 50, 1.0, 1e-3)
    with pytest.warns(SampleWarning, match="250 events of holdout are worth 250 and .* ones 42:"):
        few = compare(*samples, edges_of, weights=(None, None, heavy), **options).metrics
    error = lambda of: of["wasserstein/mass"].value.error
    assert error(few) == pytest.approx(error(plain) * (6 / 2 + 1 / 2) ** 0.5, rel=0.4)
    # What the truth is must not be given up for it.
    with pytest.warns(SampleWarning, match="worth 50 and .* ones 250: .* unweight them"):
        compare(*samples, edges_of, weights=(None, heavy[:250], None), **options)
    # With weights like those of a right generator, truth is as far off; no word is needed.
    mixed = (None, np.random.default_rng(5).permutation(heavy[:250]), heavy)
    right = compare(*samples[:2], sample(3, 300), edges_of, weights=mixed, **options).metrics
    judged = right["wasserstein/mass"]
    assert abs(judged.value.value - judged.truth.value) < 3 * judged.truth.error
    with pytest.raises(ValueError, match=r"weights of holdout have the shape \(3,\)"):
        compare(*samples, edges_of, weights=(None, np.ones(3), None))


def test_truth_is_at_the_floor_and_a_shift_above_it():
    found = compare(sample(0, 4000), sample(1, 4000), sample(2, 4000, 0.3), edges_of).metrics
    found = flatten(found)
    floor = separation_floor(32, 4000, 4000)
    # Thirty independent bins or so fluctuate by a quarter.
    assert found["separation/mass_truth"] == pytest.approx(floor, rel=0.75)
    assert found["separation/mass"] > found["separation/mass_truth"] + 5 * floor
    assert found["wasserstein/mass"] == pytest.approx(0.3, abs=0.06)
    assert found["wasserstein/mass"] > 4 * found["wasserstein/mass_truth"]


def test_entries_outside_of_the_edges_are_reported():
    reference, holdout, generated = sample(0, 500), sample(1, 500), sample(2, 500)
    generated["mass"][:50] = -9.0
    generated["layers"][:100, 0] = 9.0
    found = compare(reference, holdout, generated, edges_of, num_bootstrap=2)
    assert found.metrics["underflow/mass"] == (pytest.approx(0.1), 0.0)
    np.testing.assert_allclose(found.columns["overflow/layers"].value, [0.2, 0, 0])
    assert found.metrics["overflow/layers"].value == pytest.approx(0.2 / 3)


def test_edges_are_made_for_each_column_of_the_reference():
    seen = []

    def binning(name, values):
        seen.append((name, values[0]))
        return EDGES

    reference = sample(0, 50)
    compare(reference, sample(1, 50), sample(2, 50), binning, num_bootstrap=2)
    expected = [("mass", reference["mass"][0])]
    expected += [("layers", reference["layers"][0, k]) for k in range(3)]
    assert seen == expected


def test_classifier_table():
    rng = np.random.default_rng(0)
    reference, holdout = rng.normal(size=(1300, 2)), rng.normal(size=(1200, 2))
    generated = rng.normal([0.8, 0.0], 1.0, size=(1100, 2))
    config = ClassifierConfig(hidden=(16,), learning_rate=0.01, epochs=6, num_seeds=2)
    found = classifier_comparison(reference, holdout, generated, jax.random.key(0), "high", config)
    names = ("auc_high", "auc_high_calibrated", "jsd_high")
    expected = {f"{n}{t}{e}" for n in names for t in ("", "_truth") for e in ("", "_error")}
    numbers = flatten(found.metrics)
    assert set(numbers) == expected
    assert found.generated.weights_reference.shape == (2, 220)
    assert numbers["auc_high"] == found.generated.mean("auc")
    error = numbers["auc_high_truth_error"]
    assert error == found.truth.auc_estimate.error
    assert abs(numbers["auc_high_truth"] - 0.5) < 3 * error
    assert numbers["auc_high"] > 0.65
    assert numbers["jsd_high_error"] == found.generated.jsd_estimate.error


def test_bad_input_is_refused():
    good = sample(0, 20)
    with pytest.raises(ValueError, match=r"generated has the observables \['mass'\]"):
        compare(good, sample(1, 20), {"mass": np.zeros(20)}, edges_of)
    with pytest.raises(ValueError, match="layers has shape"):
        compare(good, sample(1, 20), good | {"layers": np.zeros((20, 2))}, edges_of)
    with pytest.raises(ValueError, match="100 % of the events of holdout are in reference"):
        compare(good, good, sample(1, 20), edges_of)
    turned = {name: values[::-1].astype(np.float32) for name, values in good.items()}
    with pytest.raises(ValueError, match="100 % of the events of holdout are in reference"):
        compare(good, turned, sample(1, 20), edges_of)
    x = np.random.default_rng(0).normal(size=(3, 100, 2))
    mixed = np.concatenate([x[1][50:], x[0][50:]])
    with pytest.raises(ValueError, match="50 % of the events of holdout are in reference"):
        classifier_comparison(x[0], mixed, x[2], jax.random.key(0), "high")
    with pytest.warns(SampleWarning, match="100 % of the generated events are events of the ref"):
        compare(good, sample(1, 20), turned, edges_of, num_bootstrap=2)
    masked = sample(1, 20) | {"mass": np.ma.masked_less(sample(1, 20)["mass"], 0)}
    with pytest.raises(ValueError, match="entries of mass of holdout are masked"):
        compare(good, masked, sample(2, 20), edges_of)
    bad = sample(1, 20)
    bad["mass"][3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        compare(good, sample(2, 20), bad, edges_of)


def test_bins_that_an_outlier_sets_are_warned_of():
    samples = [sample(seed, 400) for seed in range(3)]
    widest = lambda name, values: np.linspace(values.min(), values.max(), 21)
    compare(*samples, widest, num_bootstrap=2)  # a warning would be an error
    samples[0]["mass"][3] = 1e6
    with pytest.warns(SampleWarning, match="399 of 400 values of mass are in one bin of 20"):
        compare(*samples, widest, num_bootstrap=2)
