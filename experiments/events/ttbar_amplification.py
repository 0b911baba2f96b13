"""What generated top pairs are worth: ensembles of ten, plain and bootstrap (2509.08048, Sec. 5).

    python -m experiments ttbar_amplification

trains ten members of each network on 4000 events, all on the same ones or each on its own resampled
ones, and forecasts what their events are worth: by the spread of the members in two regions of
m_tt, and by the distance of all of m_tt to events that were held out. Held-out events say whether
the members' mean is right: where all members share a bias, their spread knows nothing of it. The
control is events whose worth is known: resampled training events are worth as much as these, G = 1.

With 36,000 events held out, no amplification above nine can be seen. Networks are told what is
known of top pairs, see `jgen.events.known`; `--no-informed` leaves that out, as published. The
transformer takes 18 minutes of processor time, LLoCa 30, L-GATr longer. Numbers: results/events.md.
"""

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np

from experiments.events.generators import NETWORKS, SMALL, Generators, build, inputs, sample
from experiments.study import Run, Study, at_least, finite, known, main, table, variant
from jgen import OptimizerConfig, TrainConfig, amplification, plotting
from jgen import events as event_tools
from jgen.amplification import Forecast
from jgen.plotting import Panel
from jgen.random import numpy_generator
from jgen.solvers import SolverConfig

KINDS = ("plain", "bootstrap")
CONTROL, CONTROL_MEMBERS = "training events", 200


@dataclass(frozen=True)
class Config(Generators):
    """Ensembles and regions."""

    num_train: int = 4000
    """Events to train on, the first ones; all others but those to validate on are held out."""
    num_validation: int = 1000
    """Events that the log has a validation loss of; nothing is chosen by it."""
    training: TrainConfig = TrainConfig(
        2000, 128, ensemble=10, ema_decay=0.99,
        optimizer=OptimizerConfig(5e-3, warmup=0.05, clip_norm=5.0, method="muon"),
    )  # fmt: skip
    """Training of each ensemble; `members` is set by the kind."""
    solver: SolverConfig = SolverConfig("kutta38", 8)
    """Of sampling: eight midpoint steps make the tail of m_tt 3 % too light."""
    num_generated: int = 6000
    """Events of each member."""
    kinds: tuple[Literal["plain", "bootstrap"], ...] = KINDS
    """plain: members see the same events. bootstrap: each sees its own resampled ones."""
    regions: tuple[tuple[float, float], ...] = ((700.0, 800.0), (1000.0, 1200.0))
    """Of m_tt [GeV]."""


def check(config: Config) -> None:
    """Refuse bad options."""
    known(config, kinds=KINDS)
    if config.training.ensemble < 2 or config.training.members != "plain":
        raise ValueError("an ensemble has two members or more; --kinds says how they are trained")
    if any(not low < high for low, high in config.regions) or not config.regions:
        raise ValueError(f"regions are pairs low < high, got {config.regions}")
    at_least(config, num_generated=200)


def pair_masses(events: np.ndarray) -> np.ndarray:
    """m_tt [GeV] of events [..., n, 4]."""
    flat = events.reshape(-1, *events.shape[-2:]).astype(np.float64)
    return event_tools.event_observables(flat)["m_tt"].reshape(events.shape[:-2])


def members(config: Config, run: Run, name: str, kind: str) -> dict:
    """m_tt of the events of all members [members, num], and the share that was left out."""
    own = dataclasses.replace(
        config, training=dataclasses.replace(config.training, members=kind)
    )  # fmt: skip
    made = sample(own, run, name, f"{name}-{kind}")
    return {"m_tt": pair_masses(made["events"]), "lost": made["lost"]}


def control(config: Config, run: Run) -> np.ndarray:
    """m_tt of "members" that return resampled training events, smeared by a thousandth.

    They cost nothing, so that there are many: of ten the spread is known to a third only.
    """
    known_events = pair_masses(inputs(config)[0])
    rng, shape = numpy_generator(run.key("control")), (CONTROL_MEMBERS, len(known_events))
    own = known_events[rng.integers(len(known_events), size=shape)]
    rows = rng.integers(shape[1], size=(shape[0], config.num_generated))
    values = np.take_along_axis(own, rows, axis=1)
    return values * (1 + 1e-3 * rng.standard_normal(values.shape))


def forecasts(config: Config, run: Run) -> dict[str, Forecast]:
    """By "NETWORK/KIND", and of the control."""
    train, _, *halves = inputs(config)
    held_out = pair_masses(np.concatenate(halves))
    samples = {}
    for name, kind in itertools.product(config.networks, config.kinds):
        made = run.cached(f"{name}-{kind}/m_tt", members, config, run, name, kind)
        samples[f"{name}/{kind}"] = made["m_tt"]
    samples[CONTROL] = run.cached("control", control, config, run)
    options = {"region": config.regions, "names": ("m_tt",)}
    known_events = pair_masses(train)
    return {
        label: amplification.forecast(
            known_events, held_out, values,
            kind=label.split("/")[-1] if "/" in label else "bootstrap", **options,
        )
        for label, values in samples.items()
    }  # fmt: skip


def compute(config: Config, run: Run) -> dict:
    """LABEL/METRIC of `jgen.amplification.Forecast.metrics`, LABEL is NETWORK/KIND or the control.

    truth/REGION      share of true events in a region, and resolvable/REGION, the amplification
                      above which the statistical error of held-out events hides it
    lost/NETWORK/KIND share of events that went to infinity and are left out
    """
    results = {}
    for label, one in forecasts(config, run).items():
        results |= {f"{label}/{name}": value for name, value in one.metrics().items()}
        if label != CONTROL:
            stage = run.stage(f"{label.replace('/', '-')}/m_tt")
            results[f"lost/{label}"] = float(stage["lost"])
    train, _, *halves = inputs(config)
    masses = pair_masses(np.concatenate(halves))
    for i, (low, high) in enumerate(config.regions, 1):
        results[f"truth/region_{i}"] = float(np.mean((masses >= low) & (masses < high)))
    results["resolvable"] = len(masses) / len(train)
    return finite(results)


def report(config: Config, run: Run, results: dict) -> str:
    """Draw members, variances and distances; one table a region, one of all m_tt."""
    train, _, *halves = inputs(config)
    masses = pair_masses(np.concatenate(halves))
    edges = np.linspace(*np.quantile(masses, [0.001, 0.99]), 41)
    found = forecasts(config, run)
    regions = [f"{low:g} to {high:g} GeV" for low, high in config.regions]
    rows, distances, panels = {region: {} for region in regions}, {}, []
    for label, one in found.items():
        title = _title(label)
        values = one.inputs.members
        each = {str(i): np.asarray(v).ravel() for i, v in enumerate(values[:10])}
        xlabel = rf"$m(t\bar{{t}})$ [GeV], {title}"
        panels.append(Panel(edges, masses, each, xlabel, reference_label="Pythia 8"))
        name = label.replace("/", "_").replace(" ", "_")
        for kind, figure in plotting.forecast_figures(one).items():
            run.save(f"{kind}_{name}", figure)
        for i, region in enumerate(regions, 1):
            part = one.averaging[f"region_{i}"]
            rows[region][title] = [
                f"{part.share:.4f}", f"{results[f'truth/region_{i}']:.4f}", str(part.amplification),
                f"{part.pull:+.1f}",
            ]  # fmt: skip
        whole = one.differential["m_tt"]
        distances[title] = [str(whole.amplification), f"{whole.distances[:, -1].mean():.4f}"]
    run.save("members", plotting.member_grid(panels, "Generated"))
    texts = [
        table(("share", "truth", "G", "pull"), cells, title=region)
        for region, cells in rows.items()
    ]
    texts.append(table(("G", "distance"), distances, title="all m_tt"))
    texts.append(f"resolvable: G below {results['resolvable']:.1f}")
    return "\n\n".join(texts)


def _title(label):
    name, *kind = label.split("/")
    return " ".join([NETWORKS.get(name, name), *kind])


DEFAULT = Config()
SMOKE = variant(
    DEFAULT,
    **SMALL,
    networks=("transformer",),
    num_train=400,
    training={"steps": 250, "batch_size": 32, "ensemble": 2, "optimizer": {"learning_rate": 1e-2}},
    num_generated=1000,
    regions=((300.0, 1500.0), (1500.0, 20_000.0)),
)
STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build, inputs)

if __name__ == "__main__":
    main(STUDY)
