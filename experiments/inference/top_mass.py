"""The top mass from the spectrum of jet masses, by a neural posterior, and how often it is right.

    python -m experiments top_mass

An experiment is a histogram of the masses of some hundred top jets. Its simulation draws bundled
Pythia jets with replacement and scales their constituents, hence masses, by the top mass over the
172.5 GeV that they were made with. The posterior of the mass given the histogram is learned from
simulations with one half of the jets. Experiments with the other half, at known masses, say how
often its intervals hold the truth; beside it stands a template fit of the same histograms.

A study of method: a scaled mass is no shifted parton shower, and there is neither background nor
any other parameter. Time: 1 minute (smoke: 15 s). Numbers: results/inference.md.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from experiments.study import Run, Study, at_least, main, table, variant
from jgen import Batch, GenerativeModel, OptimizerConfig, TrainConfig, draw, inference, plotting
from jgen import jets as jet_tools
from jgen.estimate import Estimate, mean_estimate
from jgen.metrics import coverage, pulls
from jgen.random import numpy_generator
from jgen.transforms import mixture

MASS = 172.5  # [GeV] of the simulation
RANGE = 165.0, 180.0  # [GeV] of the prior
EDGES = np.linspace(110.0, 230.0, 25)  # [GeV] of the spectrum, whose ends hold all that is beyond
LEVELS = np.array([0.5, 0.683, 0.9, 0.954])


@dataclass(frozen=True)
class Config:
    """Simulations, their size, and experiments."""

    num_jets: int = 500
    """Top jets of an experiment."""
    num_simulations: int = 10_000
    """Simulated experiments that the posterior is learned from."""
    num_experiments: int = 200
    """Experiments with jets of the other half."""
    num_draws: int = 999
    """Draws of each posterior."""
    training: TrainConfig = TrainConfig(
        3000, 256, ensemble=4, keep="best", validate_every=100, optimizer=OptimizerConfig(1e-3)
    )
    """Of the flow."""
    seed: int = 0
    """Base of all key streams."""


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, num_jets=20, num_simulations=100, num_experiments=10, num_draws=9)


def halves(config: Config) -> list[np.ndarray]:
    """Masses [GeV] of the bundled top jets, those to learn from and those of experiments."""
    jets = jet_tools.read_features(jet_tools.sample_path())
    masses = jets.features[jets.labels == jet_tools.LABELS.index("top"), 1]
    masses = numpy_generator(jax.random.key(config.seed)).permutation(masses)
    return np.array_split(masses, 2)


def simulate(masses: np.ndarray, key: jax.Array, theta: np.ndarray, num_jets: int) -> np.ndarray:
    """Fractions of jets in each bin [n, bins] of one experiment for each top mass [n, 1]."""
    pool, edges = jnp.asarray(masses), jnp.asarray(EDGES)

    def one(params, key, theta):
        chosen = pool[jax.random.randint(key, (num_jets,), 0, len(pool))] * theta[0] / MASS
        # Of masses outside the edges the nearest bin.
        bins = jnp.clip(jnp.searchsorted(edges, chosen) - 1, 0, len(edges) - 2)
        return jnp.zeros(len(edges) - 1).at[bins].add(1.0) / num_jets

    return draw(one, None, key, len(theta), theta, batch_size=1000)


def template_fit(masses: np.ndarray, spectra: np.ndarray, num_jets: int) -> np.ndarray:
    """Masses [n] of the largest multinomial likelihood, of templates of all jets to learn from."""
    grid = np.linspace(*RANGE, 301)
    scaled = masses.astype(np.float64)[None] * grid[:, None] / MASS
    templates = np.array(
        [np.histogram(np.clip(row, EDGES[0], EDGES[-1]), EDGES)[0] for row in scaled]
    )
    log_p = np.log((templates + 0.5) / (templates + 0.5).sum(axis=1, keepdims=True))
    return grid[np.argmax(num_jets * spectra @ log_p.T, axis=1)]


def model(config: Config, spectra: np.ndarray) -> GenerativeModel:
    """The posterior of one member."""
    prior = inference.uniform_prior(*np.array(RANGE)[:, None])
    return inference.posterior_flow(prior, spectra, depth=2)


def build(config: Config) -> dict[str, GenerativeModel]:
    """The posterior of one member."""
    return {"posterior": model(config, np.eye(len(EDGES), len(EDGES) - 1))}


def posteriors(config: Config, run: Run) -> dict:
    """Draws [experiments, draws] at true masses [experiments], and the template fit."""
    learn, hold = halves(config)
    prior = inference.uniform_prior(*np.array(RANGE)[:, None])
    of_prior = lambda params, key, cond: prior.sample(key)
    theta = draw(of_prior, None, run.key("theta"), config.num_simulations)
    spectra = simulate(learn, run.key("spectra"), theta, config.num_jets)
    cut = len(theta) // 20
    parts = [Batch(theta[rows], spectra[rows]) for rows in (np.s_[cut:], np.s_[:cut])]
    one = model(config, spectra)
    fitted = run.fit("posterior", one, parts[0], config.training, validation=parts[1])
    truth = draw(of_prior, None, run.key("true masses"), config.num_experiments)
    results = {"truth": truth[:, 0]}
    for name, masses in (("held out", hold), ("learned", learn)):
        seen = simulate(masses, run.key(f"experiments {name}"), truth, config.num_jets)
        cond = np.repeat(seen, config.num_draws, axis=0)
        mixed = mixture(one, config.training.ensemble)
        draws = draw(mixed, fitted.params, run.key(name), len(cond), cond, batch_size=10_000)
        results[name] = draws.reshape(len(seen), -1)
        results[f"{name} fit"] = template_fit(learn, seen, config.num_jets)
        results[f"{name} spectrum"] = seen[0]
    return results


def compute(config: Config, run: Run) -> dict:
    """Coverage and widths, with the jets held out and with those that were learned from.

    coverage/JETS/LEVEL   fraction of experiments whose central interval holds the true mass
    bias/JETS             mean of posterior mean minus truth [GeV]
    resolution/JETS       its standard deviation [GeV]; of JETS "fit" that of the template fit
    width/JETS            mean of the posterior's standard deviation [GeV]
    pull/JETS             width of the pulls
    """
    found = run.cached("posteriors", posteriors, config, run)
    metrics, truth = {}, found["truth"]
    for jets in ("held out", "learned"):
        draws = found[jets]
        covered = coverage(truth, draws.T, LEVELS, interval="quantile")
        for level, value, error in zip(LEVELS, covered.observed, covered.error, strict=True):
            metrics[f"coverage/{jets}/{level:g}"] = Estimate(float(value), float(error))
        for name, centre in ((jets, draws.mean(axis=1)), (f"{jets}, fit", found[f"{jets} fit"])):
            shift = centre - truth
            metrics[f"bias/{name}"] = mean_estimate(shift)
            width = shift.std(ddof=1)
            metrics[f"resolution/{name}"] = Estimate(width, width / (2 * len(shift)) ** 0.5)
        metrics[f"width/{jets}"] = mean_estimate(draws.std(axis=1, ddof=1))
        metrics[f"pull/{jets}"] = pulls(truth, draws.T).width
    return metrics


def report(config: Config, run: Run, metrics: dict) -> str:
    """Draw coverage and a spectrum with its posterior; tabulate."""
    found, levels = run.stage("posteriors"), np.linspace(0.05, 0.95, 19)
    curves = {
        jets: coverage(found["truth"], found[jets].T, levels, interval="quantile")
        for jets in ("held out", "learned")
    }
    run.save("coverage", plotting.coverage_curves(curves))
    rows = ("held out", "held out, fit", "learned", "learned, fit")
    columns = [f"{level:g}" for level in LEVELS]
    cells = {
        name: [metrics.get(f"{what}/{name}") for what in ("bias", "resolution", "width", "pull")]
        + [metrics.get(f"coverage/{name}/{column}") for column in columns]
        for name in rows
    }
    headings = ("bias", "resolution", "width", "pull", *(f"in {c}" for c in columns))
    return table(headings, cells, title="top mass [GeV], jets")


DEFAULT = Config()
SMOKE = variant(
    DEFAULT,
    num_jets=50,
    num_simulations=200,
    num_experiments=10,
    num_draws=19,
    training={"steps": 20, "batch_size": 16, "ensemble": 2, "validate_every": 10},
)
STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build)

if __name__ == "__main__":
    main(STUDY)
