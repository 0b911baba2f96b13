"""The forecast: generators of known worth, what is said of them, and what users get wrong."""

import jax
import numpy as np
import pytest
from scipy import stats

from jgen.amplification import Interval, averaging_amplification, forecast
from jgen.amplification.forecasting import Classifiers
from jgen.amplification.forecasting.estimates import confirmed_events
from jgen.amplification.forecasting.verdict import interval_in_words, number_in_words
from jgen.metrics import ClassifierConfig
from jgen.plotting import forecast_figures
from jgen.toys import fit_error, normal_probability


def normal(rng, num=1000, shift=0.0):
    return rng.normal(size=num) + shift


def text_of(result):
    return " ".join(str(result).split())


def judge(*samples, **options):
    return forecast(*samples, **({"kind": "bootstrap"} | options))


def bootstrap_members(rng, train, count, num_gen):
    """Gaussians of width one whose mean is fitted to resampled events."""
    means = [rng.choice(train, len(train)).mean() for _ in range(count)]
    return np.stack([normal(rng, num_gen, mean) for mean in means])


def test_a_fitted_gaussian_is_worth_what_error_propagation_says():
    """Forty members of one data set: the exact G of its width, within the spread of 39 freedoms."""
    rng = np.random.default_rng(0)
    train, held_out = normal(rng), normal(rng, 4000)
    members = bootstrap_members(rng, train, 40, 300_000)
    result = judge(train, held_out, members, region=(0.0, 0.5))
    one = result.averaging["region_1"]
    share = normal_probability(0.0, 0.5, train.mean())
    num = 1000 / train.var()
    variance = fit_error(0.0, 0.5, num, train.mean(), fits_width=False).variance[0]
    exact = share * (1 - share) / variance / 1000
    assert 50 < exact < 100
    # In regions the noise of 3e5 events is a quarter of the error that is measured.
    low, high = 39 / stats.chi2.ppf([0.9985, 0.0015], 39)
    assert low * 0.7 < one.amplification.value / exact < high * 1.4
    assert one.amplification.low < one.amplification.value < one.amplification.high
    assert one.n_equiv.value == pytest.approx(1000 * one.amplification.value)
    # The same as from fractions made by hand.
    shares = np.mean((members >= 0) & (members < 0.5), axis=1)
    by_hand = averaging_amplification(shares[:, None, None], [300_000], 1000)
    np.testing.assert_allclose(np.ravel(by_hand.n_equiv), one.n_equiv)
    assert one.share == pytest.approx(shares.mean())
    # No more than some of the held-out events is certain.
    assert 300 < one.confirmed < 4000
    text = text_of(result)
    assert f"amplification G = {number_in_words(one.amplification.value)} (+" in text
    assert "Held-out events by themselves confirm a G of" in text
    assert "Where a few events decide" in text
    found = result.metrics()
    assert found["G/region_1_low"] == one.amplification.low
    assert found["num_held_out"] == 4000


def test_the_memoriser_is_worth_its_training_set_and_fools_the_training_set():
    rng = np.random.default_rng(0)
    train, held_out = normal(rng), normal(rng, 4000)
    members = [rng.choice(rng.choice(train, 1000), 30_000) for _ in range(40)]
    result = judge(train, held_out, members, quantiles=10)
    # Forty members in ten regions know the variance to 7 % or worse.
    assert result.averaging["quantiles"].amplification.value == pytest.approx(1, abs=0.25)
    assert "your generator is worth" in text_of(result)
    assert "Generating more than about" in text_of(result)
    assert "COPIES: 100 % of the generated events are training events" in text_of(result)
    # A bootstrap of the training set has twice its error.
    ks = result.differential["column 0"].amplification
    assert ks.low < 0.5 < ks.high
    result = judge(train, None, [rng.choice(train, 30_000) for _ in range(2)])
    found = result.metrics()
    assert "G_uncalibrated/column 0" not in found
    # The printed band of Eq. 37 reaches below zero, so that nothing is excluded from below.
    assert found["G_uncalibrated/column 0_low"] == 0
    assert found["probability/column 0"] < 1e-6
    assert not any(name.startswith("G_ks") for name in found)
    for said in ("DO NOT QUOTE", "uncalibrated G infinite", "Nothing was asked for: give a region"):
        assert said in text_of(result)


def test_what_members_are_is_said():
    rng = np.random.default_rng(1)
    train, held_out = normal(rng), normal(rng)
    members = [normal(rng, 5000) for _ in range(3)]
    kinds = ("unknown", "plain", "repulsive", "bootstrap", "bayesian")
    texts = {
        kind: text_of(forecast(train, held_out, members, kind=kind, region=(0.0, 0.5)))
        for kind in kinds
    }
    assert "You did not say what the members are" in texts["unknown"]
    for kind in ("plain", "repulsive"):
        assert "CAUTION" in texts[kind]
        averaging = texts[kind].split("FULL RESOLUTION")[0]
        assert "amplification G" not in averaging
        assert "generator is worth" not in averaging
    assert "CAUTION" not in texts["bootstrap"]
    assert "a training on all events is worth twice" in texts["bootstrap"]
    assert "prior and the temperature" in texts["bayesian"]
    # These are one generator under three names, and nothing speaks against it.
    assert "make sure that they were trained apart" in texts["bootstrap"]
    one = judge(train, held_out, members[:1], region=(0.0, 0.5))
    assert "One member has no spread" in text_of(one)
    assert not one.averaging


def test_biased_members_and_leaked_events_are_noticed():
    rng = np.random.default_rng(2)
    train, held_out = normal(rng), normal(rng, 3000)
    for shift in (0.0, 0.3):
        members = [normal(rng, 5000, shift + rng.normal() * 0.03) for _ in range(10)]
        result = judge(train, held_out, members, region=[(1.0, np.inf), (-np.inf, 0.0)])
        regions = result.averaging
        assert (abs(regions["region_2"].pull) > 3) == (shift > 0)
        assert ("BIAS" in text_of(result)) == (shift > 0)
        assert "SUSPICIOUS" not in text_of(result)
        # Two that do not overlap are taken together, too.
        assert regions["regions"].share == pytest.approx(
            regions["region_1"].share + regions["region_2"].share
        )
    leaked = text_of(judge(train, held_out, [rng.choice(held_out, 60_000)]))
    assert "SUSPICIOUS" in leaked
    assert "100 % of the generated events are held-out events" in leaked


def test_what_held_out_events_confirm_holds_a_bias_that_all_members_share():
    """A rate that is wrong by a tenth: members agree on it, and held-out events are few."""
    rng = np.random.default_rng(3)
    train, held_out = rng.random(1000), rng.random(1000)
    wrong = [rng.random(100_000) ** (1 / (1 + 0.02 * rng.normal())) for _ in range(20)]
    members = [np.where(rng.random(len(x)) < 0.02, 0.19 * rng.random(len(x)), x) for x in wrong]
    one = judge(train, held_out, members, region=(0.0, 0.2)).averaging["region_1"]
    truth = 0.2 * 0.8 / (one.share - 0.2) ** 2
    assert one.n_equiv.low > 2 * truth
    assert one.p_value > 0.0027
    assert one.confirmed < 2 * truth


@pytest.mark.parametrize(("bias", "count"), [(0.0, 1), (1.0, 1), (4.0, 1), (1.0, 6), (4.0, 6)])
def test_the_confirmed_number_is_too_high_in_16_percent_or_fewer(bias, count):
    rng = np.random.default_rng(4)
    share, noise = np.full(count, 0.1), np.full(count, 1e-4)
    true = np.full(count, 0.01 * bias)
    draws = true + 0.01 * rng.normal(size=(1000, count))
    found = np.array([confirmed_events(d, share, noise) for d in draws])
    if not bias:
        assert np.all(np.isfinite(found))
        # In units of the reference, whose noise is I (1 - I) / n.
        assert np.max(found) < 900
        return
    exact = np.sum(share * (1 - share)) / np.sum(true**2)
    rate = np.mean(found > exact)
    assert rate < 0.1587 + 3 * 0.012
    if bias > 2:
        assert rate > 0.1587 - 3 * 0.012


def test_regions_are_half_open_for_whole_numbers():
    rng = np.random.default_rng(3)
    counts = [rng.poisson(3.0, num) for num in (1000, 1000, 5000, 4000)]
    result = judge(*counts[:2], counts[2:], region=[(2, 4), (4, np.inf)])
    # As many events of each member as the smaller one has.
    jets = np.stack([counts[2][:4000], counts[3]])
    assert result.inputs.num_gen == 4000
    assert result.copies == (0, 0)  # equal numbers are no copies
    first, second = (result.averaging[f"region_{i}"] for i in (1, 2))
    assert first.share == pytest.approx(np.mean((jets >= 2) & (jets < 4)))
    assert second.share == pytest.approx(np.mean(jets >= 4))
    binomial = second.share * (1 - second.share)
    expected = np.mean(jets >= 4, axis=1).var(ddof=1) - binomial / 4000
    found = result.metrics()
    if expected > 0:
        assert found["n_equiv/region_2"] == pytest.approx(binomial / expected)
    else:
        assert "n_equiv/region_2" not in found
        assert found["n_equiv/region_2_low"] > 0


def test_columns_classifiers_stages_and_figures():
    rng = np.random.default_rng(5)
    train, held_out = rng.normal(size=(2, 1000, 2))
    members = rng.normal(size=(3, 4000, 2)).astype(np.float32)
    members[..., 1] += 0.5
    small = ClassifierConfig(hidden=(8,), epochs=3, batch_size=500, num_seeds=1, learning_rate=1e-2)
    stages = {}

    def cached(name, compute):
        if name not in stages:
            stages[name] = compute()
        return stages[name]

    options = dict(
        names=("pt", "m"),
        column="m",
        quantiles=5,
        classifiers=Classifiers(1, 4000, 2, small),
        key=jax.random.key(0),
        cached=cached,
    )
    result = judge(train, held_out, members, **options)
    assert sorted(stages) == ["members/0000", "members/0001", "members/0002"]
    assert result.differential["pt"].amplification.high > 3
    # The largest gap of normal distributions half a width apart is 2 Phi(1/4) - 1 = 0.197.
    distance = result.differential["m"].distances[:, -1].mean()
    assert distance == pytest.approx(0.197, abs=3 * 0.26 / 1000**0.5)
    assert result.differential["classifier"].distances.shape[0] == 1
    assert result.averaging["quantiles"].label == "5 quantiles of m"
    assert judge(train, held_out, members, **options).metrics() == result.metrics()
    names = {"variances", "variances_2", "distances", "distances_classifier", "columns"}
    figures = forecast_figures(result)
    assert set(figures) == names
    panels = [ax.get_title() for ax in figures["variances"].axes]
    assert panels == ["5 quantiles of m", "lowest quantile of m", "highest quantile of m"]
    labels = {text.get_text() for text in figures["columns"].legends[0].get_texts()}
    assert {"Held out", "Generated", "Training"} <= labels


def test_what_cannot_be_forecast_is_refused():
    rng = np.random.default_rng(0)
    train, held, other = (rng.normal(size=(num, 2)) for num in (500, 300, 2000))
    g, g2 = rng.normal(size=(2, 2000, 2))
    broken = g.copy()
    broken[7, 1] = np.nan
    touched = g.copy()
    touched[3] += 1
    good = dict(train=train, held_out=held, members=[g, g2], region=(0.0, 1.0))
    for options, message in (
        ({"members": []}, "there are no members"),
        ({"members": g}, "1 columns and train 2: .* members are a list with one array for each"),
        ({"members": [g[:400]]}, "400 events, fewer than the 500 of training"),
        ({"num_train": 5000}, "fewer than the 5000 of training"),
        ({"members": [np.ones((2000, 3))]}, "3 columns and train 2: all samples need the same"),
        ({"members": [np.ones((2000, 2, 2))]}, r"members\[0\] has the shape \(2000, 2, 2\)"),
        ({"held_out": held[:50]}, "a distance to them says nothing below 100"),
        ({"column": 2}, "column must be one of column 0, column 1"),
        ({"column": "pt"}, "got 'pt'"),
        ({"names": ("pt",)}, "2 columns need as many different names"),
        ({"names": ("pt", "classifier")}, "cannot be called classifier"),
        ({"region": (1.0, 0.0)}, "a region needs low < high"),
        ({"region": (1.0, 2.0, 3.0)}, "two numbers for each"),
        ({"region": (8.0, 9.0)}, r"0 of 2000 generated and 0 of 500 .* in \[8, 9\)"),
        ({"region": (-99.0, 99.0)}, "inside and outside"),
        ({"quantiles": 100}, "too few for 100 quantiles; take 50"),
        ({"quantiles": 1}, "take two or more"),
        ({"per_decade": 0}, "per_decade must be at least 1"),
        ({"kind": "mixed"}, "kind must be one of unknown, plain"),
        ({"classifiers": Classifiers()}, "classifiers need a key"),
        ({"classifiers": Classifiers(folds=1)}, "classifiers.folds must be at least 2"),
        ({"train": np.array([["a", "b"]])}, "train must be an array of real numbers, got text"),
        ({"members": [broken]}, r"members\[0\]: column 1 of event 7 is nan"),
        ({"members": [g, np.sort(other, axis=0)]}, r"members\[1\]: column 0 .* shuffle them"),
        # Copies, also if a few numbers of them were changed or the order is another.
        ({"held_out": train[::-1][:300]}, "100 % of the events of held_out are in train"),
        ({"held_out": np.r_[held[:290], train[:10]]}, "3.33 % of the events of held_out"),
        ({"members": [g, g2, g]}, r"members\[2\] and members\[0\] hold the same events"),
        ({"members": [g, g2, g[::-1]]}, r"members\[2\] and members\[0\] .* in another order"),
        ({"members": [g, touched]}, r"members\[1\] and members\[0\] hold the same events"),
        ({"members": [np.r_[train, g]]}, r"members\[0\] and train hold the same events"),
    ):
        with pytest.raises(ValueError, match=message):
            forecast(**(good | options))


def test_members_from_the_same_random_numbers_are_noticed():
    rng = np.random.default_rng(6)
    train, held_out, noise = normal(rng), normal(rng), normal(rng, 20_000)
    members = [noise + 0.03 * rng.normal() for _ in range(5)]
    text = text_of(judge(train, held_out, members, region=(0.0, 0.5)))
    assert "CAUTION: numbers at the same place" in text
    assert "correlation of 1," in text
    apart = [normal(rng, 20_000, 0.03 * rng.normal()) for _ in range(5)]
    assert judge(train, held_out, apart, region=(0.0, 0.5)).inputs.correlation == 0


def test_numbers_in_words():
    cases = {0.0123: "0.012", 1.96: "2", 7.44: "7.4", 99.6: "100", 2649: "2600", 99_900: "1e5"}
    cases |= {123_456: "1.2e5", 9.99e6: "1e7", 0.0: "0"}
    assert {x: number_in_words(x) for x in cases} == cases
    words = lambda *ends: interval_in_words(Interval(*ends))
    assert words(2600, 1900, 3800) == "2600 (+1200 -700)"
    assert words(2600, 1900, np.inf).startswith("at least 1900 (best estimate 2600")
    assert words(np.inf, 1900, np.inf) == "at least 1900"
