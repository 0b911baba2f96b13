"""Times by the clock of sampling, densities and programs, compilation left out; operations."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jgen.checks import check_whole
from jgen.generative_model import GenerativeModel, SampleFunction, draw, log_densities
from jgen.typing import Cond, Key, Params, PyTree


def timed_draw(
    model: GenerativeModel | SampleFunction,
    params: Params,
    key: Key,
    num: int,
    cond: Cond = None,
    *,
    batch_size: int = 1000,
) -> tuple[PyTree, float]:
    """What `draw` returns, and milliseconds an event from the host to the host."""
    check_whole(num=num, batch_size=batch_size)
    batch_size = min(batch_size, num)
    first = jax.tree.map(lambda c: c[: min(len(c), batch_size)], cond)
    draw(model, params, key, batch_size, first, batch_size=batch_size)  # compiles
    start = time.perf_counter()
    events = draw(model, params, key, num, cond, batch_size=batch_size)
    return events, 1e3 * (time.perf_counter() - start) / num


def timed_log_densities(
    model: GenerativeModel,
    params: Params,
    key: Key,
    x: PyTree,
    cond: Cond = None,
    *,
    batch_size: int = 1000,
) -> tuple[Float[np.ndarray, " n"], float]:
    """What `log_densities` returns, and milliseconds an event from the host to the host."""
    check_whole(batch_size=batch_size)
    num = len(jax.tree.leaves(x)[0])
    batch_size = min(batch_size, num)
    rows = lambda tree: jax.tree.map(lambda a: a[: min(len(a), batch_size)], tree)
    log_densities(model, params, key, rows(x), rows(cond), batch_size=batch_size)  # compiles
    start = time.perf_counter()
    log_prob = log_densities(model, params, key, x, cond, batch_size=batch_size)
    return log_prob, 1e3 * (time.perf_counter() - start) / num


def milliseconds(program: Callable[[], Any], *, repeats: int = 3) -> float:
    """Median milliseconds of a program that returns arrays, after one call that compiles it."""
    check_whole(repeats=repeats)
    jax.block_until_ready(program())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(program())
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def operations(program: Callable[..., Any], *arguments: Any) -> float:
    """Floating-point operations of one call, as XLA counts those of the compiled program.

    Those of single elements count, too. The body of a loop counts once, whatever the number of
    rounds: count a call of the network and multiply by the number of calls.

    Args:
      program: of arrays.
      *arguments: arrays or their shapes.
    """
    return float(jax.jit(program).lower(*arguments).compile().cost_analysis()["flops"])
