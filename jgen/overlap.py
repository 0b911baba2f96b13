"""Rows that two samples share, found by what is in them: a copy is no second sample.

Rows count as the same if they are so in single precision, whatever their order and place.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Real, UInt64

COPIES = 0.01
"""Share of equal rows that is no accident."""
# Fewer equal rows are no copies.
_FEW = 6
# Samples of fewer different rows may have the same counts by accident.
_FEWEST_VALUES = 10
# Numbers hashed at once; 2^20 of them are 8 MiB.
_CHUNK = 2**20


def row_keys(
    rows: Real[np.ndarray, "num ..."], *, double: bool = False
) -> UInt64[np.ndarray, " num"]:
    """A number for each row in single precision, or in double; those of different rows differ."""
    num = len(rows)
    width = max(1, int(np.prod(np.shape(rows)[1:])))
    factors = np.random.default_rng(0).integers(2**63, size=width, dtype=np.uint64) * 2 + 1
    keys, size = np.empty(num, np.uint64), max(1, _CHUNK // width)
    float_type, int_type = (np.float64, np.uint64) if double else (np.float32, np.uint32)
    with np.errstate(over="ignore"):
        for start in range(0, num, size):
            block = np.asarray(rows[start : start + size]).reshape(-1, width)
            # Zero has two signs.
            bits = (block.astype(float_type) + float_type(0)).view(int_type).astype(np.uint64)
            bits = (bits + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
            bits ^= bits >> np.uint64(29)
            keys[start : start + len(block)] = np.sum(bits * factors, axis=1)
    keys ^= keys >> np.uint64(32)
    return keys


def repeated_share(keys: UInt64[np.ndarray, " num"]) -> float:
    """Share of rows that are there twice or more."""
    counts = np.unique(keys, return_counts=True)[1]
    return 1 - float(np.sum(counts == 1)) / len(keys)


def shared_share(
    keys: UInt64[np.ndarray, " num"], known: UInt64[np.ndarray, " num_known"]
) -> float:
    """Share of rows that are among the known ones, beyond what may be an accident.

    Where rows repeat, as those of whole numbers and of empty showers do, a new row meets a known
    one as often as a known one meets another. Two samples of more than a few different rows with
    the same number of each are one, however often they repeat.
    """
    if not len(keys) or not len(known):
        return 0.0
    if len(keys) == len(known) and np.array_equal(np.sort(keys), np.sort(known)):
        if len(np.unique(keys)) >= _FEWEST_VALUES:
            return 1.0
    num, few = len(keys), _FEW / min(len(keys), len(known))
    share, accident = float(np.isin(keys, known).mean()), 0.0
    repeated = repeated_share(keys), repeated_share(known)
    allowed = _FEW / num
    if any(repeated):
        # One of the samples may hold its rows twice by mistake; the other says what is usual.
        usual = (repeated[0] + _FEW / num) * max(1, len(known) / num)
        accident = min(repeated[1], usual, 1.0)
        # All shares fluctuate, and equal rows do together.
        bound = min(accident + few, 1.0)
        allowed = few + 6 * np.sqrt(bound * (1 - bound) * (1 / num + 1 / len(known)))
    return share - accident if share > accident + allowed else 0.0


def copied_share(rows: Real[np.ndarray, "num ..."], known: Real[np.ndarray, "m ..."]) -> float:
    """`shared_share` of rows as they are, and in single precision, whichever is larger."""
    shares = []
    for double in (False, True):
        if double and not all(np.asarray(x[:1]).dtype == np.float64 for x in (rows, known)):
            continue
        shares.append(shared_share(*(row_keys(x, double=double) for x in (rows, known))))
    return max(shares)


def check_disjoint(
    reference: Mapping[str, Real[np.ndarray, "_ ..."]],
    holdout: Mapping[str, Real[np.ndarray, "_ ..."]],
    names: tuple[str, str] = ("reference", "holdout"),
) -> None:
    """Refuse a second sample of the truth that holds events of the first.

    Args:
      reference: columns of the first sample, by name; those with as many rows belong together.
      holdout: the same columns of the second one.
      names: what messages call the two.

    Raises:
      ValueError: if more rows are shared than chance explains.
    """
    share = largest_share(holdout, reference)
    if share > COPIES:
        raise ValueError(
            f"{100 * share:.3g} % of the events of {names[1]} are in {names[0]}, number for "
            "number, so truth against truth would be too small: pass other events of the truth"
        )


def largest_share(
    sample: Mapping[str, Real[np.ndarray, "_ ..."]], known: Mapping[str, Real[np.ndarray, "_ ..."]]
) -> float:
    """`copied_share` of columns that belong together, the largest."""
    groups = {}
    for name in sample:
        groups.setdefault((len(sample[name]), len(known[name])), []).append(name)
    return max(copied_share(*(_joined(s, g) for s in (sample, known))) for g in groups.values())


def _joined(sample, names):
    columns = [np.asarray(sample[name]) for name in names]
    if len(columns) == 1:
        return columns[0]
    return np.concatenate([c.reshape(len(c), -1) for c in columns], axis=1)
