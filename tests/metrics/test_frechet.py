import jax
import numpy as np
import pytest
from scipy.optimize import curve_fit
from scipy.stats import iqr

from jgen.metrics import (
    Moments,
    frechet_distance,
    frechet_physics_distance,
    kernel_physics_distance,
    moments,
    polynomial_mmd,
)
from jgen.metrics.frechet import scaled_features

# What jetnet 0.2.5 (numpy 2.4.6, scipy 1.17.1) printed for `correlated_samples()`, with
# FIT = dict(min_samples=100, max_samples=500, num_batches=5):
#   fpd(x, y, num_points=6, seed=3, **FIT) and
#   kpd(x, y, num_batches=50, batch_size=300, seed=3); and for
# xs, ys = gen_metrics._normalise_features(x, y): _mmd_poly_quadratic_unbiased(xs, ys) and
#   _calculate_frechet_distance(mean of xs, np.cov(xs, rowvar=False), the same of ys).
JETNET_FPD = 0.1881211371884918, 0.007298259098100919
JETNET_KPD = 0.02653030978751514, 0.006004086645277006
JETNET_MMD = 0.02643538863110706
JETNET_FRECHET = 0.18907824110877425
FIT = {"min_samples": 100, "max_samples": 500, "num_batches": 5}


def correlated_samples():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 4)) @ rng.normal(size=(4, 4))
    y = 1.1 * rng.normal(size=(1200, 4)) @ rng.normal(size=(4, 4)) + 0.1
    # A feature that is always zero.
    return np.pad(x, ((0, 0), (0, 1))), np.pad(y, ((0, 0), (0, 1)))


def covariance(rng, d):
    root = rng.normal(size=(d, d))
    return root @ root.T


def test_moments_are_numpys():
    x = np.random.default_rng(0).normal(3.0, size=(20, 4))
    np.testing.assert_allclose(moments(x).mean, x.mean(axis=0))
    np.testing.assert_allclose(moments(x).covariance, np.cov(x, rowvar=False), rtol=1e-12)


def test_frechet_distance_of_one_feature():
    first = Moments(np.array([1.0]), np.array([[4.0]]))
    second = Moments(np.array([-0.5]), np.array([[0.25]]))
    assert frechet_distance(first, second) == pytest.approx(1.5**2 + (2 - 0.5) ** 2, rel=1e-14)


@pytest.mark.parametrize("d", [2, 7])
def test_frechet_distance_of_covariances_that_do_not_commute(d):
    rng = np.random.default_rng(1)
    s, a = covariance(rng, d), covariance(rng, d)
    assert np.abs(s @ a - a @ s).max() > 0.1
    shift = rng.normal(size=d)
    # The optimal map between the Gaussians is x -> A x + shift, if A is symmetric and positive.
    move = a - np.eye(d)
    expected = shift @ shift + np.trace(move @ s @ move)
    first, second = Moments(np.zeros(d), s), Moments(shift, a @ s @ a)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-12)


def test_frechet_distance_of_commuting_covariances_without_full_rank():
    rng = np.random.default_rng(2)
    d = 40
    q = np.linalg.qr(rng.normal(size=(d, d)))[0]
    a, b = np.where(np.arange(d) < 20, 1.0, 0), np.where(np.arange(d) % 2, 0, 4.0)
    first, second = (Moments(np.zeros(d), (q * diagonal) @ q.T) for diagonal in (a, b))
    expected = np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    # Roots of a product's eigenvalues would be right to 1e-6 only.
    assert frechet_distance(first, second) == pytest.approx(expected, abs=1e-11)


def test_frechet_distance_is_real_for_fewer_events_than_features():
    # scipy 1.17's sqrtm of the product of these two covariances is complex.
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(20, 40)), rng.normal(size=(15, 40))
    found = frechet_distance(moments(x), moments(y))
    # Another route to the trace of the root, without any covariance.
    a, b = ((z - z.mean(axis=0)) / np.sqrt(len(z) - 1) for z in (x, y))
    overlap = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    difference = x.mean(axis=0) - y.mean(axis=0)
    expected = difference @ difference + np.sum(a**2) + np.sum(b**2) - 2 * overlap
    assert isinstance(found, float)
    assert found == pytest.approx(expected, rel=1e-12)


def test_features_are_scaled_by_the_reference():
    reference = np.array([[1.0, -4.0, 0.0], [0.5, 2.0, 0.0]])
    generated = np.array([[3.0, 2.0, 7.0], [0.0, 8.0, 0.0]])
    first, second = scaled_features(reference, generated)
    np.testing.assert_array_equal(first, [[1, -1, 0], [0.5, 0.5, 0]])
    np.testing.assert_array_equal(second, [[3, 0.5, 7], [0, 2, 0]])


def test_fit_removes_the_bias_of_batches():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(3000, 5)), 1.1 * rng.normal(size=(3000, 5)) + 0.2
    found = frechet_physics_distance(
        x, y, min_samples=50, max_samples=500, num_sizes=6, num_batches=100
    )
    whole = frechet_distance(*(moments(sample) for sample in scaled_features(x, y)))
    # 1/N goes from 0.02 to 0.002 in five equal steps.
    np.testing.assert_allclose(found.sizes, [50, 60.9, 78.1, 108.7, 178.5, 500], atol=1)
    assert found.distances[0] > whole + 10 * found.error
    assert abs(found.value - whole) < 3 * found.error
    assert found.error < 0.1 * whole


def test_line_is_that_of_scipy():
    x, y = correlated_samples()
    line = lambda inverse_size, intercept, slope: intercept + slope * inverse_size
    sizes = {"min_samples": 30, "max_samples": 200, "num_sizes": 5, "num_batches": 3}
    at_bound = 0
    for seed, other in [(0, y), (0, x), (1, x), (2, x), (3, x)]:
        found = frechet_physics_distance(x, other, key=jax.random.key(seed), **sizes)
        tight = dict.fromkeys(["ftol", "xtol", "gtol"], 1e-15)
        (intercept, _), error = curve_fit(
            line, 30 / found.sizes, found.distances, bounds=(0, np.inf), **tight
        )
        assert found.value == pytest.approx(intercept, rel=1e-5, abs=1e-6)
        assert found.error == pytest.approx(np.sqrt(error[0, 0]), rel=1e-4)
        at_bound += found.value == 0
    # Samples that are the same have distance zero but for the scatter of batches.
    assert 0 < at_bound < 5


def test_distances_of_few_events():
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(70, 90)), rng.normal(size=(100, 90))
    found = frechet_physics_distance(x, y, num_batches=2)
    # From a fifth of the smaller sample to all of it.
    assert found.sizes[0] == 14
    assert found.sizes[-1] in (69, 70)
    assert 0 < found.error < found.value < found.distances.min()
    assert frechet_physics_distance(x, y, num_batches=2).value == found.value
    assert frechet_physics_distance(x, y, num_batches=2, key=jax.random.key(1)).value != found.value
    batches = kernel_physics_distance(x, y).batches
    assert len(np.unique(batches)) == 10


def test_mmd_is_the_sum_over_pairs(monkeypatch):
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(7, 3)), rng.normal(0.5, size=(5, 3))
    k = lambda a, b: (a @ b / 3 + 1) ** 4
    within = [
        np.mean([k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j])
        for z in (x, y)
    ]
    expected = sum(within) - 2 * np.mean([k(a, b) for a in x for b in y])
    assert polynomial_mmd(x, y) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr("jgen.metrics.frechet._CHUNK", 12)
    assert polynomial_mmd(x, y) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_mmd_is_unbiased(shift):
    rng = np.random.default_rng(7)
    found = [
        polynomial_mmd(rng.normal(size=(30, 1)), rng.normal(shift, size=(40, 1)))
        for _ in range(4000)
    ]
    # (1 + x y)^4 = sum_j binomial(4, j) x^j y^j, so the distance is one of moments.
    s = shift
    differences = np.array([s, s**2, s**3 + 3 * s, s**4 + 6 * s**2])
    expected = np.array([4, 6, 4, 1]) @ differences**2
    assert np.mean(found) == pytest.approx(expected, abs=3.5 * np.std(found) / np.sqrt(len(found)))


def test_kernel_physics_distance_of_few_true_events_has_mean_zero():
    rng = np.random.default_rng(8)
    # The largest value is 1 in practically every sample, so scaling does nothing.
    draw = lambda num: rng.choice([-1.0, -0.5, 0.5, 1.0], size=(num, 2))
    found = [
        kernel_physics_distance(
            draw(40), draw(50), num_batches=4, key=jax.random.key(i)
        ).batches.mean()
        for i in range(1500)
    ]
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 3.5 * error
    # Drawn with replacement, batches would be off by this much.
    events = draw(4000)
    kernel = (events @ events.T / 2 + 1) ** 4
    bias = (np.mean(np.diag(kernel)) - np.mean(kernel)) * (1 / 40 + 1 / 50)
    assert bias > 10 * error


def test_kernel_physics_distance_summarises_its_batches():
    x, y = correlated_samples()
    found = kernel_physics_distance(x, y, num_batches=9, batch_size=50, key=jax.random.key(1))
    assert found.value == np.median(found.batches)
    assert found.error == pytest.approx(iqr(found.batches, rng=(16.275, 83.725)) / 2)
    again = kernel_physics_distance(x, y, num_batches=9, batch_size=50, key=jax.random.key(1))
    np.testing.assert_array_equal(found.batches, again.batches)
    # Large batches scatter less.
    spread = [
        np.std(kernel_physics_distance(x, y, num_batches=40, batch_size=n).batches)
        for n in (20, 400)
    ]
    assert spread[1] < 0.5 * spread[0]


def test_agrees_with_recorded_numbers_of_jetnet():
    x, y = correlated_samples()
    found = frechet_physics_distance(x, y, num_sizes=6, key=jax.random.key(3), **FIT)
    # The same batches; the tolerance is that of jetnet's iterative fit.
    assert (found.value, found.error) == pytest.approx(JETNET_FPD, rel=1e-6)
    xs, ys = scaled_features(x, y)
    assert frechet_distance(moments(xs), moments(ys)) == pytest.approx(JETNET_FRECHET, rel=1e-9)
    assert polynomial_mmd(xs, ys) == pytest.approx(JETNET_MMD, rel=1e-9)
    # Other batches: medians of 50 of them.
    found = kernel_physics_distance(x, y, num_batches=50, batch_size=300, key=jax.random.key(3))
    error = 1.25 * np.hypot(found.error, JETNET_KPD[1]) / np.sqrt(50)
    assert found.value == pytest.approx(JETNET_KPD[0], abs=3.5 * error)
    assert found.error == pytest.approx(JETNET_KPD[1], rel=0.5)


def test_agrees_with_jetnet_itself():
    jetnet = pytest.importorskip("jetnet.evaluation", exc_type=ImportError)
    x, y = correlated_samples()
    for first, second in ((x, y), (y, x)):
        expected = jetnet.fpd(first, second, num_points=6, seed=3, **FIT)
        found = frechet_physics_distance(first, second, num_sizes=6, key=jax.random.key(3), **FIT)
        assert (found.value, found.error) == pytest.approx(expected, rel=1e-6)
        xs, ys = scaled_features(first, second)
        expected = jetnet.gen_metrics._mmd_poly_quadratic_unbiased(xs, ys)
        assert polynomial_mmd(xs, ys) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("distance", [frechet_physics_distance, kernel_physics_distance])
def test_samples_that_do_not_fit_are_refused(distance):
    x = np.ones((20, 3))
    with pytest.raises(ValueError, match="reference has 3 columns and generated 2"):
        distance(x, x[:, :2])
    with pytest.raises(ValueError, match=r"generated needs the shape \[events, features\]"):
        distance(x, x[:, 0])
    with pytest.raises(ValueError, match="two or more events"):
        distance(x[:1], x)
    with pytest.raises(ValueError, match=r"not finite in 1 of 3 columns, the first is column 2"):
        distance(np.where(np.arange(3) == 2, np.nan, x), x)


def test_unusable_options_and_moments_are_refused():
    x = np.random.default_rng(9).normal(size=(20, 3))
    with pytest.raises(ValueError, match="batches of 30 to 20 events"):
        frechet_physics_distance(x, x, min_samples=30)
    with pytest.raises(ValueError, match="2 sizes"):
        frechet_physics_distance(x, x, num_sizes=2)
    with pytest.raises(ValueError, match="samples of 4"):
        kernel_physics_distance(x[:3], x)
    with pytest.raises(ValueError, match="2 batches"):
        kernel_physics_distance(x, x, num_batches=1)
    good = moments(x)
    with pytest.raises(ValueError, match="3 features and the generated distribution 2"):
        frechet_distance(good, moments(x[:, :2]))
    with pytest.raises(ValueError, match=r"a mean \[d\] and a covariance \[d, d\]"):
        frechet_distance(good, Moments(good.mean, good.covariance[:2]))
    with pytest.raises(ValueError, match="not symmetric"):
        frechet_distance(good, Moments(good.mean, np.triu(good.covariance)))
    with pytest.raises(ValueError, match="eigenvalue -1"):
        frechet_distance(good, Moments(good.mean, np.diag([1.0, 2.0, -1.0])))


def test_a_scale_that_hides_a_column_is_said():
    rng = np.random.default_rng(0)
    reference, generated = rng.normal(size=(2, 400, 3))
    scaled_features(reference, generated)  # a warning would be an error
    reference[5, 1] = 1e6
    with pytest.warns(UserWarning, match="column 1: 1e\\+06 beside 3"):
        kernel_physics_distance(reference, generated)
    reference[5, 1] = 0
    reference[:, 2] = 2e6 + 1e-2 * reference[:, 2]
    with pytest.warns(UserWarning, match="column 2: by 0.0.* at 2e\\+06"):
        frechet_physics_distance(reference, generated)


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize("weighted", [False, True])
def test_estimates_of_the_frechet_distance_have_the_error_of_the_samples(shift, weighted):
    """At truth, which is nothing but a floor, and where samples differ."""
    rng, found = np.random.default_rng(6), []
    for i in range(60):
        # Uniform, so that the largest value, which sets the scale, is nearly the same.
        x, y = rng.uniform(-1, 1, (150, 3)), rng.uniform(-1 + shift, 1, (150, 3))
        weights = rng.uniform(size=(2, 150)) if weighted else (None, None)
        options = {"num_sizes": 4, "num_batches": 10, "key": jax.random.key(i)}
        found.append(frechet_physics_distance(x, y, *weights, **options).estimate)
    values, errors = np.array(found).T
    assert 0.8 < np.sqrt(np.mean(errors**2)) / values.std() < 1.7
    assert np.mean(np.abs(values - values.mean()) < errors) > 0.58


def test_weighted_mmd_is_the_weighted_sum_over_pairs():
    rng = np.random.default_rng(8)
    x, y, v, w = rng.normal(size=(4, 2)), rng.normal(size=(3, 2)), rng.random(4), rng.random(3)
    kernel = lambda a, b: (a @ b / 2 + 1) ** 4

    def mean(a, b, p, q, same):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (same and i == j)]
        total = sum(p[i] * q[j] for i, j in pairs)
        return sum(p[i] * q[j] * kernel(a[i], b[j]) for i, j in pairs) / total

    exact = mean(x, x, v, v, True) + mean(y, y, w, w, True) - 2 * mean(x, y, v, w, False)
    assert polynomial_mmd(x, y, v, w) == pytest.approx(exact, rel=1e-12)
    assert polynomial_mmd(x, y, 1e-200 * v, 1e200 * w) == pytest.approx(exact, rel=1e-12)
    with pytest.raises(ValueError, match="a single event has all of the weight"):
        polynomial_mmd(x, y, np.eye(len(x))[0], w)


@pytest.mark.parametrize("distance", [frechet_physics_distance, kernel_physics_distance])
def test_weights_undo_a_bias(distance):
    """Events of N(m, 1) with the weights N(0, 1) / N(m, 1) are events of N(0, 1)."""
    rng = np.random.default_rng(9)
    truth, biased = rng.normal(size=(3000, 2)), rng.normal(0.5, 1, size=(3000, 2))
    weights = np.exp(np.sum(0.125 - 0.5 * biased, axis=1))
    plain, weighted = distance(truth, biased), distance(truth, biased, None, weights)
    same = distance(truth, biased, np.ones(3000), np.full(3000, 7.0))
    assert same.value == pytest.approx(plain.value, rel=0.1)
    assert abs(weighted.value) < 0.1 * plain.value
    assert plain.value > 4 * plain.error
    with pytest.raises(ValueError, match="not negative"):
        distance(truth, biased, None, -weights)
