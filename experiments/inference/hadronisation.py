"""A density of string breaks: (pT, z) of a hadron given its mass, and chains of it.

    python -m experiments hadronisation

A conditional flow learns the first break of a string from events, for pions and kaons, whose
entropies are known; then it breaks whole strings inside of an event loop that conserves momentum.
Numbers: results/inference.md.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from experiments.study import Run, Study, at_least, main, table, variant
from jgen import (
    Batch,
    GenerativeModel,
    OptimizerConfig,
    TrainConfig,
    bijectors,
    draw,
    log_densities,
    models,
    plotting,
    toys,
)
from jgen.estimate import Judged, mean_estimate
from jgen.plotting import Panel
from jgen.toys.string_break import SIGMA

HADRONS = {"pion": toys.PION, "kaon": toys.KAON}


@dataclass(frozen=True)
class Config:
    """A flow of string breaks."""

    num_train: int = 200_000
    """Training breaks, one half of each hadron."""
    num_test: int = 100_000
    """Test breaks, and drawn breaks, of each hadron."""
    num_strings: int = 20_000
    """Strings that are broken."""
    energy: float = 50.0
    """Of the strings [GeV]."""
    slices: int = 5
    """Of equal probability in pT, in which the mean of z is compared."""
    depth: int = 6
    """Couplings."""
    hidden: tuple[int, ...] = (32, 32)
    """Widths of their networks."""
    training: TrainConfig = TrainConfig(
        3000, 512, ema_decay=0.99, optimizer=OptimizerConfig(3e-3, clip_norm=1.0)
    )
    """Training of the flow."""
    seed: int = 0
    """Base of all key streams."""


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, num_train=100, num_test=100, num_strings=10, slices=1, energy=5.0)


def build(config: Config) -> dict[str, GenerativeModel]:
    """The flow of (px, py, logit z) given the mass."""
    spline = bijectors.rational_quadratic(8, 5.0)
    flow = bijectors.coupling_flow(3, spline, config.depth, 1, hidden=config.hidden)
    return {"flow": models.flow(flow, 3)}


def breaks(params, key, mass):
    """One break (px, py, z) of the exact density."""
    del params
    return toys.string_break(mass[0]).sample(key)


def flow_breaks(model: GenerativeModel):
    """`breaks` of a trained flow."""

    def sample(params, key, mass):
        u = model.sample(params, key, mass)
        return jnp.append(SIGMA * u[:2], jax.nn.sigmoid(u[2]))

    return sample


def scaled(x: np.ndarray) -> np.ndarray:
    """Breaks as the flow sees them."""
    return np.column_stack([x[:, :2] / SIGMA, np.log(x[:, 2]) - np.log1p(-x[:, 2])])


def masses(num: int, mass: float) -> np.ndarray:
    """Conditions of as many hadrons."""
    return np.full((num, 1), mass, np.float32)


def exact_breaks(config: Config, run: Run, name: str) -> np.ndarray:
    """Test breaks of a hadron."""
    cond = masses(config.num_test, HADRONS[name])
    args = breaks, None, run.key(f"test {name}"), config.num_test, cond
    return run.cached(f"{name}/test", draw, *args, batch_size=10_000)


def chains(config: Config, run: Run, sample, params) -> dict:
    """Hadrons of each string, their energies, and the largest change of momentum [GeV]."""

    def one(params, key, cond):
        own = lambda key, mass: sample(params, key, mass[None])
        return toys.fragment(own, key, config.energy, most=40)

    made = draw(one, params, run.key("chains"), config.num_strings, batch_size=1000)
    total = made.momenta.astype(np.float64).sum(axis=1) + made.rest
    energies = (made.momenta[..., 0] + made.momenta[..., 3])[made.there] / 2
    error = np.abs(total - [config.energy, 0, 0, config.energy]).max()
    return {"n": made.there.sum(axis=1), "energy": energies, "error": error}


def mean_ratios(config: Config, made: np.ndarray, mass: float) -> list:
    """Means of z in slices of pT over the exact ones."""
    pt, ratios = np.hypot(made[:, 0], made[:, 1]), []
    for rows in np.array_split(np.argsort(pt), config.slices):
        some = rows[:: max(1, len(rows) // 400)]
        expected = toys.mean_z(pt[some], mass).mean()
        ratios.append(mean_estimate(made[rows, 2] / expected))
    return ratios


def compute(config: Config, run: Run) -> dict:
    """Train, and compare with what is exact.

    nll/HADRON            of test breaks under the flow beside the exact entropy [nats]
    mean_z/HADRON/SLICE   ratio of the mean of z in a slice of pT to the exact one at those pT
    chain/n               mean number of hadrons of a string beside the exact density's
    chain/momentum        largest change of a component of the total momentum [GeV]
    """
    model = build(config)["flow"]
    half = config.num_train // 2
    cond = np.concatenate([masses(half, m) for m in HADRONS.values()])
    args = breaks, None, run.key("train"), 2 * half, cond
    train = run.cached("train", draw, *args, batch_size=10_000)
    params = run.fit("flow", model, Batch(scaled(train), cond), config.training).one
    metrics = {}
    for name, mass in HADRONS.items():
        cond = masses(config.num_test, mass)
        test = exact_breaks(config, run, name)
        args = model, params, run.key(name), scaled(test), cond
        log_q = run.cached(f"{name}/log_q", log_densities, *args, batch_size=10_000)
        jacobian = -2 * np.log(SIGMA) - np.log(test[:, 2]) - np.log1p(-test[:, 2])
        exact = toys.break_moments(mass).entropy
        metrics[f"nll/{name}"] = Judged(mean_estimate(-log_q - jacobian), exact)
        args = flow_breaks(model), params, run.key(f"drawn {name}"), config.num_test, cond
        made = run.cached(f"{name}/breaks", draw, *args, batch_size=10_000)
        for i, ratio in enumerate(mean_ratios(config, made, mass)):
            metrics[f"mean_z/{name}/{i + 1}"] = ratio
    found = [
        run.cached("chains/flow", chains, config, run, flow_breaks(model), params),
        run.cached("chains/exact", chains, config, run, breaks, None),
    ]
    metrics["chain/n"] = Judged(*(mean_estimate(made["n"]) for made in found))
    metrics["chain/momentum"] = float(max(made["error"] for made in found))
    return metrics


def report(config: Config, run: Run, metrics: dict) -> str:
    """Draw breaks and strings; tabulate likelihoods, means and numbers of hadrons."""
    panels, rows = [], {}
    for name in HADRONS:
        exact, made = exact_breaks(config, run, name), run.stage(f"{name}/breaks")
        pt = lambda x: np.hypot(x[:, 0], x[:, 1])
        z = Panel(np.linspace(0, 1, 41), exact[:, 2], {"flow": made[:, 2]}, f"{name}: $z$")
        panels.append(z)
        edges = np.linspace(0, 1.4, 36)
        panels.append(Panel(edges, pt(exact), {"flow": pt(made)}, f"{name}: $p_T$ [GeV]"))
        nll = metrics[f"nll/{name}"]
        rows[f"{name}: NLL, entropy [nats]"] = [nll.value, nll.truth]
        for i in range(1, config.slices + 1):
            rows[f"{name}: mean z / exact, pT slice {i}"] = [metrics[f"mean_z/{name}/{i}"], 1.0]
    flow, exact = (run.stage(f"chains/{name}") for name in ("flow", "exact"))
    n, energy = ((exact[k], {"flow": flow[k]}) for k in ("n", "energy"))
    panels.append(Panel(np.arange(0.5, 30), *n, "hadrons of a string"))
    edges = np.geomspace(0.2, config.energy / 2, 31)
    panels.append(Panel(edges, *energy, "energy of a hadron [GeV]", log_x=True))
    run.save("hadronisation", plotting.histogram_grid(panels, num_columns=2))
    rows["hadrons of a string"] = [metrics["chain/n"].value, metrics["chain/n"].truth]
    rows["largest change of momentum [GeV]"] = [metrics["chain/momentum"], 0.0]
    return table(("flow", "exact"), rows, digits=4)


DEFAULT = Config()
SMOKE = variant(
    DEFAULT,
    num_train=400,
    num_test=400,
    num_strings=20,
    depth=2,
    hidden=(8,),
    training={"steps": 10, "batch_size": 64},
)
STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build)

if __name__ == "__main__":
    main(STUDY)
