"""Amplification of a fitted Gaussian, where everything is known (2509.08048, Sec. 3.2, Fig. 2).

    python -m experiments gaussian_fit

takes 10 seconds of processor time, the preset smoke 9. A unit Gaussian's mean is fitted to 1000
events; the fit generates events, and their fraction in [0, 0.5] is worth more than that of the
training events: G = I (1 - I) / (n_train sigma_model^2) is 70 by linear error propagation. Three
ways to find G, all with intervals:

    pseudo-experiments  The fit is repeated for many independent data sets, and deviations are from
                        the true integral. This needs the truth.
    bootstrap ensemble  Members are fits to resampled copies of ONE data set, as a user has it.
    plain ensemble      Members are fits to the same data. They coincide, whatever their error is:
                        sigma_model^2 scatters around zero, half of the time below, and the lower
                        limit on G grows with n_gen beyond all bounds. It is a claim about the
                        optimisation, and never holds the exact G.

Numbers: results/amplification.md.
"""

from dataclasses import dataclass

import jax
import numpy as np

from experiments.study import Run, Study, at_least, main, table
from jgen import Estimate, amplification, plotting, toys
from jgen.amplification import Averaging, Interval
from jgen.amplification.averaging import ONE_SIGMA
from jgen.random import member_keys

PAPER_EXPERIMENTS = 50


@dataclass(frozen=True)
class Config:
    """Pseudo-experiments of a fitted Gaussian."""

    low: float = 0.0
    """Lower edge of the region, in units of the true width."""
    high: float = 0.5
    """Upper edge."""
    num_train: int = 1000
    """Events of a data set."""
    num_experiments: int = 40_000
    """Independent data sets for the true sigma_model; the relative error of G is sqrt(2 / this)."""
    num_data_sets: int = 400
    """Data sets of which each has its own ensembles."""
    members: int = 50
    """Members of an ensemble."""
    max_gen: int = 10_000_000
    """Most events that a member generates."""
    sizes_per_decade: int = 3
    """Points of the scan over n_gen, from 100 events on."""
    seed: int = 0
    """Seed of everything random."""


DEFAULT = Config()
SMOKE = Config(num_experiments=2000, num_data_sets=40, members=20, max_gen=1_000_000)


def check(config: Config) -> None:
    """Refuse bad options."""
    if not config.low < config.high:
        raise ValueError(f"low must be below high, got {config.low} and {config.high}")
    at_least(config, num_train=2, num_experiments=PAPER_EXPERIMENTS, num_data_sets=2)
    at_least(config, members=2, max_gen=1000, sizes_per_decade=1)


def compute(config: Config, run: Run) -> dict:
    """The metrics of all three.

    integral                     I of the region
    G_linear, G_exact            known values, without and with curvature
    G/experiments                of all pseudo-experiments, with _low and _high
    G/paper                      of the first 50 alone
    G/bootstrap                  of the mean sigma_model^2 over data sets, with _error; also
                                 quantiles over data sets: _q16, _median, _q84
    coverage/bootstrap           of the value of each data set, with _expected and _error
    coverage/bootstrap_exact     of the exact G; plain_exact: the same of plain ensembles
    negative/plain               share of plain ensembles with negative sigma_model^2
    limit/plain                  median lower limit on G of plain ensembles; limit/bootstrap
    """
    fits = run.cached("fits", lambda: fit_all(config, run))
    results = estimates(config, fits)
    region = {"low": config.low, "high": config.high, "fits_width": False}
    exact = toys.ideal_amplification(**region, num_train=config.num_train)
    metrics = {
        "integral": float(toys.normal_probability(config.low, config.high)),
        "G_linear": toys.ideal_amplification(**region),
        "G_exact": exact,
        "G/experiments": results["experiments"].amplification.last,
        "G/paper": results["paper"].amplification.last,
    }
    ensembles = {name: results[name] for name in ("bootstrap", "plain")}
    last = {name: [one.amplification.last for one in of] for name, of in ensembles.items()}
    holds = lambda one, value: one.low <= value <= one.high
    # What members without number would find: means of resampled data scatter by the width of these
    # data over sqrt(n), around their mean.
    own = [
        own_amplification(config, *pair)
        for pair in zip(fits["experiments"], fits["width"], strict=False)
    ]
    pairs = zip(last["bootstrap"], own, strict=True)
    error = (ONE_SIGMA * (1 - ONE_SIGMA) / config.num_data_sets) ** 0.5
    metrics |= over_data_sets(last["bootstrap"])
    metrics |= {
        "coverage/bootstrap": Estimate(np.mean([holds(*pair) for pair in pairs]), error),
        "coverage/bootstrap_expected": ONE_SIGMA,
        "negative/plain": np.mean([one.model_variance[-1] <= 0 for one in ensembles["plain"]]),
    }
    for name, members in last.items():
        metrics[f"coverage/{name}_exact"] = np.mean([holds(one, exact) for one in members])
        metrics[f"limit/{name}"] = np.median([one.low for one in members])
    return metrics


def report(config: Config, run: Run, metrics: dict) -> str:
    """Draw the variances; paper, exact value and ours as text, the paper's of Eqs. 29-30."""
    results = estimates(config, run.stage("fits"))
    exact = toys.fit_error(config.low, config.high, config.num_train, fits_width=False)
    figure = plotting.variance_curves(
        {
            f"{config.num_experiments} data sets": results["experiments"],
            "Bootstrap ensemble": results["bootstrap"][0],
            "Plain ensemble": results["plain"][0],
        },
        model_variance=float(exact.mean_square[0]),
        num_train=config.num_train,
    )
    run.save("variances", figure)
    m, known = metrics, f"{metrics['G_exact']:.2f}"
    binomial = m["integral"] * (1 - m["integral"])
    interval = lambda name: "{:.2f} [{:.1f}, {:.1f}]".format(*m[name])
    percent = lambda share: f"{100 * share:.0f} %"
    spread = [m[f"G/bootstrap_{name}"] for name in ("median", "q16", "q84")]
    rows = {
        "sigma_stat^2 n": ["0.154", f"{binomial:.6f}", None],
        "sigma_model^2 n_train": ["0.002", *(
            f"{binomial / g:.6f}" for g in (m["G_exact"], m["G/experiments"].value)
        )],
        "G, linear": ["70", f"{m['G_linear']:.2f}", None],
        f"G, {config.num_experiments} data sets": [None, known, interval("G/experiments")],
        f"G, {PAPER_EXPERIMENTS} data sets": ["70", known, interval("G/paper")],
        "G, bootstrap, mean": [None, known, m["G/bootstrap"]],
        "   single data sets": [None, known, "{:.0f} [{:.0f}, {:.0f}]".format(*spread)],
        "   68 % intervals hold their G": [None, "68 %", percent(m["coverage/bootstrap"].value)],
        "   ... hold the exact G": [None, None, percent(m["coverage/bootstrap_exact"])],
        "G, plain, lower limit": [None, known, f"> {m['limit/plain']:.0f}"],
        "   ... holds the exact G": [None, "68 %", percent(m["coverage/plain_exact"])],
    }  # fmt: skip
    if (config.low, config.high, config.num_train) == (0.0, 0.5, 1000):
        return table(["paper", "exact", "ours"], rows)
    return table(["exact", "ours"], {label: row[1:] for label, row in rows.items()})


def fit_all(config: Config, run: Run) -> dict[str, np.ndarray]:
    """Fitted means of pseudo-experiments, and of bootstrap members of the first data sets.

    `experiments` [num_experiments], `bootstrap` [num_data_sets, members], and `width`
    [num_data_sets], the standard deviation of each data set, which is what a bootstrap sees.
    """
    toy, fit, width = toys.gaussian(), toys.normal_fit(1.0).fit, toys.normal_fit().fit
    events = lambda key: jax.vmap(toy.sample)(jax.random.split(key, config.num_train))

    def members(key, member_key):
        data = events(key)
        one = lambda k: fit(data, toys.bootstrap_weights(k, config.num_train))["mean"]
        keys = member_keys(member_key, config.members)
        return jax.vmap(one)(keys), width(data, None)["width"]

    keys = member_keys(run.key("data"), config.num_experiments)
    pairs = keys[: config.num_data_sets], member_keys(run.key("bootstrap"), config.num_data_sets)
    batched = jax.jit(lambda k: jax.lax.map(lambda q: fit(events(q), None), k, batch_size=200))
    by_data_set = jax.jit(lambda p: jax.lax.map(lambda q: members(*q), p, batch_size=4))
    means = batched(keys)["mean"]
    bootstrap, widths = by_data_set(pairs)
    results = {"experiments": means, "bootstrap": bootstrap, "width": widths}
    return {name: np.asarray(a, np.float64) for name, a in results.items()}


def estimates(
    config: Config, fits: dict[str, np.ndarray]
) -> dict[str, Averaging | list[Averaging]]:
    """Of all pseudo-experiments, of as many as in the paper, and of each data set's ensembles."""
    rng = np.random.default_rng(config.seed)
    truth = [toys.normal_probability(config.low, config.high)]
    fractions, sizes = generate(config, fits["experiments"], rng)
    # Without noise, sigma_model is known better: the last size is infinity.
    exact = integrals(config, fits["experiments"])[:, None, None]
    fractions, sizes = np.concatenate([fractions, exact], axis=1), np.append(sizes, np.inf)
    # A closed-form fit has neither start nor order of minibatches in which members could differ.
    plain = np.repeat(fits["experiments"][: config.num_data_sets, None], config.members, axis=1)
    ensemble = lambda means: amplification.averaging_amplification(
        *generate(config, means, rng), config.num_train
    )
    true = lambda some: amplification.true_amplification(truth, some, sizes, config.num_train)
    return {
        "experiments": true(fractions),
        "paper": true(fractions[:PAPER_EXPERIMENTS]),
        "bootstrap": [ensemble(means) for means in fits["bootstrap"]],
        "plain": [ensemble(means) for means in plain],
    }


def integrals(config: Config, means: np.ndarray) -> np.ndarray:
    """Integrals of fitted Gaussians over the region (Eq. 25), in float64."""
    return toys.normal_probability(config.low, config.high, means)


def generate(
    config: Config, means: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Fractions [members, sizes, 1] of generated events in the region, and the sizes.

    Counts of independent events are binomial, and so are those that come on top from one prefix of
    the sample to the next: drawing these is the same as drawing up to 10^7 events each.
    """
    sizes = amplification.prefix_sizes(config.max_gen, per_decade=config.sizes_per_decade)
    added = np.diff(sizes, prepend=0)
    counts = rng.binomial(added, integrals(config, means)[:, None]).cumsum(axis=1)
    return (counts / sizes)[..., None], sizes


def own_amplification(config: Config, mean: float, width: float) -> float:
    """G of a data set of this mean and width, from bootstrap members without number."""
    num = config.num_train / width**2
    variance = toys.fit_error(config.low, config.high, num, mean, fits_width=False).variance[0]
    integral = integrals(config, mean)
    return float(integral * (1 - integral) / variance / config.num_train)


def over_data_sets(members: list[Interval]) -> dict[str, Estimate | float]:
    """G of the bootstrap ensembles' mean variance, and how it scatters."""
    # 1 / G is linear in the variance, and zero where there is none to be seen.
    inverse = np.array([1 / one.value for one in members])
    mean, error = inverse.mean(), inverse.std(ddof=1) / len(inverse) ** 0.5
    low, middle, high = 1 / np.quantile(inverse, [0.8413, 0.5, 0.1587])
    return {
        "G/bootstrap": Estimate(1 / mean, error / mean**2),
        "G/bootstrap_q16": low,
        "G/bootstrap_median": middle,
        "G/bootstrap_q84": high,
    }


STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check)

if __name__ == "__main__":
    main(STUDY)
