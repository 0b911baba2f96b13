"""Timing of programs side by side, in process CPU time and by the clock.

Unlike `jgen.training.timing`, what is compared takes turns, and times are the processor's, too.
"""

import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params
from matplotlib.figure import Figure

from jgen import Batch, GenerativeModel, OptimizerConfig, member
from jgen.nets.primitives import chunks, points
from jgen.nets.primitives.products import plain_products
from jgen.plotting.style import REFERENCE, TEXT_WIDTH, color, new_figure, styled
from jgen.random import member_keys
from jgen.training import make_layout, make_optimizer, make_step
from jgen.training.mesh import put
from jgen.training.step import Step, over_members
from jgen.typing import Params

Program = Callable[[], Any]
ON_PYTORCH = ("torch", "zuko", "nflows")


class Times(NamedTuple):
    """Milliseconds of one program [repeats], of the process' threads together and by the clock."""

    cpu: np.ndarray
    wall: np.ndarray


def measure(programs: dict[str, Program], repeats: int) -> dict[str, Times]:
    """Times of programs that take turns, so that a busy moment hits all of them alike."""
    times = {name: [] for name in programs}
    jax.block_until_ready([program() for program in programs.values()])  # to warm up
    for _ in range(repeats):
        for name, program in programs.items():
            cpu, wall = time.process_time(), time.perf_counter()
            jax.block_until_ready(program())
            times[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return {name: Times(*(1e3 * np.array(rows).T)) for name, rows in times.items()}


def compiled(function: Callable, *args, **options) -> tuple[Callable, float]:
    """A compiled program and the seconds that took; `options` are those of `jax.jit`."""
    begin = time.perf_counter()
    program = jax.jit(function, **options).lower(*args).compile()
    return program, time.perf_counter() - begin


def installed(libraries: Sequence[str]) -> tuple[str, ...]:
    """Those that can be compared with; of the others it is said why not."""
    usable = []
    for name in libraries:
        if importlib.util.find_spec(name) is None:
            print(f"{name} is left out: pip install -e .[benchmarks]")
        elif name in ON_PYTORCH and jax.default_backend() != "cpu":
            print(f"{name} is left out: compared with on a CPU only")
        else:
            usable.append(name)
    if set(usable) & set(ON_PYTORCH):
        import torch

        torch.set_num_threads(1)
    return tuple(usable)


def ratio(times: np.ndarray, reference: np.ndarray) -> float:
    """Median of the ratios of neighbours in time."""
    return float(np.median(times / reference))


def medians(name: str, what: str, times: Times) -> dict[str, float]:
    """Metrics NAME_ms/WHAT and NAME_wall_ms/WHAT."""
    return {
        f"{name}_ms/{what}": float(np.median(times.cpu)),
        f"{name}_wall_ms/{what}": float(np.median(times.wall)),
    }


def ratios(name: str, what: str, times: Times, reference: Times) -> dict[str, float]:
    """Metrics NAME_ratio/WHAT and NAME_wall_ratio/WHAT."""
    return {
        f"{name}_ratio/{what}": ratio(times.cpu, reference.cpu),
        f"{name}_wall_ratio/{what}": ratio(times.wall, reference.wall),
    }


def compare(
    what: str,
    size: int | str,
    function: Callable,
    args: tuple,
    rivals: dict[str, Program],
    repeats: int,
) -> dict[str, float]:
    """Metrics of one program of jgen, and of PyTorch's beside it if that is among the rivals."""
    network, kind = what.split("/")
    program, seconds = compiled(function, *args)
    programs = {network: lambda: program(*args)}
    if kind in rivals:
        programs["torch"] = rivals[kind]
    times = measure(programs, repeats)
    metrics = {f"compile_s/{what}/{size}": seconds}
    metrics |= medians(network, f"{kind}/{size}", times[network])
    if kind in rivals:
        metrics |= medians("torch", f"{what}/{size}", times["torch"])
        metrics[f"ratio/{what}/{size}"] = ratio(times[network].cpu, times["torch"].cpu)
    return metrics


def random_params(init: Callable[..., Params]) -> Params:
    """Random numbers in the place of parameters, without compiling their initialisation."""
    shapes = jax.eval_shape(init, jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(0.02 * rng.standard_normal(s.shape), s.dtype), shapes)


def random_array(*shape: int) -> jax.Array:
    """Standard normal numbers."""
    return jnp.asarray(np.random.default_rng(1).standard_normal(shape), jnp.float32)


def flops(function: Callable, *args) -> float:
    """Floating-point operations of the matrix products in a function, counted in its jaxpr.

    Two a multiply-add; products inside a scan count once a step. What is no product is left out,
    as is usual for the utilisation of an accelerator.
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


# What primitives of jgen compute, of operations that are counted.
_COMPUTED = {
    "jgen_chunks": chunks.all_at_once,
    "jgen_points": points.all_at_once,
    "jgen_product": plain_products,
}


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
        elif (compute := _COMPUTED.get(equation.primitive.name)) is not None:
            shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in equation.invars]
            total += flops(partial(compute, **equation.params), *shapes)
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        total += times * sum(_count(inner) for inner in jaxprs_in_params(equation.params))
    return total


def peak_flops(dtype: str, size: int = 4096, repeats: int = 5) -> float:
    """Operations a second of a large matrix product [size, size], the most that is to be had."""
    a = jnp.ones((size, size), dtype)
    product, _ = compiled(lambda x: x @ x, a)
    times = measure({"product": lambda: product(a)}, repeats)["product"]
    return 2 * size**3 / (1e-3 * float(np.min(times.wall)))


def ensemble_programs(
    model: GenerativeModel, data: Batch, num: int, batch_size: int, ways: Sequence[str]
) -> tuple[dict[str, Program], dict[str, float]]:
    """Programs that train `num` members by a step each, and the seconds that compiling them took.

    Args:
      model: what is trained.
      data: training events.
      num: of members.
      batch_size: minibatch of one.
      ways: "sequential" (a program a member), "scan" and "vmap" (one program), "shard" (vmap over
        several devices).
    """
    make = partial(make_step, model, make_optimizer(OptimizerConfig(), 1000), batch_size)
    step, keys = make(), member_keys(jax.random.key(0), num)
    init = jax.jit(jax.vmap(step.init))
    programs, seconds = {}, {}
    for way in ways:
        states, shared = init(keys), data  # states of its own, since a step takes their memory
        if way == "sequential":
            function = step.update
            runs = [(member(states, i), keys[i]) for i in range(num)]
        elif way == "shard":
            layout = make_layout(num, batch_size)
            function = over_members(make(place_batch=layout.place_batch).update, "vmap")
            runs = [tuple(put(a, layout.members) for a in (states, keys))]
            shared = put(data, layout.shared)
        else:
            function, runs = over_members(step.update, way), [(states, keys)]
        update, seconds[way] = compiled(function, *runs[0], shared, donate_argnums=0)
        programs[way] = partial(next, _steps(update, runs, shared))
    return programs, seconds


def step_program(step: Step, data: Batch) -> tuple[Program, float]:
    """A program that trains one member by a step, and the seconds that compiling it took."""
    run = (jax.jit(step.init)(jax.random.key(0)), jax.random.key(1))
    update, seconds = compiled(step.update, *run, data, donate_argnums=0)
    return partial(next, _steps(update, [run], data)), seconds


def _steps(update: Callable, runs: list[tuple], data: Batch) -> Iterator[list]:
    """Train each of `runs` by one step whenever asked; gives their losses to wait for."""
    states = [state for state, _ in runs]
    while True:
        losses = []
        for i, (_, keys) in enumerate(runs):
            states[i], metrics = update(states[i], keys, data)
            losses.append(metrics["loss"])
        yield losses


def ratio_figure(metrics: Mapping[str, float], kinds: Mapping[str, str]) -> Figure | None:
    """Bars of the metrics KIND/NAME, None if there are none.

    Args:
      metrics: of a benchmark.
      kinds: kind -> label, what the ratios are of.
    """
    series = {}
    for kind, label in kinds.items():
        found = {n.partition("/")[2]: v for n, v in metrics.items() if n.startswith(f"{kind}/")}
        if found:
            series[label] = {f"{name}   {v:.2f}": (v, v, v) for name, v in found.items()}
    return bars(series, "Ratio of CPU times") if series else None


@styled
def bars(series: Mapping[str, Mapping[str, tuple[float, float, float]]], xlabel: str) -> Figure:
    """Horizontal bars in a row for every name, a colour for every series that has it.

    Args:
      series: label -> name -> value and the ends of its error bar.
      xlabel: what the values are; a line marks one.
    """
    rows = list(dict.fromkeys(name for values in series.values() for name in values))
    having = {row: [label for label, values in series.items() if row in values] for row in rows}
    num = sum(len(labels) for labels in having.values())
    figure = new_figure(0.8 * TEXT_WIDTH, 1.0 + 0.14 * (num + len(rows)))
    axes = figure.subplots()
    for k, (label, values) in enumerate(series.items()):
        heights = np.array([0.8 / len(having[row]) for row in values])
        order = np.array([having[row].index(label) for row in values])
        places = np.array([rows.index(row) for row in values]) - 0.4 + heights * (order + 0.5)
        value, low, high = np.array(list(values.values())).T
        spread = np.maximum([value - low, high - value], 0)
        axes.barh(places, value, heights, xerr=spread, color=color(k), label=label)
    axes.axvline(1, color=REFERENCE, linestyle="--", linewidth=0.8)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(axis="y", which="both", length=0)
    axes.invert_yaxis()
    axes.set_xlabel(xlabel)
    figure.legend(loc="outside upper center", ncols=len(series))
    return figure
