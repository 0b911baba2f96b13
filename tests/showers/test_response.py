"""Energy responses: profiles against closed forms, p-values against their distribution."""

import h5py
import jax
import numpy as np
import pytest
from scipy import stats

from jgen.showers import response_test, sample_path


@pytest.fixture(scope="module")
def geant4():
    """Incident energies and responses of all bundled showers."""
    with h5py.File(sample_path()) as file:
        energies = file["incident_energies"][:, 0].astype(np.float64)
        total = np.concatenate(
            [
                file["showers"][i : i + 400].sum(axis=1, dtype=np.float64)
                for i in range(0, 3200, 400)
            ]
        )
    return energies, total / energies


def made(num, seed, mean=0.95, noise=stats.norm):
    """Responses of resolution 12 % / sqrt(E / GeV) (+) 1 %."""
    rng = np.random.default_rng(seed)
    energies = np.exp(rng.uniform(np.log(1e3), np.log(3e4), num))
    width = np.hypot(0.12 / np.sqrt(energies / 1e3), 0.01)
    return energies, mean + width * noise.rvs(size=num, random_state=rng)


def split(sample, rng, first, second):
    order = rng.permutation(len(sample[0]))
    parts = order[:first], order[first : first + second]
    return [tuple(a[rows] for a in sample) for rows in parts]


def test_profiles_are_moments_and_their_errors_are_right_for_tails():
    # Student's t with 10 degrees: kurtosis 4, which a Gaussian error of a width would miss.
    noise = stats.t(10)
    found = []
    for seed in range(200):
        x = 0.9 + 0.05 * noise.rvs(size=400, random_state=seed)
        energies = np.full(200, 5e3)
        test = response_test(
            energies, x[:200], energies, x[200:], num_permutations=1, key=jax.random.key(seed)
        )
        assert len(test.edges) == 2
        p = test.reference
        assert p.mean[0] == pytest.approx(x[:200].mean(), rel=1e-12)
        assert p.mean_error[0] == pytest.approx(x[:200].std(ddof=1) / 200**0.5, rel=1e-9)
        resolution = x[:200].std(ddof=1) / x[:200].mean()
        assert p.resolution[0] == pytest.approx(resolution, rel=1e-9)
        found.append((p.resolution[0], p.resolution_error[0]))
    value, error = np.array(found).T
    width = 0.05 * noise.std() / 0.9
    spread = width * ((4.0 - 1) / 4 / 200 + width**2 / 200) ** 0.5
    # The scatter of 200 experiments is known to 5 to 8 %; a Gaussian error is 18 % smaller.
    assert error.mean() == pytest.approx(spread, rel=0.1)
    assert value.std() == pytest.approx(error.mean(), rel=0.2)


@pytest.fixture(scope="module")
def truth_p_values(geant4):
    """p-values of random pairs of Geant4 samples, one row a pair."""
    rng = np.random.default_rng(1)
    found = []
    for seed in range(150):
        first, second = split(geant4, rng, 500, 900)
        numbers = response_test(
            *first, *second, num_permutations=99, key=jax.random.key(seed)
        ).numbers
        found.append([numbers[name] for name in ("mean_p", "resolution_p", "tails_p")])
    return np.array(found)


@pytest.mark.parametrize("column", [0, 1, 2])
def test_p_values_are_uniform_on_truth(truth_p_values, column):
    # Splits of one sample share showers, but which part a shower is in is new every time.
    found = truth_p_values[:, column]
    assert stats.kstest(found, stats.uniform(0, 1).cdf).pvalue > 1e-3
    assert abs(np.mean(found <= 0.1) - 0.1) < 4 * (0.1 * 0.9 / 150) ** 0.5


def test_two_per_cent_of_wrong_energies_are_found_in_the_tails_only(geant4):
    rng = np.random.default_rng(2)
    found = {"mean_p": [], "resolution_p": [], "tails_p": []}
    for seed in range(20):
        (e, r), (f, s) = split(geant4, rng, 1600, 1600)
        s = s.copy()
        s[:32] *= 1.1
        numbers = response_test(e, r, f, s, num_permutations=199, key=jax.random.key(seed)).numbers
        for name, values in found.items():
            values.append(numbers[name])
    power = {name: np.mean(np.array(values) < 0.05) for name, values in found.items()}
    assert power["tails_p"] >= 0.5  # an insensitive test would have 0.05
    assert power["tails_p"] > power["resolution_p"]
    assert power["tails_p"] > power["mean_p"]


def test_more_showers_find_the_wrong_ones_for_sure():
    (e, r), (f, s) = made(10_000, 0), made(10_000, 1)
    s = s.copy()
    s[:200] *= 1.1
    assert response_test(e, r, f, s, num_permutations=499).numbers["tails_p"] < 0.01


@pytest.mark.parametrize(
    ("change", "name"),
    [(lambda r: r * 1.01, "mean_p"), (lambda r: 0.95 + 1.15 * (r - 0.95), "resolution_p")],
)
def test_wrong_means_and_widths_are_found_where_they_are(change, name):
    (e, r), (f, s) = made(4000, 3), made(3000, 4)
    numbers = response_test(e, r, f, change(s), num_permutations=499).numbers
    assert numbers[name] < 0.01
    other = "resolution_p" if name == "mean_p" else "mean_p"
    assert numbers[other] > 0.01


def test_another_spectrum_is_no_wrong_response():
    """Half of the generated showers of low energy are missing."""
    found = []
    for seed in range(40):
        (e, r), (f, s) = made(1000, 2 * seed), made(1500, 2 * seed + 1)
        keep = (f > 5e3) | (np.arange(len(f)) % 2 == 0)
        test = response_test(e, r, f[keep], s[keep], num_permutations=99)
        found.append([test.numbers[n] for n in ("mean_p", "resolution_p", "tails_p")])
    assert np.all(np.mean(np.array(found) < 0.05, axis=0) < 0.05 + 4 * (0.05 * 0.95 / 40) ** 0.5)


def test_one_absurd_shower_hides_no_others():
    (e, r), (f, s) = made(5000, 0), made(5000, 1)
    s = s.copy()
    s[:100] *= 1.15
    s[-1] = 1000.0
    assert response_test(e, r, f, s, num_permutations=199).numbers["tails_p"] < 0.02


def test_fixed_energies_and_bins_without_one_of_the_samples():
    rng = np.random.default_rng(0)
    energies = np.repeat([1e3, 2e3, 4e3], 100)
    response = 0.9 + 0.1 * rng.normal(size=300)
    test = response_test(energies, response, energies, response[::-1], num_permutations=9)
    np.testing.assert_array_equal(test.reference.num, [100, 200])  # the last bin is closed
    test = response_test(energies, response, energies[:100], response[:100], num_permutations=9)
    np.testing.assert_array_equal(test.generated.num, [100])


def test_bad_samples_are_refused():
    energies = np.linspace(1e3, 2e3, 100)
    with pytest.raises(ValueError, match="no bin of incident energy holds showers of both"):
        response_test(energies, energies, 10 * energies, energies)
    with pytest.raises(ValueError, match="needs 10 showers of each sample"):
        response_test(energies[:9], energies[:9], energies, energies)
