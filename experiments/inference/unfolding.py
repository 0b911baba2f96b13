"""Unfolding: OmniFold, conditional generation and bridges, on Gaussians and on jets.

    python -m experiments unfolding

A Gaussian behind a smearing, of which the answer of every iteration is known; the errors of a
bootstrap ensemble in repeated experiments; and six observables of jets after a detector, from a
simulation with another mixture of classes than the data, beside a truth that is other jets.

The bundled jets are gluons and tops; `--data FILE --classes gluon "light quark"` reads others in
the layout of `jgen.jets.read_jets`. Numbers: results/inference.md.
"""

import functools
from dataclasses import dataclass, replace

import jax
import numpy as np
from scipy.stats import norm

from experiments.inference import mixtures
from experiments.study import Run, Study, at_least, main, table, variant
from jgen import GenerativeModel, OptimizerConfig, TrainConfig, models, nets, plotting
from jgen import jets as jet_tools
from jgen.estimate import Estimate, mean_estimate
from jgen.inference import Simulation, Unfolded, UnfoldingConfig, iterated_generation, omnifold
from jgen.metrics import RatioConfig, coverage, separation, separation_floor
from jgen.plotting import Curve, Panel
from jgen.random import numpy_generator
from jgen.solvers import runge_kutta
from jgen.toys import Normal, unfolded_gaussian

PRIOR, TRUTH, RESOLUTION = Normal(0.2, 0.8), Normal(0.0, 1.0), 0.5
"""Of the simulation, of the data and of the smearing, as in OmniFold's example."""
METHODS = ("OmniFold", "flow matching", "bridge")
_LABELS = (
    "jet mass [GeV]",
    "constituents above 1.5 % of $p_T$",
    "jet width",
    r"$\ln\rho$",
    r"$\tau_{21}$",
    "$z_g$",
)
ONE_SIGMA = 0.6827


@dataclass(frozen=True)
class Config:
    """Unfolding of Gaussians and jets."""

    data: str = ""
    """A file of jets in the layout of `jgen.jets.read_jets`; the bundled ones unless given."""
    classes: tuple[str, str] = ("gluon", "top")
    """Two classes: half and half in the simulation, 30 and 70 % in the data and the truth."""
    num_points: int = 30
    """Leading constituents."""
    num: int = 100_000
    """Simulated and measured Gaussian events."""
    seeds: int = 2
    """Trainings of each method that are averaged, on the same Gaussian events."""
    iterations: int = 5
    """Of the Gaussian."""
    experiments: int = 12
    """Repeated Gaussian experiments with a bootstrap ensemble each, by OmniFold."""
    experiment_events: int = 5000
    """Simulated and measured events of each."""
    experiment_members: int = 10
    """Members of each ensemble."""
    jet_iterations: int = 3
    """Of the jets, and of the repeated experiments."""
    jet_members: int = 20
    """Members of the bootstrap ensemble of jets, by OmniFold; of other methods one is trained."""
    bins: int = 12
    """Of each observable, with as many true jets each, and of the repeated experiments."""
    ratio: RatioConfig = RatioConfig((64, 64), 2000, 1000, 5e-3)
    """Classifiers of the Gaussian."""
    small_ratio: RatioConfig = RatioConfig((32, 32), 300, 500, 5e-3)
    """Classifiers of jets and repeated experiments."""
    training: TrainConfig = TrainConfig(1500, 1024, optimizer=OptimizerConfig(5e-3))
    """Each round of flow matching and bridges."""
    seed: int = 0
    """Base of all key streams."""


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, num_points=2, num=100, seeds=1, iterations=1, experiments=2)
    at_least(config, experiment_events=100, experiment_members=2, jet_iterations=1)
    at_least(config, jet_members=2, bins=2)
    if len(set(config.classes)) < 2:
        raise ValueError(f"classes must be two different ones, got {config.classes}")


def inputs(config: Config) -> jet_tools.Constituents:
    """The jets."""
    return mixtures.load(config.data, config.classes, config.num_points)


def build(config: Config) -> dict[str, GenerativeModel]:
    """The generative models, of one and of six features."""
    made = {}
    for num, name in ((1, "Gaussian"), (len(jet_tools.OBSERVABLES), "jets")):
        network = functools.partial(nets.velocity_mlp, num, time_features=0)
        solver = runge_kutta("midpoint", 8)
        conditional = network(num, hidden=(64, 64))
        made[f"{name}/flow matching"] = models.flow_matching(conditional, num, solver=solver)
        # The Markov one, which is exact for this smearing; of features any width is right.
        own = (network(hidden=(64, 64)), RESOLUTION) if num == 1 else (conditional, 0.5)
        made[f"{name}/bridge"] = models.bridge(own[0], num, own[1], steps=20)
    return made


def unfold(config: Config, run: Run, name: str, method: str, simulation, measured) -> Unfolded:
    """One method on the Gaussian or the jets."""
    key, jets = run.key(f"{name} {method}"), name == "jets"
    settings = UnfoldingConfig(config.iterations, config.seeds, ratio=config.ratio)
    if jets:
        settings = UnfoldingConfig(config.jet_iterations, ratio=config.small_ratio)
    if method == "OmniFold":
        if jets:
            settings = replace(settings, members=config.jet_members, bootstrap=True)
        return omnifold(simulation, measured, key, settings)
    model = build(config)[f"{name}/{method}"]
    args = (simulation, measured, key, model, config.training, settings)
    return iterated_generation(*args, batch_size=10_000, progress=False)


def gaussian_events(rng: np.random.Generator, num: int) -> tuple[Simulation, np.ndarray]:
    """Simulated pairs and measured events."""
    gen, true = (rng.normal(*of, (num, 1)) for of in (PRIOR, TRUTH))
    reco, measured = (x + rng.normal(0, RESOLUTION, x.shape) for x in (gen, true))
    return Simulation(gen, reco), measured


def gaussian_moments(config: Config, run: Run, method: str) -> dict:
    """Means and widths [seeds, iterations] of what is unfolded."""
    simulation, measured = gaussian_events(numpy_generator(run.key("Gaussian")), config.num)
    found = unfold(config, run, "Gaussian", method, simulation, measured)
    both = np.zeros((2, config.seeds, config.iterations))
    for seed, i in np.ndindex(both.shape[1:]):
        x, weights = found.sample(i, seed)
        mean = np.average(x[:, 0], weights=weights)
        both[:, seed, i] = mean, np.average((x[:, 0] - mean) ** 2, weights=weights) ** 0.5
    return {"mean": both[0], "width": both[1]}


def gaussian_coverage(config: Config, run: Run, number: int) -> np.ndarray:
    """Of the exact law of the last iteration by the ensemble of one experiment."""
    settings = UnfoldingConfig(
        config.jet_iterations, config.experiment_members, True, config.small_ratio
    )
    exact = unfolded_gaussian(PRIOR, TRUTH, RESOLUTION, settings.iterations)[-1]
    edges = norm.ppf(np.linspace(0, 1, config.bins + 1), *exact)
    key = jax.random.fold_in(run.key("experiments"), number)
    events = gaussian_events(numpy_generator(key), config.experiment_events)
    members = omnifold(*events, key, settings).fractions(0, edges)
    truth = np.full(config.bins, 1 / config.bins)
    return coverage(truth, members, np.array([ONE_SIGMA])).observed[0]


def jets_unfolded(config: Config, run: Run, method: str) -> Unfolded:
    """What a method makes of the jets, in the units of the observables."""
    samples = run.stage("jets")
    centre, scale = samples["simulation"].mean(axis=0), samples["simulation"].std(axis=0)
    noise = numpy_generator(run.key("whole numbers"))
    scaled = {}
    for name in ("simulation", "simulation reco", "data reco"):
        x = samples[name].copy()
        x[:, 1] += noise.uniform(-0.5, 0.5, len(x))  # constituents have a density
        scaled[name] = (x - centre) / scale
    simulation = Simulation(scaled["simulation"], scaled["simulation reco"])
    found = unfold(config, run, "jets", method, simulation, scaled["data reco"])
    return found._replace(events=(found.events * scale + centre).astype(np.float32))


def compute(config: Config, run: Run) -> dict:
    """Unfold and compare.

    gaussian/METHOD/mean|width/K   after K iterations, with the spread of the seeds' mean
    coverage/gaussian              fraction of bins of repeated experiments within one standard
                                   deviation of the exact law of the iteration
    coverage/jets                  the same of all bins of the six observables and the true jets
    power/NAME/OBSERVABLE          triangular discriminator to the truth of the simulation
                                   ("prior"), of the data before the detector ("data", which is
                                   truth against truth) and of what is unfolded
    floor                          expected value of the discriminator of two true samples
    """
    metrics = {}
    for method in METHODS:
        found = run.cached(f"gaussian/{method}", gaussian_moments, config, run, method)
        for name, values in found.items():
            for i, seeds in enumerate(values.T):
                value = mean_estimate(seeds) if len(seeds) > 1 else float(seeds[0])
                metrics[f"gaussian/{method}/{name}/{i + 1}"] = value
    covered = [
        run.cached(f"experiments/{i}", gaussian_coverage, config, run, i)
        for i in range(config.experiments)
    ]
    metrics["coverage/gaussian"] = mean_estimate(np.array(covered, np.float64))
    samples = run.cached("jets", mixtures.samples, inputs(config), run)
    unfolded = {m: run.cached(f"jets/{m}", jets_unfolded, config, run, m) for m in METHODS}
    members, truths, errors = [], [], []
    for column, name in enumerate(jet_tools.OBSERVABLES):
        edges = mixtures.binning(config.bins, samples, column)
        contents = mixtures.contents(edges, samples, unfolded, column)
        truth = contents.pop("truth")
        for which, sample in contents.items():
            power = separation(truth, sample, key=run.key("replicas"))
            metrics[f"power/{which}/{name}"] = power.estimate
        members.append(unfolded["OmniFold"].fractions(column, mixtures.opened(edges)))
        truths.append(truth.fractions)
        errors.append(truth.fraction_errors)
    args = (np.concatenate(truths), np.concatenate(members, axis=1), np.array([ONE_SIGMA]))
    metrics["coverage/jets"] = float(
        coverage(*args, truth_error=np.concatenate(errors)).observed[0]
    )
    sizes = (len(samples[name]) for name in ("truth", "data"))
    metrics["floor"] = separation_floor(config.bins, *sizes)
    return metrics


def report(config: Config, run: Run, metrics: dict) -> str:
    """Draw iterations against the law, and the jets; tabulate both."""
    exact = unfolded_gaussian(PRIOR, TRUTH, RESOLUTION, config.iterations)[1:]
    steps = range(1, config.iterations + 1)
    curves = {}
    for k, title in enumerate(("mean", "width")):
        law = {"exact law": Curve.of(steps, [e[k] for e in exact])}
        for method in METHODS:
            values = [metrics[f"gaussian/{method}/{title}/{i}"] for i in steps]
            law[method] = Curve.of(steps, values)
        curves[title] = law
    figure = plotting.quality_curves(curves, "of the unfolded Gaussian", xlabel="Iterations")
    run.save("iterations", figure)
    samples = run.stage("jets")
    unfolded = {method: run.stage(f"jets/{method}") for method in METHODS}
    panels = []
    for column, label in enumerate(_LABELS):
        edges = mixtures.binning(24, samples, column, even=True)
        made = mixtures.contents(edges, samples, unfolded, column)
        spread = unfolded["OmniFold"].fractions(column, mixtures.opened(edges)).std(axis=0, ddof=1)
        total = made["OmniFold"].total
        made["OmniFold"] = made["OmniFold"]._replace(variances=(spread * total) ** 2)
        truth = made.pop("truth")
        made.pop("data")
        panels.append(Panel(edges, truth, made, label))
    run.save("jets", plotting.histogram_grid(panels))
    rows = {
        f"{name} {i}": [exact[i - 1][k]] + [metrics[f"gaussian/{m}/{name}/{i}"] for m in METHODS]
        for k, name in enumerate(("mean", "width"))
        for i in steps
    }
    gaussian = table(("exact", *METHODS), rows, title="Gaussian, iteration", digits=4)
    names = ("prior", "data", *METHODS)
    scaled = lambda e: Estimate(*np.multiply(e, 1e3))
    rows = {
        name: [scaled(metrics[f"power/{n}/{name}"]) for n in names]
        for name in jet_tools.OBSERVABLES
    }
    jets = table(names, rows, title="triangular discriminator [1e-3]")
    rows = {name: [metrics[f"coverage/{name}"], ONE_SIGMA] for name in ("gaussian", "jets")}
    covered = table(("found", "claimed"), rows, title="bins within one standard deviation")
    return "\n\n".join([gaussian, jets, f"floor {1e3 * metrics['floor']:.2f}", covered])


_BRIEF = RatioConfig((8,), 10, 100)
DEFAULT = Config()
SMOKE = variant(
    DEFAULT,
    num_points=20,
    num=300,
    iterations=2,
    experiments=2,
    experiment_events=200,
    experiment_members=2,
    jet_iterations=1,
    jet_members=2,
    bins=4,
    ratio=_BRIEF,
    small_ratio=_BRIEF,
    training={"steps": 10, "batch_size": 64},
)
STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build, inputs)

if __name__ == "__main__":
    main(STUDY)
