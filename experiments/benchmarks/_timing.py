"""Timing of programs side by side, in process CPU time and by the clock."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params

from jgen.typing import Params

Program = Callable[[], Any]


class Times(NamedTuple):
    """Milliseconds of one program [repeats], of the process' threads together and by the clock."""

    cpu: np.ndarray
    wall: np.ndarray


def measure(programs: dict[str, Program], repeats: int) -> dict[str, Times]:
    """Times of programs that take turns, so that a busy moment hits all of them alike."""
    found = {name: [] for name in programs}
    jax.block_until_ready([program() for program in programs.values()])  # to warm up
    for _ in range(repeats):
        for name, program in programs.items():
            cpu, wall = time.process_time(), time.perf_counter()
            jax.block_until_ready(program())
            found[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return {name: Times(*(1e3 * np.array(rows).T)) for name, rows in found.items()}


def compiled(function: Callable, *args, **options) -> tuple[Callable, float]:
    """A compiled program and the seconds that took; `options` are those of `jax.jit`."""
    begin = time.perf_counter()
    program = jax.jit(function, **options).lower(*args).compile()
    return program, time.perf_counter() - begin


def ratio(times: np.ndarray, reference: np.ndarray) -> float:
    """Median of the ratios of neighbours in time."""
    return float(np.median(times / reference))


def medians(name: str, what: str, times: Times) -> dict[str, float]:
    return {
        f"{name}_ms/{what}": float(np.median(times.cpu)),
        f"{name}_wall_ms/{what}": float(np.median(times.wall)),
    }


def random_params(init: Callable[..., Params]) -> Params:
    """Random numbers in the place of parameters, without compiling their initialisation."""
    shapes = jax.eval_shape(init, jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(0.02 * rng.standard_normal(s.shape), s.dtype), shapes)


def random_array(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).standard_normal(shape), jnp.float32)


def flops(function: Callable, *args) -> float:
    """Floating-point operations of the matrix products in a function, counted in its jaxpr.

    Two a multiply-add; products inside a scan count once a step. What is no product is left out,
    as is usual for the utilisation of an accelerator.
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            size = np.prod([left[i] for i in contracted], dtype=np.float64)
            total += 2 * size * np.prod(equation.outvars[0].aval.shape, dtype=np.float64)
        elif equation.primitive.name == "jgen_matmul":
            total += 2.0 * equation.invars[0].aval.size * equation.outvars[0].aval.shape[-1]
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        total += times * sum(_count(inner) for inner in jaxprs_in_params(equation.params))
    return total


def peak_flops(dtype: str, size: int = 4096, repeats: int = 5) -> float:
    """Operations a second of a large matrix product [size, size], the most that is to be had."""
    a = jnp.ones((size, size), dtype)
    product, _ = compiled(lambda x: x @ x, a)
    times = measure({"product": lambda: product(a)}, repeats)["product"]
    return 2 * size**3 / (1e-3 * float(np.min(times.wall)))
