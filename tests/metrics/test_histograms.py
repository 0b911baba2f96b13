import numpy as np
import pytest

from jgen.metrics import (
    Histogram,
    column_separations,
    histogram,
    separation,
    separation_floor,
    to_hist,
)


def of_counts(*counts):
    counts = np.array(counts, float)
    return Histogram(np.arange(len(counts) + 1.0), counts, counts, 0.0, 0.0)


def test_histogram_fills_bins_and_keeps_what_is_outside():
    values = [-np.inf, -1.0, 0.0, 0.5, 1.0, 2.0, 2.1, np.inf]
    h = histogram(np.array(values), np.array([0.0, 1.0, 2.0]), np.arange(1.0, 9.0))
    np.testing.assert_array_equal(h.counts, [3 + 4, 5 + 6])
    np.testing.assert_array_equal(h.variances, [9 + 16, 25 + 36])
    assert (h.underflow, h.overflow, h.total) == (1 + 2, 7 + 8, 36)
    np.testing.assert_allclose(h.contents, [7 / 18, 11 / 18])
    np.testing.assert_allclose(h.fractions, [7 / 36, 11 / 36])
    np.testing.assert_allclose(h.fraction_errors, [5 / 36, np.sqrt(61) / 36])
    np.testing.assert_allclose(h.outside, [3 / 36, 15 / 36])


def test_histogram_agrees_with_numpy():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=1000).round(1), rng.normal(size=1000)
    edges = np.linspace(-1, 1, 21).round(1)
    expected, _ = np.histogram(values, edges, weights=weights)
    np.testing.assert_allclose(histogram(values, edges, weights).counts, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("p", "q", "expected"),
    [
        ((1, 2, 3), (2, 4, 6), 0.0),
        ((1, 1, 0, 0), (0, 0, 5, 3), 1.0),
        # (1/2)[(1/4)^2/(3/4) + (1/4)^2/(5/4)] by hand.
        ((1, 1), (1, 3), 0.5 * (1 / 16 / (3 / 4) + 1 / 16 / (5 / 4))),
        ((0, 0), (0, 0), 0.0),
        ((0, 0), (1, 3), 1.0),
    ],
)
def test_separation_by_hand(p, q, expected):
    assert separation(of_counts(*p), of_counts(*q)).value == pytest.approx(expected, abs=1e-14)
    assert separation(of_counts(*q), of_counts(*p)).value == pytest.approx(expected, abs=1e-14)


def test_separation_keeps_the_fractions_it_does_not_see():
    inside = np.repeat([0.5, 1.5], 5)
    p = histogram(inside, np.arange(3.0))
    q = histogram(np.concatenate([inside, np.full(10, -1.0), np.full(20, 9.0)]), np.arange(3.0))
    found = separation(p, q)
    assert found.value == 0.0
    assert found.underflow == (0.0, 0.25)
    assert found.overflow == (0.0, 0.5)


@pytest.mark.parametrize(("n", "m"), [(2000, 2000), (1000, 8000)])
def test_truth_against_truth_is_the_floor(n, m):
    rng = np.random.default_rng(1)
    edges = np.linspace(0, 1, 21)
    values = []
    for _ in range(400):
        pair = (histogram(rng.random(size), edges) for size in (n, m))
        values.append(separation(*pair, num_bootstrap=0).value)
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - separation_floor(20, n, m)) < 3 * error
    # Not a weak test: the error is far smaller than the number.
    assert error < 0.02 * separation_floor(20, n, m)
    assert separation_floor(20, n, n) == pytest.approx(19 / (2 * n))


def test_bootstrap_error_is_the_spread_of_repeated_samples():
    rng = np.random.default_rng(2)
    edges = np.linspace(-3, 3, 31)
    found = []
    for _ in range(200):
        p, q = histogram(rng.normal(size=3000), edges), histogram(rng.normal(0.4, size=3000), edges)
        found.append(separation(p, q, num_bootstrap=50))
    spread = np.std([s.value for s in found])
    assert np.mean([s.error for s in found]) == pytest.approx(spread, rel=0.2)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.99])
def test_errors_of_means_over_columns_cover_truth_against_truth(correlation):
    """Layers of a shower are neither independent nor one and the same."""
    rng = np.random.default_rng(3)

    def layers(num=300, columns=8):
        common, own = rng.normal(size=(num, 1)), rng.normal(size=(num, columns))
        return np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own

    edges = [np.linspace(-2.5, 2.5, 16)] * 8
    found = [
        column_separations(layers(), layers(), edges, num_bootstrap=50).estimate for _ in range(120)
    ]
    value, error = np.array(found).T
    assert np.std(value) / np.mean(error) == pytest.approx(1, abs=0.25)
    # 60 to 76 %, and two standard deviations of 120 tries.
    assert 0.52 < np.mean(np.abs(value - value.mean()) < error) < 0.84


@pytest.mark.parametrize(("bins", "most"), [(4, 0.85), (10, 0.79), (30, 0.79)])
def test_quoted_errors_of_single_columns_cover_truth_against_truth(bins, most):
    """60 to 76 %, and one standard deviation of 200 tries.

    A few bins have a law so skewed that the right error covers 80 %.
    """
    rng, edges = np.random.default_rng(8), np.linspace(-2.5, 2.5, bins + 1)
    found = []
    for _ in range(200):
        p, q = (histogram(rng.normal(size=1000), edges) for _ in range(2))
        found.append(separation(p, q, num_bootstrap=60).estimate)
    value, error = np.array(found).T
    assert np.std(value) / np.mean(error) == pytest.approx(0.95, abs=0.15)
    assert 0.57 < np.mean(np.abs(value - value.mean()) < error) < most


def test_columns_are_separations_of_their_histograms():
    rng = np.random.default_rng(4)
    p, q = rng.normal(size=(200, 3)), rng.normal(0.2, size=(300, 3))
    edges = [np.linspace(-2, 2, num) for num in (5, 9, 3)]
    found = column_separations(p, q, edges, num_bootstrap=3)
    for k, e in enumerate(edges):
        one = separation(histogram(p[:, k], e), histogram(q[:, k], e), num_bootstrap=3)
        assert found.value[k] == one.value
        outside = [abs(np.subtract(*side)) for side in (one.underflow, one.overflow)]
        np.testing.assert_allclose([found.underflow[k], found.overflow[k]], outside)
    assert found.estimate.value == pytest.approx(found.value.mean())
    assert np.isnan(column_separations(p, q, edges, num_bootstrap=0).estimate.error)
    with pytest.raises(ValueError, match="need k sets of edges"):
        column_separations(p, q, edges[:2])


def test_bootstrap_of_weighted_counts_uses_their_effective_number():
    plain = of_counts(50, 150), of_counts(100, 100)
    # Weights of three each: three times the contents, nine times the variances.
    tripled = [h._replace(counts=3 * h.counts, variances=9 * h.variances) for h in plain]
    assert separation(*tripled) == separation(*plain)


def test_bad_input_is_refused():
    edges = np.arange(3.0)
    with pytest.raises(ValueError, match="1 of 2 values are NaN"):
        histogram(np.array([0.0, np.nan]), edges)
    with pytest.raises(ValueError, match="weights reach 1e.200, and their squares are infinite"):
        histogram([0.5, 0.5], [0, 1], [1.0, 1e200])
    with pytest.raises(ValueError, match="1 of 2 weights are infinite"):
        histogram([0.1, 0.2], [0.0, 1.0], [1.0, np.inf])
    with pytest.raises(ValueError, match="weights are NaN"):
        histogram(np.zeros(2), edges, np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="increasing"):
        histogram(np.zeros(2), edges[::-1])
    with pytest.raises(ValueError, match="as many weights"):
        histogram(np.zeros(2), edges, np.zeros(3))
    with pytest.raises(ValueError, match=r"shape \[n\]"):
        histogram(np.zeros((2, 2)), edges)
    with pytest.raises(ValueError, match="different edges"):
        separation(histogram(np.zeros(2), edges), histogram(np.zeros(2), edges + 1))
    with pytest.raises(ValueError, match="histogram of generated has negative contents"):
        separation(of_counts(1, 2), of_counts(1, -1))


def test_a_hist_of_ours_is_theirs_bin_by_bin():
    hist = pytest.importorskip("hist")
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=1000), rng.normal(1, 2, size=1000)
    edges = np.array([-2.0, -0.5, 0.1, 1.0, 1.5])
    ours = to_hist(histogram(values, edges, weights), name="m", label="mass")
    theirs = hist.Hist(hist.axis.Variable(edges, name="m"), storage=hist.storage.Weight())
    theirs.fill(m=values, weight=weights)
    np.testing.assert_allclose(ours.values(flow=True), theirs.values(flow=True), rtol=1e-12)
    np.testing.assert_allclose(ours.variances(flow=True), theirs.variances(flow=True), rtol=1e-12)
    assert (ours.axes[0].name, ours.axes[0].label) == ("m", "mass")
    np.testing.assert_array_equal(ours.axes[0].edges, edges)
    # At the last edge numpy's bin is closed and theirs is not.
    last = to_hist(histogram(np.array([1.5]), edges))
    assert last.values(flow=True).tolist() == [0, 0, 0, 0, 1, 0]


def test_what_is_no_histogram_is_not_converted():
    with pytest.raises(ValueError, match="takes what jgen.metrics.histogram makes, got ndarray"):
        to_hist(np.ones(3))


def test_a_hist_of_ours_is_drawn_by_mplhep():
    pytest.importorskip("hist")
    mplhep = pytest.importorskip("mplhep")
    from matplotlib.figure import Figure

    h = histogram(np.array([0.5, 0.5, 1.5]), np.array([0.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0]))
    axes = Figure().subplots()
    drawn = mplhep.histplot(to_hist(h), yerr=True, histtype="errorbar", ax=axes, w2method="sqrt")
    bars = drawn[0].errorbar.lines[2][0].get_segments()
    expected = [[3 - np.sqrt(5), 3 + np.sqrt(5)], [0, 6]]
    np.testing.assert_allclose([np.array(bar)[:, 1] for bar in bars], expected)
