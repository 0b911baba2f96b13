import numpy as np
import pytest

from jgen.overlap import check_disjoint, copied_share, row_keys

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=(3000, 2))
DIGITS = RNG.integers(0, 17, size=(400, 64)).astype(float)
NARROW = 2e6 + 1e-2 * NORMAL
SHOWERS = np.where(RNG.random((500, 1)) < 0.4, 0, RNG.exponential(size=(500, 6)))


@pytest.mark.parametrize("truth", [NORMAL, NORMAL[:, 0], DIGITS, NARROW, SHOWERS], ids=str)
def test_copies_are_found_in_any_order_and_precision(truth):
    shuffled = RNG.permutation(truth)
    for copy in (truth, shuffled, shuffled[: len(truth) // 2], truth[::3]):
        with pytest.raises(ValueError, match="% of the events of holdout are in reference"):
            check_disjoint({"x": truth}, {"x": copy})
    if truth is not NARROW:  # of which single precision keeps nothing
        check_single(truth, shuffled)


def check_single(truth, shuffled):
    single = shuffled.astype(np.float32)
    assert copied_share(single, truth) > 0.5
    assert copied_share(single.astype(float), truth) > 0.5
    assert copied_share(single.astype(">f4"), truth) > 0.5


def test_one_in_twenty_is_enough_and_a_few_are_not():
    other = RNG.normal(size=(2000, 2))
    other[:100] = NORMAL[:100]
    assert copied_share(other, NORMAL) == 0.05
    other[6:100] += 1e-3
    assert copied_share(other, NORMAL) == 0
    check_disjoint({"x": NORMAL}, {"x": other})


@pytest.mark.parametrize(
    "draw",
    [
        lambda n: RNG.normal(size=n),
        lambda n: RNG.integers(0, 2, size=(n, 1)),
        lambda n: RNG.integers(0, 2000, size=n),
        lambda n: RNG.poisson(3, size=(n, 3)),
        lambda n: RNG.normal(size=(n, 3)) * (RNG.random((n, 1)) < 0.2),
        lambda n: RNG.normal(size=n).astype(np.float16),
        lambda n: np.zeros((n, 5)),
    ],
    ids=["real", "binary", "integers", "counts", "mostly empty", "half", "all empty"],
)
def test_samples_of_one_distribution_share_nothing_beyond_chance(draw):
    for n, m in ((1000, 1000), (2000, 150), (150, 2000)):
        check_disjoint({"x": draw(n)}, {"x": draw(m)})


def test_all_zero_showers_do_not_hide_copies():
    other = np.where(RNG.random((500, 1)) < 0.4, 0, RNG.exponential(size=(500, 6)))
    assert copied_share(other, SHOWERS) == 0
    other[:250] = SHOWERS[:250]
    assert copied_share(other, SHOWERS) > 0.2


def test_a_reference_that_was_read_twice_hides_nothing():
    assert copied_share(NORMAL, np.concatenate([NORMAL, NORMAL])) > 0.9


def test_columns_that_belong_together_are_one_row():
    """Conditions may be the same where the events are others."""
    reference = {"energy": NORMAL[:, 0], "shower": NORMAL[:, 1:]}
    check_disjoint(reference, {"energy": NORMAL[:, 0], "shower": NORMAL[::-1, 1:]})
    with pytest.raises(ValueError, match="100 % of the events of b are in a"):
        check_disjoint(reference, reference, ("a", "b"))


def test_keys_of_different_rows_differ():
    rows = np.stack(np.meshgrid(*[np.arange(64)] * 3), axis=-1).reshape(-1, 3)
    assert len(np.unique(row_keys(rows))) == 64**3
    assert row_keys(np.array([[0.0, 1.0]])) == row_keys(np.array([[-0.0, 1.0]]))
    assert row_keys(np.array([[1.0, 0.0]])) != row_keys(np.array([[0.0, 1.0]]))
