"""Speed of networks on sets of points, next to PyTorch where it is installed.

    export XLA_FLAGS=--xla_cpu_multi_thread_eigen=false
    taskset -c 0 python -m experiments benchmarks.sets

The EPiC network and the set transformer on jets of 30 and 150 points, one jet and a batch, forward
and the gradient of a squared error; and what buckets of like length save in a step and in drawing.
Programs that are compared take turns; times are CPU milliseconds of the process, medians of the
repeats. PyTorch comes with `pip install -e .[benchmarks]` and runs on one thread. About 5 minutes
on one core. Numbers: results/benchmarks.md.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.timing import (
    compare,
    compiled,
    installed,
    measure,
    medians,
    random_array,
    random_params,
    ratio_figure,
    ratios,
)
from experiments.study import Run, Study, at_least, main, table, variant
from jgen import Batch, OptimizerConfig, draw, models
from jgen.nets import (
    EpicConfig,
    Network,
    SetTransformerConfig,
    epic,
    num_parameters,
    set_transformer,
)
from jgen.sets import SetCondition
from jgen.solvers import runge_kutta
from jgen.training import make_optimizer, make_step
from jgen.training.buckets import bucket_rows

FEATURES, CONDITIONS = 3, 2


@dataclass(frozen=True)
class Config:
    """What is measured, and how often."""

    epic: EpicConfig = EpicConfig()
    """EPiC network, the published one."""
    transformer: SetTransformerConfig = SetTransformerConfig(128, 8, 4, 256)
    """Set transformer."""
    rows: tuple[int, ...] = (30, 150)
    """Rows of a jet."""
    batches: tuple[int, ...] = (1, 64)
    """Jets at once."""
    buckets: tuple[int, ...] = (2, 4)
    """Groups of like length of a step and of drawn jets, against none."""
    mean: float = 0.4
    """Mean number of points over the rows, where buckets are measured."""
    repeats: int = 7
    """Repeats of each program."""
    seed: int = 0
    """Seed of the numbers of points."""


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, rows=2, batches=1, buckets=2, repeats=1)
    if not 0 < config.mean <= 1:
        raise ValueError(f"mean must be a fraction of the rows, in (0, 1], got {config.mean}")


def build(config: Config) -> dict[str, Network]:
    """Both networks."""
    return {
        "epic": epic(FEATURES, CONDITIONS, config.epic),
        "transformer": set_transformer(FEATURES, CONDITIONS, config.transformer),
    }


def rivals(config: Config, name: str, inputs: tuple) -> dict:
    """PyTorch's programs, none where it is not installed."""
    if not installed(("torch",)):
        return {}
    from experiments.benchmarks import pytorch, pytorch_sets

    make = pytorch_sets.Epic if name == "epic" else pytorch_sets.SetTransformer
    network = make(FEATURES, CONDITIONS, getattr(config, name))
    ours, theirs = num_parameters(build(config)[name].init), pytorch.num_parameters(network)
    if ours != theirs:
        raise ValueError(f"{name} has {ours} parameters here and {theirs} in PyTorch")
    return pytorch_sets.set_programs(network, *inputs)


def measure_network(config: Config, name: str, rows: int, size: int) -> dict[str, float]:
    """Forward and gradient of a network, beside PyTorch's."""
    network = build(config)[name]
    apply = jax.vmap(network.apply, in_axes=(None, 0, 0, 0))
    t, x, cond = jnp.linspace(0, 1, size), random_array(size, rows, FEATURES), random_array(size, 2)
    n = jnp.asarray(np.random.default_rng(config.seed).integers(1, rows + 1, size))
    args = (random_params(network.init), t, x, SetCondition(n, cond))
    loss = lambda *args: jnp.mean((apply(*args[:-1]) - args[-1]) ** 2)
    others = rivals(config, name, (t, x, n, cond, -x))
    metrics = compare(f"{name}/forward", f"{rows}x{size}", apply, args, others, config.repeats)
    return metrics | compare(
        f"{name}/gradient", f"{rows}x{size}", jax.grad(loss), (*args, -x), others, config.repeats
    )


def measure_buckets(config: Config, rows: int) -> dict[str, float]:
    """A training step and drawn jets of lengths that differ, with buckets and without."""
    size = max(config.batches)
    model = models.flow_matching(
        build(config)["epic"], (rows, FEATURES), solver=runge_kutta("midpoint", 4)
    )
    rng = np.random.default_rng(config.seed)
    n = np.clip(rng.gamma(8, config.mean * rows / 8, 8 * size).astype(int), 1, rows)
    cond = SetCondition(n, np.asarray(random_array(8 * size, CONDITIONS)))
    data = Batch(random_array(8 * size, rows, FEATURES), cond)
    params, key = random_params(model.init), jax.random.key(0)
    steps, draws = {}, {}
    for buckets in (1, *config.buckets):
        own = bucket_rows(n, size, buckets) if buckets > 1 else ()
        step = make_step(model, make_optimizer(OptimizerConfig(), 100), size, bucket_rows=own)
        update, _ = compiled(step.update, step.init(key), key, data)
        steps[buckets] = partial(update, step.init(key), key, data)
        draws[buckets] = partial(
            draw, model, params, key, 8 * size, cond, batch_size=size, buckets=buckets
        )
    metrics = {}
    for what, programs in (("step", steps), ("draw", draws)):
        times = measure(programs, config.repeats)
        for buckets, own in times.items():
            metrics |= medians(f"buckets_{what}", f"{rows}/{buckets}", own)
            if buckets > 1:
                metrics |= ratios(f"buckets_{what}", f"{rows}/{buckets}", own, times[1])
    return metrics


def compute(config: Config, run: Run) -> dict[str, float]:
    """Measure, with ROWS x JETS for the size.

    NETWORK_ms/forward/SIZE, NETWORK_ms/gradient/SIZE   CPU milliseconds; with _wall_ by the clock
    torch_ms/NETWORK/...       PyTorch's, and ratio/NETWORK/...: jgen's over PyTorch's
    buckets_step_ms/ROWS/K, buckets_draw_ms/ROWS/K      with K groups of like length, and
                               buckets_step_ratio/..., over one group
    compile_s/...              seconds to trace and compile
    """
    tasks = {
        f"{name}/{rows}x{size}": partial(measure_network, config, name, rows, size)
        for name in ("epic", "transformer")
        for rows in config.rows
        for size in config.batches
    }
    tasks |= {f"buckets/{rows}": partial(measure_buckets, config, rows) for rows in config.rows}
    metrics = {}
    for name, task in tasks.items():
        metrics |= run.cached(f"measured/{name}", task)
    return metrics


def report(config: Config, run: Run, metrics: dict[str, Any]) -> str:
    """Draw all ratios of times."""
    kinds = {
        "ratio": "jgen / PyTorch",
        "buckets_step_ratio": "A step in buckets / without",
        "buckets_draw_ratio": "Drawing in buckets / without",
    }
    run.save("ratios", ratio_figure(metrics, kinds))
    return table(["median"], {name: [value] for name, value in metrics.items()}, digits=4)


DEFAULT = Config()
SMOKE = variant(
    DEFAULT,
    epic=EpicConfig(8, 2, 1),
    transformer=SetTransformerConfig(8, 2, 1, 8),
    rows=(6,),
    batches=(1, 4),
    buckets=(2,),
    repeats=2,
)
STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build)

if __name__ == "__main__":
    main(STUDY)
