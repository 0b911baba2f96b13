"""Amplification of a fitted Gaussian, where everything is known (2509.08048, Sec. 3.2, Fig. 2).

    python -m experiments.gaussian_fit

takes 10 seconds of processor time, the preset smoke 9. A unit Gaussian's mean is fitted to 1000
events; the fit generates events, and their fraction in [0, 0.5] is worth more than that of the
training events: G = I (1 - I) / (n_train sigma_model^2) is 70.45 by linear error propagation and
69.91 with the curvature of the integral. The paper rounds it to 70 and measures it with 50
experiments, which leaves 20 % of statistical error.

Three ways to find G, all with intervals, and what the default preset should give:

    pseudo-experiments  The fit is repeated for many independent data sets, and deviations are from
                        the true integral. This needs the truth. G = 70.3, interval 69.8 to 70.8.
    bootstrap ensemble  Members are fits to resampled copies of ONE data set, as a user has it. The
                        mean over 400 data sets gives G = 70.6 +- 1.1. Intervals that claim 68 %
                        hold the G that very many members of the same data set would give for 66 %
                        of data sets. The exact G, an average over data sets, they hold for 50 %,
                        because the spread itself differs from data set to data set by a quarter.
    plain ensemble      Members are fits to the same data. They coincide, whatever their error is:
                        sigma_model^2 scatters around zero, half of the time below, and the lower
                        limit on G grows with n_gen beyond all bounds (40,000 at 10^7 events). It is
                        a claim about the optimisation, and never holds the exact G.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from experiments._command_line import run
from jgen.amplification import Averaging, averaging_amplification, true_amplification
from jgen.amplification.averaging import ONE_SIGMA
from jgen.files import atomic_path
from jgen.plotting import save, variance_curves
from jgen.random import member_keys, stream
from jgen.toys import (
    FitError,
    bootstrap_weights,
    fit_error,
    gaussian,
    ideal_amplification,
    normal_fit,
    normal_probability,
)
from jgen.training import RunFolder

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
PRESETS = {"default": DEFAULT, "smoke": SMOKE}


def main(config: Config, out: Path, *, plot_only: bool = False) -> dict[str, float]:
    """Fit, generate, estimate and plot; returns the metrics, which metrics.json holds too.

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
    _check(config)
    if plot_only and not (out / "fits.npz").exists():
        raise ValueError(f"{out} holds no fits to plot; run without --plot-only first")
    folder = RunFolder(out, config)
    if jax.process_index() != 0:
        return {}
    fits = _fits(config, folder)
    experiments, few, ensembles = _estimates(config, fits)
    metrics = _metrics(config, fits, experiments, few, ensembles)
    figure = variance_curves(
        {
            f"{config.num_experiments} data sets": experiments,
            "Bootstrap ensemble": ensembles["bootstrap"][0],
            "Plain ensemble": ensembles["plain"][0],
        },
        model_variance=float(_exact(config).mean_square[0]),
        num_train=config.num_train,
    )
    save(figure, folder.figure("variances"))
    folder.write_metrics(metrics)
    print(_table(config, metrics))
    return metrics


def count_parameters(config: Config) -> dict[str, int]:
    """The mean is all that is fitted."""
    return {"mean": 1}


def _check(config: Config) -> None:
    """Refuse bad options before the folder is made."""
    if not config.low < config.high:
        raise ValueError(f"low must be below high, got {config.low} and {config.high}")
    for name, least in (
        ("num_train", 2),
        ("num_experiments", PAPER_EXPERIMENTS),
        ("num_data_sets", 2),
        ("members", 2),
        ("max_gen", 1000),
        ("sizes_per_decade", 1),
    ):
        if getattr(config, name) < least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(config, name)}")


def _fits(config: Config, folder: RunFolder) -> dict[str, np.ndarray]:
    """Fitted means of pseudo-experiments, and of bootstrap members of the first data sets.

    `experiments` [num_experiments], `bootstrap` [num_data_sets, members], and `width`
    [num_data_sets], the standard deviation of each data set, which is what a bootstrap sees.
    """
    path = folder.path / "fits.npz"
    if not path.exists():
        key = jax.random.key(config.seed)
        toy, fit, width = gaussian(), normal_fit(1.0).fit, normal_fit().fit
        events = lambda k: jax.vmap(toy.sample)(jax.random.split(k, config.num_train))

        def members(k, k_members):
            data = events(k)
            one = lambda m: fit(data, bootstrap_weights(m, config.num_train))["mean"]
            keys = member_keys(k_members, config.members)
            return jax.vmap(one)(keys), width(data, None)["width"]

        keys = member_keys(stream(key, "data"), config.num_experiments)
        bootstrap_keys = member_keys(stream(key, "bootstrap"), config.num_data_sets)
        batched = jax.jit(lambda k: jax.lax.map(lambda q: fit(events(q), None), k, batch_size=200))
        found = {"experiments": batched(keys)["mean"]}
        pairs = keys[: config.num_data_sets], bootstrap_keys
        by_data_set = jax.jit(lambda p: jax.lax.map(lambda q: members(*q), p, batch_size=4))
        found["bootstrap"], found["width"] = by_data_set(pairs)
        with atomic_path(path) as partial:
            np.savez(partial, **{k: np.asarray(v, np.float64) for k, v in found.items()})
    with np.load(path) as file:
        return dict(file)


def _estimates(
    config: Config, fits: dict[str, np.ndarray]
) -> tuple[Averaging, Averaging, dict[str, list[Averaging]]]:
    """Of all pseudo-experiments, of as many as in the paper, and of each data set's ensembles."""
    rng = np.random.default_rng(config.seed)
    truth = [normal_probability(config.low, config.high)]
    fractions, sizes = _generate(config, fits["experiments"], rng)
    # Without noise, sigma_model is known better: the last size is infinity.
    exact = _integrals(config, fits["experiments"])[:, None, None]
    fractions = np.concatenate([fractions, exact], axis=1)
    sizes = np.append(sizes, np.inf)
    every = true_amplification(fractions, sizes, truth, config.num_train)
    few = true_amplification(fractions[:PAPER_EXPERIMENTS], sizes, truth, config.num_train)
    plain = fits["experiments"][: config.num_data_sets, None]
    means = {
        "bootstrap": fits["bootstrap"],
        # A closed-form fit has neither start nor order of minibatches that could differ.
        "plain": np.repeat(plain, config.members, axis=1),
    }
    ensembles = {}
    for name, all_means in means.items():
        ensembles[name] = [
            averaging_amplification(*_generate(config, one, rng), config.num_train)
            for one in all_means
        ]
    return every, few, ensembles


def _integrals(config: Config, means: np.ndarray) -> np.ndarray:
    """Integrals of fitted Gaussians over the region (Eq. 25), in float64."""
    return normal_probability(config.low, config.high, means)


def _generate(
    config: Config, means: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Fractions [members, sizes, 1] of generated events in the region, and the sizes.

    Counts of independent events are binomial, and so are those that come on top from one prefix of
    the sample to the next: drawing these is the same as drawing up to 10^7 events each.
    """
    decades = np.log10(config.max_gen / 100)
    num = round(decades * config.sizes_per_decade) + 1
    sizes = np.round(np.geomspace(100, config.max_gen, num)).astype(np.int64)
    added = np.diff(sizes, prepend=0)
    counts = rng.binomial(added, _integrals(config, means)[:, None]).cumsum(axis=1)
    return (counts / sizes)[..., None], sizes


def _exact(config: Config, num_train: float | None = None, mean: float = 0.0) -> FitError:
    num_train = num_train or config.num_train
    return fit_error(config.low, config.high, num_train, mean, fits_width=False)


def _metrics(
    config: Config,
    fits: dict[str, np.ndarray],
    experiments: Averaging,
    few: Averaging,
    ensembles: dict[str, list[Averaging]],
) -> dict[str, float]:
    region = {"low": config.low, "high": config.high, "fits_width": False}
    exact = ideal_amplification(**region, num_train=config.num_train)
    metrics = {
        "integral": float(normal_probability(config.low, config.high)),
        "G_linear": ideal_amplification(**region),
        "G_exact": exact,
    }
    for name, one in (("experiments", experiments), ("paper", few)):
        value, low, high = (float(a[-1]) for a in one.amplification)
        metrics |= {f"G/{name}": value, f"G/{name}_low": low, f"G/{name}_high": high}
    found = ensembles["bootstrap"]
    metrics |= _over_data_sets(config, fits, found)
    covered = lambda one, value: one.amplification.low[-1] <= value <= one.amplification.high[-1]
    truths = [
        # What members without number would find: means of resampled data scatter by the width of
        # these data over sqrt(n), around their mean.
        _value(config, _exact(config, config.num_train / width**2, mean).variance, mean)
        for mean, width in zip(fits["experiments"], fits["width"], strict=False)
    ]
    metrics |= {
        "coverage/bootstrap": np.mean([covered(*pair) for pair in zip(found, truths, strict=True)]),
        "coverage/bootstrap_expected": ONE_SIGMA,
        "coverage/bootstrap_error": (ONE_SIGMA * (1 - ONE_SIGMA) / len(found)) ** 0.5,
        "coverage/bootstrap_exact": np.mean([covered(one, exact) for one in found]),
        "coverage/plain_exact": np.mean([covered(one, exact) for one in ensembles["plain"]]),
        "negative/plain": np.mean([one.model_variance[-1] <= 0 for one in ensembles["plain"]]),
    }
    for name, results in ensembles.items():
        metrics[f"limit/{name}"] = np.median([one.amplification.low[-1] for one in results])
    return {name: float(value) for name, value in metrics.items()}


def _value(config: Config, variance: np.ndarray, mean: float) -> float:
    """G of a model variance, with the binomial variance of the fitted Gaussian."""
    integral = _integrals(config, mean)
    return float(integral * (1 - integral) / variance[0] / config.num_train)


def _over_data_sets(
    config: Config, fits: dict[str, np.ndarray], found: list[Averaging]
) -> dict[str, float]:
    """G of the bootstrap ensembles' mean variance, and how it scatters."""
    values = np.array([one.amplification.value[-1] for one in found])
    inverse = 1 / values  # linear in the variance, and zero where there is none to be seen
    mean, error = inverse.mean(), inverse.std(ddof=1) / len(inverse) ** 0.5
    low, middle, high = 1 / np.quantile(inverse, [0.8413, 0.5, 0.1587])
    return {
        "G/bootstrap": 1 / mean,
        "G/bootstrap_error": error / mean**2,
        "G/bootstrap_q16": low,
        "G/bootstrap_median": middle,
        "G/bootstrap_q84": high,
    }


def _table(config: Config, metrics: dict[str, float]) -> str:
    """Paper, exact value and ours as text; the paper's numbers are of Eqs. 29-30."""
    m, is_paper = metrics, (config.low, config.high, config.num_train) == (0.0, 0.5, 1000)
    binomial = m["integral"] * (1 - m["integral"])
    exact = f"{m['G_exact']:.2f}"
    interval = lambda n: f"{m[f'G/{n}']:.2f} [{m[f'G/{n}_low']:.1f}, {m[f'G/{n}_high']:.1f}]"
    percent = lambda name: f"{100 * m[name]:.0f} %"
    rows = [
        ("sigma_stat^2 n", "0.154", f"{binomial:.6f}", ""),
        ("sigma_model^2 n_train", "0.002", f"{binomial / m['G_exact']:.6f}",
         f"{binomial / m['G/experiments']:.6f}"),
        ("G, linear", "70", f"{m['G_linear']:.2f}", ""),
        (f"G, {config.num_experiments} data sets", "", exact, interval("experiments")),
        (f"G, {PAPER_EXPERIMENTS} data sets", "70", exact, interval("paper")),
        ("G, bootstrap, mean", "", exact,
         f"{m['G/bootstrap']:.2f} +- {m['G/bootstrap_error']:.2f}"),
        ("   single data sets", "", exact,
         f"{m['G/bootstrap_median']:.0f} [{m['G/bootstrap_q16']:.0f}, {m['G/bootstrap_q84']:.0f}]"),
        ("   68 % intervals hold their G", "", "68 %", percent("coverage/bootstrap")),
        ("   ... hold the exact G", "", "", percent("coverage/bootstrap_exact")),
        ("G, plain, lower limit", "", exact, f"> {m['limit/plain']:.0f}"),
        ("   ... holds the exact G", "", "68 %", percent("coverage/plain_exact")),
    ]  # fmt: skip
    lines = [("", "paper" if is_paper else "", "exact", "ours")]
    if not is_paper:
        rows = [(name, "", value, ours) for name, _, value, ours in rows]
    return "\n".join(f"{a:<32}{b:>8}{c:>12}  {d:<24}".rstrip() for a, b, c, d in lines + rows)


if __name__ == "__main__":
    run("gaussian_fit", __doc__, PRESETS, main, count_parameters)
