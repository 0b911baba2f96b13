"""Speed of networks on events, next to the packages lgatr and lloca where they are installed.

    export XLA_FLAGS=--xla_cpu_multi_thread_eigen=false
    taskset -c 0 python -m experiments benchmarks.events

The transformer, LLoCa and L-GATr of 2509.08048 on 256 events of six particles: forward, and the
gradient of a mean square; and a training step of ten members at once against ten of one. Programs
that are compared take turns; times are CPU milliseconds of the process, medians of the repeats.
PyTorch and both packages come with `pip install -e .[benchmarks]` and run on one thread. About five
minutes on one core. Numbers: results/benchmarks.md.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.timing import (
    compare,
    ensemble_programs,
    installed,
    measure,
    medians,
    random_params,
    ratio_figure,
    ratios,
)
from experiments.study import Run, Study, at_least, main, table, variant
from jgen import Batch
from jgen import events as event_tools
from jgen.nets import LGATrConfig, LLoCaConfig, Network, lgatr, lloca, num_parameters
from jgen.nets.lorentz.geometric_algebra import embed_vector

NETWORKS = ("transformer", "lloca", "lgatr")
PARTICLES, SCALARS = 6, 14


@dataclass(frozen=True)
class Config:
    """What is measured, and how often."""

    transformer: LLoCaConfig = LLoCaConfig(symmetry="identity")
    """The plain transformer, of published size."""
    lloca: LLoCaConfig = LLoCaConfig()
    """LLoCa, of published size."""
    lgatr: LGATrConfig = LGATrConfig()
    """L-GATr, of published size."""
    batch_size: int = 256
    """Events at once."""
    ensemble: LLoCaConfig = LLoCaConfig(4, 4, 2, 3, 2, "so13", (64, 64))
    """LLoCa of ensembles."""
    members: tuple[int, ...] = (1, 10)
    """Sizes of ensembles."""
    member_batch: int = 64
    """Events of a member in a training step."""
    repeats: int = 7
    """Repeats of each program."""
    seed: int = 0
    """Seed of nothing but the run folder: inputs are fixed."""


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, batch_size=1, members=1, member_batch=1, repeats=1)


def build(config: Config) -> dict[str, Network]:
    """The networks."""
    options = {"spurions": event_tools.SPURIONS}
    return {
        "transformer": lloca(SCALARS, (1, 2), config.transformer),
        "lloca": lloca(SCALARS, (1, 2), config.lloca, **options),
        "lgatr": lgatr((1 + len(event_tools.SPURIONS), SCALARS), (1, 2), config.lgatr),
    }


def event_inputs(config: Config, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Momenta in units of 206.6 GeV, or multivectors, and scalars of bundled events."""
    p = event_tools.read_events()[: config.batch_size] / event_tools.UNIT
    rng = np.random.default_rng(0)
    s = rng.normal(size=(*p.shape[:2], SCALARS)).astype(np.float32)
    if name != "lgatr":
        return p.astype(np.float32), s
    spurions = [np.broadcast_to(np.float32(q), p.shape) for q in event_tools.SPURIONS]
    channels = [np.asarray(embed_vector(jnp.asarray(a, jnp.float32))) for a in (p, *spurions)]
    return np.concatenate(channels, axis=-1), s


def rivals(config: Config, name: str, x: np.ndarray, s: np.ndarray) -> dict:
    """Programs of PyTorch, none where the packages are not installed."""
    if len(installed(("torch", "lgatr", "lloca"))) < 3:
        return {}
    import torch

    from experiments.benchmarks import pytorch, pytorch_events

    if name == "lgatr":
        network = pytorch_events.Lgatr((x.shape[-1], SCALARS), config.lgatr)
        x = np.ascontiguousarray(np.swapaxes(x, 2, 3))
    elif name == "lloca":
        spurions = torch.tensor(event_tools.SPURIONS)
        network = pytorch_events.Lloca(SCALARS, config.lloca, spurions, torch.tensor(x))
    else:
        network = pytorch_events.Plain(SCALARS, config.transformer)
    ours, theirs = num_parameters(build(config)[name].init), pytorch.num_parameters(network)
    if ours != theirs:
        raise ValueError(f"{name} has {ours} parameters here and {theirs} in PyTorch")
    return pytorch_events.event_programs(network, torch.tensor(x), torch.tensor(s))


def measure_network(config: Config, name: str) -> dict[str, float]:
    """Forward and gradient of a network, beside its rival."""
    network = build(config)[name]
    apply = jax.vmap(network.apply, in_axes=(None, 0, 0))
    x, s = event_inputs(config, name)

    def output(params, x, s):
        vectors, numbers = apply(params, x, s)
        if name == "lgatr":
            vectors = vectors[:, :, 1:5]
        return jnp.concatenate([vectors.reshape(*s.shape[:2], 4), numbers], axis=-1)

    args = (random_params(network.init), jnp.asarray(x), jnp.asarray(s))
    loss = lambda *args: jnp.mean(output(*args) ** 2)
    others, size = rivals(config, name, x, s), config.batch_size
    found = compare(f"{name}/forward", size, output, args, others, config.repeats)
    gradient = jax.grad(loss)
    return found | compare(f"{name}/gradient", size, gradient, args, others, config.repeats)


def measure_ensembles(config: Config) -> dict[str, float]:
    """A training step of all members in one program, against one after another."""
    events = event_tools.read_events()[:2000]
    coordinates = event_tools.fit_coordinates(events)
    model = event_tools.event_model(config.ensemble, coordinates)
    data = Batch(jnp.asarray(event_tools.to_coordinates(coordinates, events)))
    metrics = {}
    for num in config.members:
        ways = ("sequential", "scan", "vmap")
        programs, seconds = ensemble_programs(model, data, num, config.member_batch, ways)
        times = measure(programs, config.repeats)
        for way in ways:
            metrics |= medians(f"{way}", f"{num}", times[way])
            metrics[f"compile_s/{way}/{num}"] = seconds[way]
            if way != "sequential":
                metrics |= ratios(f"members_{way}", f"{num}", times[way], times["sequential"])
    return metrics


def compute(config: Config, run: Run) -> dict[str, float]:
    """Measure.

    NETWORK_ms/forward/EVENTS, NETWORK_ms/gradient/EVENTS   CPU milliseconds; _wall_ by the clock
    torch_ms/NETWORK/...       the packages', and ratio/NETWORK/...: jgen's over theirs
    WAY_ms/MEMBERS             a training step of so many members, WAY is sequential, scan or vmap,
                               and members_WAY_ratio/MEMBERS over sequential
    compile_s/...              seconds to trace and compile
    """
    metrics = {}
    for name in NETWORKS:
        metrics |= run.cached(f"measured/{name}", measure_network, config, name)
    return metrics | run.cached("measured/ensembles", partial(measure_ensembles, config))


def report(config: Config, run: Run, metrics: dict[str, Any]) -> str:
    """Draw all ratios of times."""
    kinds = {
        "ratio": "jgen / PyTorch",
        "members_scan_ratio": "Members in a scan / one by one",
        "members_vmap_ratio": "Members in a vmap / one by one",
    }
    run.save("ratios", ratio_figure(metrics, kinds))
    return table(["median"], {name: [value] for name, value in metrics.items()}, digits=4)


DEFAULT = Config()
SMOKE = variant(
    DEFAULT,
    transformer=LLoCaConfig(2, 2, 1, 1, 2, "identity"),
    lloca=LLoCaConfig(2, 2, 1, 1, 2, frames=(8, 8)),
    lgatr=LGATrConfig(2, 4, 2, 1),
    ensemble=LLoCaConfig(2, 2, 1, 1, 2, "identity"),
    batch_size=4,
    members=(2,),
    member_batch=4,
    repeats=2,
)
STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build)

if __name__ == "__main__":
    main(STUDY)
