"""How inputs of classifiers are scaled, so that neither an offset nor an outlier blinds them.

Everything is float64 on the host: of values around 2e6 with a spread of 1e-2, single precision
keeps nothing. Scales come from order statistics, so that no single event sets them.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Real

# Numbers that pass through the host's memory at once.
_BLOCK = 2**15
# Rows that order statistics are taken of, and numbers of them held at once.
_ROWS, _NUMBERS = 2**14, 2**17
# Scales from the centre where a column begins to be compressed.
_LIMIT = 10.0
# Largest deviations beyond this fraction of them do not set the scale.
_KEPT = 0.95
# Scales from the centre that a reader is told of, in columns that vary in at least this fraction.
_FAR, _DENSE = 1e3, 0.05


class Scaling(NamedTuple):
    """Maps rows to what a network sees.

    Attributes:
      centre: medians, in the units of the columns.
      scale: about a standard deviation without the largest values; infinite for a column that is
        left out.
      limit: scales from the centre from where on values are compressed.
    """

    centre: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]
    limit: Float[np.ndarray, " d"]

    def __call__(self, rows: Real[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Scaled rows in float32.

        Beyond the limit they grow with the logarithm: an outlier cannot overflow, and no order is
        lost.
        """
        z = (np.asarray(rows, np.float64) - self.centre[None]) / self.scale[None]
        beyond = np.maximum(np.abs(z) - self.limit[None], 0)
        return (np.sign(z) * (np.abs(z) - beyond + np.log1p(beyond))).astype(np.float32)

    def notes(self, samples: Sequence[Real[np.ndarray, "_ d"]]) -> tuple[str, ...]:
        """What a reader should know of columns that are left out or have far outliers."""
        out = []
        # Of voxels that are never hit nobody has to be told.
        if (left := np.isinf(self.scale) & (self.centre != 0)).any():
            out.append(
                f"{left.sum()} of {len(left)} columns never change in training and are left out; "
                f"the first is column {np.argmax(left)}, {self.centre[left][0]:.6g}."
            )
        farthest, dense = np.zeros(len(self.scale)), np.zeros(len(self.scale))
        for sample in samples:
            for block in blocks(sample, np.arange(len(sample))):
                distance = np.abs(block - self.centre[None])
                farthest = np.maximum(farthest, (distance / self.scale[None]).max(axis=0))
                dense += (distance > 0).sum(axis=0)
        far = (farthest > _FAR) & (dense > _DENSE * sum(map(len, samples)))
        if far.any():
            worst = int(np.argmax(np.where(far, farthest, 0)))
            found = f"{far.sum()} of {len(far)} columns have values that are more than {_FAR:.0f} "
            where = f"; the farthest, {farthest[worst]:.2g}, is in column {worst}: "
            if np.isinf(self.limit).all():
                out.append(
                    f"{found}from zero, which a network hardly sees differences of{where}"
                    "standardise the inputs."
                )
            else:
                out.append(
                    f"{found}scales from the median and are compressed{where}"
                    "is it a placeholder or of other units?"
                )
        return tuple(out)


def identity_scaling(num: int) -> Scaling:
    """Columns as they are."""
    return Scaling(np.zeros(num), np.ones(num), np.full(num, np.inf))


def robust_scaling(
    samples: Sequence[Real[np.ndarray, "_ d"]], rows: Sequence[Int[np.ndarray, " _"]]
) -> Scaling:
    """Each column by its median, and by the root mean square of its deviations from there.

    Of the deviations that are not zero the largest 5 %, one at least, count as the next one, so
    that sparse columns are treated as others. The median and this bound come from 16,384 rows at
    even distances, the mean from all.

    Args:
      samples: tables of the same columns.
      rows: of each sample, those that count.
    """
    rows = [np.sort(r) for r in rows]
    centre, bound = _order_statistics(samples, rows)
    num, unit = sum(map(len, rows)), np.where(np.isfinite(bound), bound, 1)
    squares = np.zeros(len(centre))
    for pair in zip(samples, rows, strict=True):
        for block in blocks(*pair):
            # In units of the bound, so that no square overflows.
            squares += np.square(np.minimum(np.abs(block - centre), bound) / unit).sum(axis=0)
    scale = unit * np.sqrt(squares / num)
    # A column of nothing but rounding errors says nothing either.
    eps = max(_epsilon(sample) for sample in samples)
    scale[scale <= 4 * eps * np.abs(centre)] = np.inf
    return Scaling(centre, scale, np.full(len(scale), _LIMIT))


def image_scaling(
    samples: Sequence[Real[np.ndarray, "_ d"]], rows: Sequence[Int[np.ndarray, " _"]]
) -> Scaling:
    """The first column as in `robust_scaling`, all others by one number, so zeros stay zeros.

    It is the root mean square of the entries of an event, over all events, where the brightest 5 %
    count as the next one.
    """
    rows = [np.sort(r) for r in rows]
    first = robust_scaling([sample[:, :1] for sample in samples], rows)
    brightness = np.concatenate(
        [
            _root_mean_square(block[:, 1:])
            for pair in zip(samples, rows, strict=True)
            for block in blocks(*pair)
        ]
    )
    scale = _root_mean_square(np.minimum(brightness, _bound(np.sort(brightness))).T)
    num = samples[0].shape[1] - 1
    return Scaling(
        np.append(first.centre, np.zeros(num)),
        np.append(first.scale, np.full(num, scale if scale > 0 else np.inf)),
        # All of an event of ten times the usual brightness may be in one entry.
        np.append(first.limit, np.full(num, _LIMIT * num**0.5)),
    )


def blocks(
    sample: Real[np.ndarray, "n d"], rows: Int[np.ndarray, " _"]
) -> Iterator[Float[np.ndarray, "_ d"]]:
    """Rows in float64, a few at a time."""
    size = max(1, _BLOCK // sample.shape[1])
    for start in range(0, len(rows), size):
        yield np.asarray(sample[rows[start : start + size]], np.float64)


def _order_statistics(samples, rows):
    """Medians of the columns, and where deviations from them end to count."""
    step = -(-sum(map(len, rows)) // _ROWS)
    rows, num = [r[::step] for r in rows], samples[0].shape[1]
    width = max(1, _NUMBERS // sum(map(len, rows)))
    centre, bound = np.empty(num), np.empty(num)
    for start in range(0, num, width):
        part = slice(start, start + width)
        values = np.concatenate([s[r, part] for s, r in zip(samples, rows, strict=True)])
        values = np.asarray(values, np.float64)
        centre[part] = np.median(values, axis=0)
        bound[part] = _bound(np.sort(np.abs(values - centre[None, part]), axis=0))
    return centre, bound


def _bound(deviations):
    """The quantile of sorted deviations, of those that are not zero; infinite if all are."""
    num, zeros = len(deviations), (deviations == 0).sum(axis=0)
    index = zeros + (_KEPT * (num - zeros - 1)).astype(int)
    index = np.maximum(np.minimum(index, num - 2), np.minimum(zeros, num - 1))
    bound = np.take_along_axis(deviations, index[None], axis=0)[0]
    return np.where(zeros < num, bound, np.inf)


def _root_mean_square(values):
    """Over the last axis."""
    largest = np.abs(values).max(axis=-1, initial=0)
    unit = np.where(largest > 0, largest, 1)
    return unit * np.sqrt(np.mean(np.square(values / unit[..., None]), axis=-1))


def _epsilon(sample):
    return np.finfo(sample.dtype).eps if sample.dtype.kind == "f" else 0.0
