"""Averaging amplification of Gaussian rings by Bayesian networks (2509.08048, Figs. 4-5).

    python -m experiments rings.averaging

trains autoregressive transformers with Gaussian mixtures on 2-D and 4-D rings, 1000 events each, in
3.2 minutes of processor time on 2 cores (smoke: half a minute). Draws of their Bayesian weights
generate events, and the spread of the fractions in 20 radial regions of equal probability says what
those are worth: G = n_equiv / n_train for region 2, regions 2-19 together (Eq. 19) and the tail,
region 20. The truth is known, so the spread is checked against the errors that are made. Ten
independent training sets, trained in one program, give the spread of G that the paper has not.

The true G is of a member, from its deviation from the truth (Eq. 11). A member scatters around a
centre that is itself off, by as much if the posterior is calibrated: its true sigma is then sqrt(2)
times the estimated one and its true G half of the estimate. Pulls of the members' mean, calibrated
at one, say it without that factor. Controls go the same way: bootstrap members of the
maximum-likelihood fit of the radius, whose G is known, and of the memoriser, which repeats its
training events.

Numbers, and what was chosen: results/amplification.md.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from experiments.amplification.rings.rings import (
    COMBINATIONS,
    CONTROLS,
    REGIONS,
    SMALL,
    Generators,
    RingStudy,
    build,
    control,
    networks,
    radius,
    region_edges,
    training_log,
)
from experiments.study import Run, Study, main, table
from jgen import amplification, plotting, toys
from jgen.amplification import Averaging
from jgen.estimate import Estimate, mean_estimate
from jgen.generative_model import draw_chunks
from jgen.metrics import Pulls

PAPER = {
    (2, "2"): "2.6", (2, "2-19"): "7", (2, "20"): "<1",
    (4, "2"): "1.9", (4, "2-19"): "2.8", (4, "20"): "0",
}  # fmt: skip
"""Estimates of G as printed; the text has one true value, 1.3 for the last combination."""
KINDS = ("network", *CONTROLS)


@dataclass(frozen=True)
class Config(RingStudy):
    """Averaging amplification of ring generators."""

    max_gen: int = 50_000
    sizes_per_decade: int = 3


DEFAULT = Config()
SMOKE = Config(SMALL, max_gen=20_000)


class Spread(NamedTuple):
    """Median over training sets, and the ends."""

    value: float
    min: float
    max: float


class Worth(NamedTuple):
    """Estimates and truth of a kind of generator in some regions.

    Attributes:
      estimates: of each training set, from the spread of its members.
      truth: deviations of all members of all training sets from the truth (Eq. 11); members of a
        training set have errors in common, so its interval is too narrow.
      estimated: mean sigma_model^2 over training sets.
      true: the same of deviations from the truth.
      centre: the same of the members' mean, without what its finite number of members adds.
      pulls: of the members' mean, of all training sets and regions.
    """

    estimates: list[Averaging]
    truth: Averaging
    estimated: Estimate
    true: Estimate
    centre: Estimate
    pulls: Pulls


def compute(config: Config, run: Run) -> dict[str, Any]:
    """Train, generate and estimate; infinite numbers are left out.

    For each KIND of generator (network and the controls), dimension and REGIONS:

    ideal/REGIONS                    G of a maximum-likelihood fit of the radius
    G/KIND/DIM/REGIONS               median estimate over training sets, with _min and _max
    G_true/...                       of a member, from deviations from the truth (Eq. 11)
    G_mean/...                       the same of the members' mean
    sigma_ratio/...                  true over estimated sigma_model, with _error
    pull_width/...                   root mean square pull of the members' mean, with _expected
    loss/DIM                         validation loss of the networks in nats, mean over sets; of
                                     Bayesian ones with the KL divergence
    """
    rings, edges = config.rings, region_edges(2)  # R has one distribution in all dimensions
    metrics = {}
    for name, regions in COMBINATIONS.items():
        metrics[f"ideal/{name}"] = toys.ideal_amplification(
            edges[:-1][regions], edges[1:][regions], 1.0, 0.1, num_train=rings.num_train
        )
    for dim in rings.dims:
        made = {"network": networks(rings, dim, run, config.model)}
        made |= {name: control(rings, dim, name) for name in CONTROLS}
        for kind, generators in made.items():
            for i in range(rings.data_sets):
                run.cached(_stage(kind, dim, i), region_counts, config, generators, i)
        rows = training_log(rings, dim, run, config.model)
        losses = [row["validation_loss"] for row in rows if "validation_loss" in row]
        metrics[f"loss/{dim}d"] = float(np.mean(np.min(losses, axis=0)))
    for (kind, dim, name), one in judge(config, run).items():
        metrics |= _metrics(f"{kind}/{dim}d/{name}", one, rings.num_train)
    return {k: v for k, v in metrics.items() if np.all(np.isfinite(np.asarray(v, float)))}


def _stage(kind: str, dim: int, data_set: int) -> str:
    return f"fractions/{kind.replace(' ', '-')}-{dim}d-{data_set}"


def region_counts(config: Config, generators: Generators, data_set: int) -> dict[str, np.ndarray]:
    """Fractions [members, sizes, regions] of events in radial regions, and the sizes.

    One member after another generates a data set of its own (Eq. 14).
    """
    sizes = amplification.prefix_sizes(config.max_gen, per_decade=config.sizes_per_decade)
    fractions = []
    for i, params in enumerate(generators.params[data_set]):
        chunks = draw_chunks(
            generators.model.sample,
            params,
            generators.key_of(data_set, i),
            config.max_gen,
            batch_size=config.batch_size,
        )
        edges = region_edges(generators.dim)
        fractions.append(amplification.region_fractions(map(radius, chunks), edges, sizes))
    return {"fractions": np.array(fractions), "sizes": sizes}


def judge(config: Config, run: Run) -> dict[tuple[str, int, str], Worth]:
    """Estimates and truth by kind, dimension and regions."""
    judged, rings = {}, config.rings
    for dim in rings.dims:
        for kind in KINDS:
            stages = [run.stage(_stage(kind, dim, i)) for i in range(rings.data_sets)]
            fractions = np.array([stage["fractions"] for stage in stages])
            for name, regions in COMBINATIONS.items():
                one = fractions[..., regions]
                judged[kind, dim, name] = worth(one, stages[0]["sizes"], rings.num_train)
    return judged


def worth(
    fractions: Float[np.ndarray, "data_sets members sizes regions"],
    sizes: np.ndarray,
    num_train: int,
) -> Worth:
    """What members are worth by their spread, and by their deviations from the truth."""
    num_members, num_regions = fractions.shape[1], fractions.shape[3]
    truth = np.full(num_regions, 1 / REGIONS)
    true_worth = lambda one: amplification.true_amplification(truth, one, sizes, num_train)
    estimates = [amplification.averaging_amplification(one, sizes, num_train) for one in fractions]
    spread = np.array([one.variance[-1] for one in estimates])
    last = fractions[:, :, -1]
    # The mean scatters by the spread over the number of members around what very many would give.
    centre = np.sum((last.mean(axis=1) - truth) ** 2, axis=-1) - spread / num_members
    pulls = [amplification.calibration(truth, one).mean for one in last]
    return Worth(
        estimates,
        true_worth(np.concatenate(fractions)),
        mean_estimate(np.array([one.model_variance[-1] for one in estimates])),
        mean_estimate(np.array([true_worth(one).model_variance[-1] for one in fractions])),
        mean_estimate(centre),
        Pulls(*(np.stack(parts) for parts in zip(*pulls, strict=True))),
    )


def _metrics(key: str, one: Worth, num_train: int) -> dict[str, Any]:
    values = [estimate.amplification.value[-1] for estimate in one.estimates]
    metrics = {f"G/{key}": Spread(np.median(values), np.min(values), np.max(values))}
    num_regions = one.truth.integrals.shape[-1]
    binomial = num_regions * (1 - 1 / REGIONS) / REGIONS
    for label, variance in (("G_true", one.true.value), ("G_mean", one.centre.value)):
        metrics[f"{label}/{key}"] = binomial / variance / num_train if variance > 0 else np.inf
    (a, a_error), (b, b_error) = one.true, one.estimated
    if min(a, b) > 0:
        ratio = (a / b) ** 0.5
        error = 0.5 * ratio * np.hypot(a_error / a, b_error / b)
        metrics[f"sigma_ratio/{key}"] = Estimate(ratio, error)
    metrics[f"pull_width/{key}"] = one.pulls.width
    metrics[f"pull_width/{key}_expected"] = one.pulls.expected_width
    return metrics


def report(config: Config, run: Run, metrics: dict[str, Any]) -> str:
    """Variances, pulls and training curves; paper, ideal and ours as text."""
    rings, judged = config.rings, judge(config, run)
    for name in COMBINATIONS:
        regions = f"region {name}" if name.isdigit() else f"regions {name}"
        by_dim = {f"{dim}-D ring, {regions}": judged["network", dim, name] for dim in rings.dims}
        figure = plotting.variance_curves(
            {label: one.estimates[0] for label, one in by_dim.items()},
            truth={label: one.truth for label, one in by_dim.items()},
            num_train=rings.num_train,
        )
        run.save(f"region-{name}", figure)
    for kind in KINDS:
        pulls = {f"{dim}-D": judged[kind, dim, "2-19"].pulls for dim in rings.dims}
        figure = plotting.pull_distribution(pulls, quantities="regions and sets")
        run.save(f"pulls-{kind.replace(' ', '-')}", figure)
    logs = {f"{dim} dimensions": training_log(rings, dim, run, config.model) for dim in rings.dims}
    run.save("training", plotting.training_curves(logs))
    columns = ("paper", "ideal", "ours", "(sets)", "true", "of mean", "sigma ratio", "pulls")
    keys = {f"{k} {d}-D {n}": (k, d, n) for k in KINDS for d in rings.dims for n in COMBINATIONS}
    return table(columns, {label: _row(metrics, *key) for label, key in keys.items()})


def _row(metrics: dict[str, Any], kind: str, dim: int, name: str) -> list[Any]:
    """Numbers that are not there are infinite or negative."""
    key = f"{kind}/{dim}d/{name}"
    spread = metrics.get(f"G/{key}")
    return [
        PAPER.get((dim, name), "") if kind == "network" else "",
        # The memoriser is worth its training events, n / (n - 1) by bootstrap.
        1.0 if kind == "memoriser" else metrics.get(f"ideal/{name}"),
        spread and spread.value,
        spread and f"[{spread.min:.2f}, {spread.max:.2f}]",
        metrics.get(f"G_true/{key}"),
        metrics.get(f"G_mean/{key}"),
        metrics.get(f"sigma_ratio/{key}"),
        metrics.get(f"pull_width/{key}"),
    ]


STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, build=build)

if __name__ == "__main__":
    main(STUDY)
