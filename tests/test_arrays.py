"""What users hand over becomes numbers of the right type, or a sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import Batch, GenerativeModel, TrainConfig, draw, fit, metrics, models
from jgen.amplification import differential_amplification, forecast
from jgen.amplification.quantiles import sample_quantile_edges
from jgen.arrays import SampleWarning, event_arrays, explained, real_array
from jgen.bijectors import standardize
from jgen.estimate import mean_estimate
from jgen.generative_model import log_densities, mean_loss
from jgen.jets import jet_sample
from jgen.sets import padded

NUMBERS = np.array([[1, 0], [3, 1], [2, 5]])
TYPES = ("int8", "uint8", "int64", "float16", "float32", "float64", ">f8", "<i4", ">u2", "g")


@pytest.mark.parametrize("dtype", TYPES)
def test_real_numbers_of_any_type_are_themselves(dtype):
    array = NUMBERS.astype(dtype)
    found = real_array(array, "x")
    np.testing.assert_array_equal(found, NUMBERS)
    assert found.dtype.isnative
    wanted = np.float64 if dtype == "g" else array.dtype.newbyteorder("=")
    assert found.dtype == wanted
    events = event_arrays({"x": array}, "x")["x"]
    assert events.dtype == np.float32
    np.testing.assert_array_equal(events, NUMBERS)


def test_other_containers_and_types():
    np.testing.assert_array_equal(real_array(NUMBERS.tolist(), "x"), NUMBERS)
    np.testing.assert_array_equal(event_arrays(NUMBERS.tolist(), "x"), NUMBERS)
    half = jnp.asarray(NUMBERS, jnp.bfloat16)
    assert real_array(half, "x").dtype == np.float32
    np.testing.assert_array_equal(real_array(half, "x"), NUMBERS)
    big = NUMBERS.astype(np.float64)
    assert real_array(big, "x") is big  # no copy
    unmasked = np.ma.array(NUMBERS, mask=False)
    np.testing.assert_array_equal(real_array(unmasked, "x"), NUMBERS)
    # Labels stay, and a list of arrays is a pytree.
    labels = event_arrays([np.array([True]), np.array([2, 3], np.uint8)], "cond", integers=True)
    assert [a.dtype for a in labels] == [bool, np.uint8]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ma.masked_equal(NUMBERS, 5), "1 of 6 entries of x are masked"),
        (NUMBERS + 1j, r"got complex numbers \(complex128\)"),
        (NUMBERS.astype(str), "got text"),
        (NUMBERS.astype(object), "got ndarray of Python objects"),
        (np.array(["2020-01-01"], "M8[D]"), "must be an array of real numbers"),
        (np.zeros(2, "f4,f4"), "got records"),
        ([[1, 2], [3]], "x is no array of numbers"),
        ("jets.h5", "got text"),
        (None, "must be an array of real numbers, got NoneType"),
        ({"a": 1}, "must be an array of real numbers, got dict"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_no_numbers_are_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        real_array(values, "x")


def test_booleans_and_large_integers():
    assert real_array(NUMBERS > 1, "x").dtype == bool
    with pytest.raises(ValueError, match="x must be an array of real numbers, got booleans"):
        real_array(NUMBERS > 1, "x", booleans=False)
    with pytest.raises(ValueError, match="cond has integers of more than 32 bits"):
        event_arrays(np.array([2**40]), "cond", integers=True)


@pytest.mark.parametrize("value", [1e300, -1e39, 10**40])
def test_numbers_beyond_single_precision_are_refused(value, key):
    """A cast would make infinities of them, with a warning of numpy at most."""
    huge = np.array([[1.0, float(value)], [2.0, 3.0]] * 10)
    match = "has .* numbers such as .*, beyond the largest of float32, 3.4e"
    cond = np.ones((20, 3))
    for raises in (
        lambda: event_arrays(huge, "x"),
        lambda: train(Batch(huge, cond), key),
        lambda: train(Batch(X, np.column_stack([cond[:, :2], huge[:, 1]])), key),
        lambda: train(Batch(X, cond), key, validation=Batch(huge, cond)),
        lambda: draw(MODEL, np.ones((2, 3), np.float32), key, 20, cond * value),
        lambda: log_densities(MODEL, np.ones((2, 3), np.float32), key, huge, cond),
        lambda: standardize(huge[0], [1.0, 1.0]),
        lambda: models.binned(np.array([[0.0, abs(float(value))]])),
        lambda: padded([huge]),
        lambda: jet_sample(np.abs(huge)[:, None, [0, 0, 1]], np.ones(20, int)),
    ):
        with pytest.raises(ValueError, match=match):
            raises()
    assert np.isinf(event_arrays(np.array([np.inf]), "x"))  # came in so
    with jax.enable_x64(True):
        np.testing.assert_array_equal(event_arrays(huge, "x", np.float64), huge)


def test_numbers_below_single_precision_are_said(key):
    with pytest.raises(ValueError, match="standard deviations have numbers .* for zero, .* 1e-60"):
        standardize(0.0, np.array([1e-60, 1.0]))
    with pytest.warns(SampleWarning, match="at 8e-60 in column .*choose other units"):
        train(Batch(X * 1e-60 + [[0, 1]], COND), key)


def model_of(dim):
    """A Gaussian around W c."""

    def log_prob(params, key, x, cond):
        return -jnp.sum((x - params @ cond) ** 2) / 2

    return GenerativeModel(
        init=lambda key: jax.random.normal(key, (dim, 3)),
        loss=lambda params, key, batch: mean_loss(
            lambda k, x, c: -log_prob(params, k, x, c), key, batch
        ),
        sample=lambda params, key, cond: params @ cond + jax.random.normal(key, (dim,)),
        log_prob=log_prob,
    )


MODEL = model_of(2)
RNG = np.random.default_rng(0)
X, COND = RNG.integers(0, 9, size=(20, 2)), RNG.integers(0, 3, size=(20, 3))
CONFIG = TrainConfig(steps=2, batch_size=10)


def train(data, key, **options):
    options = {"progress": False, "devices": jax.devices()[:1]} | options
    return fit(MODEL, data, key, CONFIG, **options)


def test_a_training_does_not_depend_on_the_type(key):
    wanted = train(Batch(X.astype(np.float32), COND.astype(np.float32)), key).params
    for dtype in ("uint8", ">f8"):
        found = train(Batch(X.astype(dtype), COND.astype(dtype)), key).params
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_double_precision_under_x64_is_that_of_the_parameters(key):
    with jax.enable_x64(True):
        found = train(Batch(X.astype(float), COND.astype(float)), key, validation=None)
        assert found.params.dtype == np.float64
        density = log_densities(MODEL, found.params[0], key, X.astype(float), COND)
    assert np.isfinite(density).all()


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (X, {}, r"data must be a Batch, such as Batch\(x\) .*, got ndarray"),
        ({"x": X}, {}, "data must be a Batch, .* got dict"),
        ((X, COND), {}, "data must be a Batch, .* got tuple"),
        (Batch(X, COND), {"validation": X}, "validation must be a Batch"),
        (Batch(X[:0], COND[:0]), {}, "data has no events"),
        (Batch(X, COND), {"validation": Batch(X[:0], COND[:0])}, "validation has no events"),
        (Batch(X, COND), {"validation": Batch(X)}, "validation has events and conditions of the"),
        (Batch(X, COND), {"validation": Batch(X[:, :1], COND)}, "they must be the same"),
        (Batch(X, COND), {"devices": []}, "devices must be a list of one device at least"),
        (Batch(X, COND), {"key": 0}, "a typed key is needed, got int 0"),
        (Batch(X.astype(str), COND), {}, "data.x must be an array of real numbers, got text"),
        (Batch(X * 1j, COND), {}, "data.x must be an array of real numbers, got complex"),
        (Batch(X, np.ma.masked_equal(COND, 1)), {}, "entries of data.cond are masked"),
        (Batch(X[:, [0, 1, 1]], COND), {}, r"loss does not take x float32\[20, 3\], cond int"),
        (Batch(X, COND[:, :2]), {}, r"loss does not take .*cond int32\[20, 2\]: is the number"),
        (Batch(X), {}, r"the model's loss does not take x float32\[20, 2\]: is the number"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_cannot_be_trained_on_is_said(data, options, message, key):
    key = options.get("key", key)
    options = {name: value for name, value in options.items() if name != "key"}
    with pytest.raises(ValueError, match=message):
        train(data, key, **options)


def test_what_cannot_be_drawn_or_scored_is_said(key):
    params = np.ones((2, 3), np.float32)
    scored = log_densities(MODEL, params, key, X, COND)
    same = log_densities(MODEL, params, key, X.astype(">f8"), COND.astype(np.float16))
    np.testing.assert_allclose(scored, same)
    np.testing.assert_allclose(scored, -np.sum((X - COND @ params.T) ** 2, axis=1) / 2)
    for x, cond, message in (
        (X.astype(str), COND, "x must be an array of real numbers"),
        (X[:0], COND[:0], "there are no events: x is empty"),
        (np.ma.masked_equal(X, 1), COND, "entries of x are masked"),
        (X[:, [0, 1, 1]], COND, r"the density does not take x float32\[20, 3\], cond int64\[20"),
        (X, COND[:, :2], r"the density does not take .*cond int64\[20, 2\]"),
        (X, None, r"the density does not take x float32\[20, 2\]: is the number"),
    ):
        with pytest.raises(ValueError, match=message):
            log_densities(MODEL, params, key, x, cond)
    for num, cond, message in (
        (20.0, COND, "num must be a whole number from 1 to 2147483647, got 20.0"),
        (True, COND[:1], "num must be a whole number from 1 to 2147483647, got True"),
        (20, COND.astype(str), "cond must be an array of real numbers, got text"),
        (20, COND[:, :2], r"the model does not take conditions int64\[20, 2\]"),
        (20, None, "the model does not take"),
    ):
        with pytest.raises(ValueError, match=message):
            draw(MODEL, params, key, num, cond)
    with pytest.raises(ValueError, match="a typed key is needed, got int 3"):
        draw(MODEL, params, 3, 20, COND)


def test_training_on_an_offset_is_warned_of(key):
    narrow = 2e6 + 1e-2 * RNG.normal(size=(20, 2))
    with pytest.warns(SampleWarning, match=r"data.x changes by 0.0.* at 2e\+06 in column \(0,\)"):
        train(Batch(narrow, COND), key)


def test_errors_on_purpose_stay_what_they_are():
    with pytest.raises(KeyError, match="mine"), explained("the model", x=X):
        raise KeyError("mine")
    with pytest.raises(ValueError, match=r"the model does not take x int64\[20, 2\]"):
        with explained("the model", x=X, cond=None):
            jnp.zeros(3) @ jnp.zeros(4)
    with pytest.raises(ValueError, match="the model does not take events without conditions"):
        with explained("the model", cond=None):
            jnp.zeros(3) @ jnp.zeros(4)


ONE = np.linspace(0, 1, 200)
TWO = np.stack([ONE, ONE**2], axis=1)
DOORS = {
    "wasserstein": lambda f: metrics.wasserstein(ONE, f(ONE)),
    "weights": lambda f: metrics.wasserstein(ONE, ONE, f(ONE)),
    "sliced_wasserstein": lambda f: metrics.sliced_wasserstein(f(TWO), TWO),
    "histogram": lambda f: metrics.histogram(f(ONE), [0, 1]),
    "histogram weights": lambda f: metrics.histogram(ONE, [0, 1], f(ONE)),
    "moments": lambda f: metrics.moments(f(TWO)),
    "polynomial_mmd": lambda f: metrics.polynomial_mmd(TWO, f(TWO)),
    "frechet": lambda f: metrics.frechet_physics_distance(TWO, f(TWO)),
    "kernel": lambda f: metrics.kernel_physics_distance(f(TWO), TWO),
    "precision": lambda f: metrics.precision_recall_density_coverage(f(TWO), TWO),
    "area": lambda f: metrics.area_under_curve(f(ONE), ONE),
    "classifier": lambda f: metrics.classifier_test(TWO, f(TWO), jax.random.key(0)),
    "cross": lambda f: metrics.cross_fitted_log_ratio(f(TWO), TWO, jax.random.key(0)),
    "compare": lambda f: metrics.compare({"x": ONE}, {"x": ONE}, {"x": f(ONE)}, lambda *_: [0, 1]),
    "pulls": lambda f: metrics.pulls(f(ONE), np.stack([ONE, ONE])),
    "members": lambda f: metrics.member_bins(lambda x: [0.5], f(ONE), np.stack([ONE, ONE])),
    "differential": lambda f: differential_amplification(f(ONE), ONE, 10),
    "edges": lambda f: sample_quantile_edges(f(ONE), 4),
    "mean": lambda f: mean_estimate(f(ONE)),
    "forecast": lambda f: forecast(TWO, f(TWO), [TWO]),
}


@pytest.mark.parametrize("door", DOORS)
def test_masks_and_text_are_no_data_at_any_door(door):
    with pytest.raises(ValueError, match="entries of .* are masked"):
        DOORS[door](lambda a: np.ma.masked_greater(a, 0.9))
    for kind in (complex, str, object):
        with pytest.raises(ValueError, match="must be an array of real numbers"):
            DOORS[door](lambda a: a.astype(kind))  # noqa: B023
