"""Maximum mean discrepancies (Gretton et al. 2012) as differentiable losses.

`jgen.metrics` judges samples with another kernel; these are for training.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.checks import check_positive


def gaussian_mmd(
    x: Float[Array, "n d"], y: Float[Array, "m d"], scales: Sequence[float]
) -> Float[Array, ""]:
    """Unbiased MMD^2; k(x, y) is the mean of exp(-|x - y|^2 / (2 s^2)) over the `scales` s.

    Unbiased, so that it is zero on average for samples of one distribution, and may be negative.

    Raises:
      ValueError: if there is only one event on a side, whose own distances have no mean.
    """
    check_scales(scales)
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise ValueError(f"an unbiased MMD needs two events or more of each, got {n} and {m}")
    own = lambda a: jnp.sum(_kernel(_squares(a, a), scales)) - len(a)
    between = jnp.mean(_kernel(_squares(x, y), scales))
    return own(x) / (n * (n - 1)) + own(y) / (m * (m - 1)) - 2 * between


def sorted_kernel_mmd(
    x: Float[Array, " n"],
    y: Float[Array, " n"],
    scales: Sequence[float],
    *,
    window: int,
    stride: int,
    num: int,
) -> Float[Array, ""]:
    """Mean MMD^2 of the windows of two sorted lists (2005.05334, the post-processor's loss).

    The `num` largest numbers of either list are sorted downwards and cut into windows of `window`
    numbers, `stride` apart; the numbers at the same ranks are compared with one another. A kernel
    that is narrow beside the range of the numbers, as a peak in a spectrum asks for, would not see
    numbers that are far apart; sorting brings together what has to become equal, and costs
    num * window pairs instead of n^2. Here MMD^2 is the biased one, which is not negative.

    Raises:
      ValueError: if the windows do not fit into the lists.
    """
    check_scales(scales)
    if not 1 <= window <= num <= len(x) or stride < 1 or len(x) != len(y):
        raise ValueError(
            f"windows of {window} numbers out of {num}, {stride} apart, do not fit lists of "
            f"{len(x)} and {len(y)}; choose 1 <= window <= num <= length, and a stride from 1 on"
        )
    starts = range(0, num - window + 1, stride)
    rows = jnp.arange(window)[None] + jnp.asarray(starts)[:, None]
    x, y = (jax.lax.top_k(a, num)[0][rows] for a in (x, y))
    pairs = lambda a, b: _kernel((a[:, :, None] - b[:, None]) ** 2, scales)
    return jnp.mean(pairs(x, x) + pairs(y, y) - 2 * pairs(x, y))


def check_scales(scales: Sequence[float]) -> None:
    """Refuse what are no widths of a kernel."""
    if not len(scales):
        raise ValueError("a kernel needs one width or more, got none")
    for scale in scales:
        check_positive(scale=scale)


def _squares(x, y):
    return jnp.sum((x[:, None] - y[None]) ** 2, axis=-1)


def _kernel(squares, scales):
    return sum(jnp.exp(-squares / (2 * scale**2)) for scale in scales) / len(scales)
