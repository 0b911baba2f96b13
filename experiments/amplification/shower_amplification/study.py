"""How many Geant4 showers a CaloDREAM's showers are worth: forecasts, and the truth beside them.

    python -m experiments shower_amplification

trains a bootstrap ensemble of CaloDREAM's parallel energy network (2405.09629; the networks of
2601.05289) on 1000 of the bundled Geant4 showers and lets every member generate, in 5 minutes of
processor time on 2 cores (smoke: half a minute). Total energy, depth and length of a shower follow
from its layer energies alone, so that no shape network is needed. What generated showers are worth,
in training showers, is

    averaging           forecast from the spread of the members in regions (2509.08048, Sec. 3);
                        the training showers suffice for it
    Geant4 regions      the same regions' errors against 2200 Geant4 showers that no network saw, as
                        GANplification has it (2008.06545), with pulls for the calibration
    KS                  forecast from distances to those showers (2509.08048, Sec. 4)
    KS, training set    the same as published, from the distance to the training showers, which the
                        networks were fitted to: it promises too much
    JSD                 Calomplification (2202.07352): divergence over bins of median splits of all
                        three observables at once, for 2 to 128 bins
    training showers    a control: put in the place of the generated ones they are worth 1

Averaging sees what members have not in common. With --members plain that is the optimisation only,
with --members bayesian the posterior of one network (draws of its weights).

The spectrum of incident energies is known to the generator: it is exact, where that of the training
showers fluctuates. This alone makes a generated shower worth more than one of the training where
the observable depends on the energy; the table says how much ("known spectrum").

Showers of your own: --calodream.data FILE with --calodream.energy-range, whose spectrum must be
log-uniform; a large --calodream.num-test makes everything that is compared with Geant4 sharper.

Numbers: results/amplification.md.
"""

from typing import Any

import numpy as np

from experiments.amplification.shower_amplification.training import (
    OBSERVABLES,
    Config,
    check_spectrum,
    energy_model,
    samples,
    trained_model,
)
from experiments.showers import presets
from experiments.study import Run, Study, finite, main, table, variant
from jgen import amplification, plotting
from jgen.amplification import Averaging, Interval
from jgen.metrics import pulls
from jgen.plotting import Panel
from jgen.showers import Showers, get_geometry, layer_energies, layer_observables

# Bins of the incident energy in which the rate of a region is taken for constant.
_ENERGY_BINS = 20

DEFAULT = Config()
SMOKE = variant(
    DEFAULT,
    calodream={
        "num_train": 300,
        "num_test": 400,
        "parallel_network": presets.SMOKE.parallel_network,
        "energy_training": variant(presets.SMOKE.energy_training, steps=60),
        "energy_solver": presets.SMOKE.energy_solver,
    },
    num_members=4,
    num_generated=600,
    num_regions=5,
    levels=4,
)

Observed = dict[str, np.ndarray]
Numbers = dict[str, float | Interval]


def build(config: Config) -> dict[str, Any]:
    """The energy network of a member; a Bayesian one has twice as many parameters."""
    trained_model(config, num_train=1)
    return {"energy": energy_model(config)}


def load(config: Config) -> tuple[Showers, Showers]:
    """Training and reference showers, of the spectrum that is generated."""
    showers, reference = presets.load_showers(config.calodream)
    for what, sample in (("training showers", showers), ("reference", reference)):
        check_spectrum(sample, config.calodream.energy_range, what)
    return showers, reference


def compute(config: Config, run: Run) -> dict[str, Any]:
    """Train, generate and judge.

    OBS is E_ratio, depth or length. Every G is in training showers, with _low and _high of its 68 %
    interval; infinite ones are left out, there is then a lower limit.

        G/averaging/OBS         of all regions together; /first and /last: of the outermost ones
        G/quantiles/OBS         errors of the members' mean in these regions, from Geant4
        G/ks/OBS                of all members' showers mixed, against Geant4 showers held out
        G/ks_member/OBS         of the mean distance of members
        G/ks_training/OBS       of the mixed showers against the training set, as published
        G/jsd/BINS              of the mixed showers, from the divergence over all observables
        G/quantiles_control/OBS, G/ks_control/OBS, G/jsd_control/BINS: of the training showers
        G/spectrum/OBS          of training showers whose incident energies do not fluctuate
        pull/OBS                width of the pulls of regions, with _expected if calibrated
        ks_probability/OBS      of at most this distance if the generator were perfect
        jsd/WHAT/BINS           divergence; of generated, member (with member_spread), training and
                                as expected for training and for perfect showers
        loss, train_seconds     at the end of the training, mean over members
    """
    numbers, _ = _estimates(config, *_observed(config, run))
    rows = run.history("training")
    losses = [np.mean(row["loss"]) for row in rows if "loss" in row]
    seconds = sum(row.get("seconds", 0.0) for row in rows)
    return finite(numbers) | {"loss": float(losses[-1]), "train_seconds": seconds}


def _observed(config: Config, run: Run) -> tuple[Observed, Observed, Observed]:
    """Observables of training, reference and generated showers."""
    showers, reference = load(config)
    num_layers = get_geometry(config.calodream.geometry).num_layers
    observe = lambda s: layer_observables(layer_energies(s, num_layers), s.energies)
    return observe(showers), observe(reference), samples(config, showers, run)


def _estimates(
    config: Config, known: Observed, true: Observed, made: Observed
) -> tuple[Numbers, dict[str, Averaging]]:
    """All numbers, and the forecast of every observable against generated showers."""
    numbers, curves = _divergences(config, known, true, made), {}
    for name in OBSERVABLES:
        averaging, curves[name] = _averaging(config, name, known, true, made)
        numbers |= averaging | _differential(name, known[name], true[name], made[name])
    return numbers, curves


def _averaging(
    config: Config, name: str, known: Observed, true: Observed, made: Observed
) -> tuple[Numbers, Averaging]:
    """Forecast from the members' spread in regions, and the errors that are made in them."""
    num_train, num_reference = len(known[name]), len(true[name])
    num_members, num = made[name].shape
    edges = amplification.sample_quantile_edges(true[name], config.num_regions)
    sizes = amplification.prefix_sizes(num, per_decade=4)
    fractions = np.stack([amplification.region_fractions(v, edges, sizes) for v in made[name]])
    regions = {"": slice(None), "/first": slice(0, 1), "/last": slice(-1, None)}
    results = {
        label: amplification.averaging_amplification(fractions[:, :, rows], sizes, num_train)
        for label, rows in regions.items()
    }
    numbers = {
        f"G/averaging/{name}{label}": one.amplification.last for label, one in results.items()
    }

    last = fractions[:, -1]
    truth, training = shares(true[name], edges), shares(known[name], edges)
    # The noise of the reference is in the edges of the regions, which makes no difference.
    noise = 1 / num_reference
    worth = lambda p, own: amplification.mse_equivalent_events(
        amplification.quantile_mse(p), len(p), 1 / (noise + own)
    )
    mixed = worth(last.mean(axis=0), 1 / (num_members * num))
    numbers[f"G/quantiles/{name}"] = mixed.over(num_train)
    numbers[f"G/quantiles_control/{name}"] = worth(training, 0.0).over(num_train)
    # Members' spread has the noise of their own showers inside, the reference brings the rest.
    errors = np.sqrt(truth * (1 - truth) * (noise - 1 / num))
    of_regions = pulls(truth, last, errors)
    numbers[f"pull/{name}"] = of_regions.width
    numbers[f"pull/{name}_expected"] = of_regions.expected_width
    numbers[f"G/spectrum/{name}"] = _known_spectrum(made[name], made["incident"], edges)
    return numbers, results[""]


def shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Fractions of all values in regions."""
    return amplification.region_fractions(values, edges, [len(values)])[0]


def _known_spectrum(values: np.ndarray, incident: np.ndarray, edges: np.ndarray) -> float:
    """Worth of one shower whose incident energy does not fluctuate.

    Its number in a region has the variance <p (1 - p)> with the rate p at an incident energy, that
    of a shower of random energy <p> (1 - <p>). Rates are those of the generated showers.
    """
    order = np.argsort(incident.ravel())
    blocks = np.array_split(values.ravel()[order], _ENERGY_BINS)
    p = np.stack([shares(block, edges) for block in blocks])
    mean = p.mean(axis=0)
    return float(np.sum(mean * (1 - mean)) / np.sum((p * (1 - p)).mean(axis=0)))


def _differential(name: str, known: np.ndarray, true: np.ndarray, made: np.ndarray) -> Numbers:
    """Forecasts from distances, and the same for the training showers."""
    worth, num_train, sizes = amplification.equivalent_events, len(known), np.array(made.shape[1:])
    mixed, every = made.T.ravel(), np.array([made.size])  # all members in every prefix
    held_out = amplification.differential_amplification(mixed, true, num_train, every)
    published = amplification.differential_on_training_set(mixed, known, every)
    mean = np.mean([amplification.ks_distances(true, v, sizes)[0] for v in made])
    control = amplification.ks_distances(true, known, np.array([num_train]))[0]
    return {
        f"G/ks/{name}": held_out.amplification,
        f"ks_probability/{name}": held_out.probability,
        f"G/ks_training/{name}": published.amplification,
        f"G/ks_member/{name}": worth(mean, len(true), made.shape[1]).over(num_train),
        f"G/ks_control/{name}": worth(control, len(true)).over(num_train),
    }


def _divergences(config: Config, known: Observed, true: Observed, made: Observed) -> Numbers:
    """Jensen-Shannon divergences over bins of iterated median splits of all observables."""
    column = lambda a: np.stack([a[name] for name in OBSERVABLES], axis=-1)
    known, true, made = column(known), column(true), column(made)
    splits = amplification.median_splits(true, config.levels)
    bins = {
        "truth": amplification.split_bins(splits, true),
        "training": amplification.split_bins(splits, known),
        "members": np.stack([amplification.split_bins(splits, one) for one in made]),
    }
    num_train, num_reference, total = len(known), len(true), made.shape[0] * made.shape[1]
    numbers = {}
    for level in range(1, config.levels + 1):
        # Bins of fewer splits are the leading bits of those of all.
        num, shift = 2**level, config.levels - level
        share = lambda b: np.bincount(b.ravel() >> shift, minlength=num) / b.size  # noqa: B023
        truth = share(bins["truth"])
        each = [amplification.jensen_shannon(share(b), truth) for b in bins["members"]]
        values = {
            "generated": amplification.jensen_shannon(share(bins["members"]), truth),
            "member": np.mean(each),
            "member_spread": np.std(each, ddof=1),
            "training": amplification.jensen_shannon(share(bins["training"]), truth),
            "expected_training": amplification.sample_jensen_shannon(num, num_train, num_reference),
            "expected_perfect": amplification.sample_jensen_shannon(num, total, num_reference),
        }
        numbers |= {f"jsd/{what}/{num}": float(value) for what, value in values.items()}
        for name, what, size in (("jsd", "generated", total), ("jsd_control", "training", np.inf)):
            worth = amplification.jsd_equivalent_events(values[what], num, size, num_reference)
            numbers[f"G/{name}/{num}"] = worth.over(num_train)
    return numbers


def report(config: Config, run: Run, metrics: dict[str, Any]) -> str:
    """Observables, variances, distances and divergences; G of all estimates as text."""
    known, true, made = _observed(config, run)
    numbers, curves = _estimates(config, known, true, made)
    panels = []
    for name, label in OBSERVABLES.items():
        edges = np.linspace(*np.quantile(true[name], [0.005, 0.995]), 31)
        members = {str(i): values for i, values in enumerate(made[name])}
        panels.append(Panel(edges, true[name], members, label, reference_label="Geant4"))
    run.save("observables", plotting.member_grid(panels, config.members.capitalize()))
    num_train = len(known["depth"])
    labelled = {OBSERVABLES[name]: one for name, one in curves.items()}
    run.save("averaging", plotting.variance_curves(labelled, num_train=num_train))
    sizes = amplification.prefix_sizes(made["depth"].shape[1])
    for what, reference, label in (
        ("held_out", true, "Geant4 showers held out"),
        ("training_set", known, "training showers"),
    ):
        distances = {
            OBSERVABLES[name]: np.stack(
                [amplification.ks_distances(reference[name], v, sizes) for v in made[name]]
            )
            for name in OBSERVABLES
        }
        num = len(reference["depth"])
        figure = plotting.ks_curves(distances, sizes, num, num_train, reference_label=label)
        run.save(f"ks_{what}", figure)
    bins = 2 ** np.arange(1, config.levels + 1)
    kinds = ("generated", "member", "member_spread", "training")
    values = {kind: np.array([numbers[f"jsd/{kind}/{num}"] for num in bins]) for kind in kinds}
    options = {"num_train": num_train, "num_reference": len(true["depth"])}
    options["truth"] = "Geant4 showers"
    run.save("calomplification", plotting.divergence_curves(bins, *values.values(), **options))
    run.save("training", plotting.training_curves({"energy network": run.history("training")}))
    return _tables(config, numbers)


def _tables(config: Config, numbers: dict[str, Any]) -> str:
    """G of all estimates, one column an observable, and of all observables by bins."""
    rows = (
        ("averaging, all regions", "G/averaging/{}"),
        ("   first region", "G/averaging/{}/first"),
        ("   last region", "G/averaging/{}/last"),
        ("Geant4 regions", "G/quantiles/{}"),
        ("   training showers", "G/quantiles_control/{}"),
        ("KS, held out", "G/ks/{}"),
        ("   single members", "G/ks_member/{}"),
        ("   training showers", "G/ks_control/{}"),
        ("KS, training set", "G/ks_training/{}"),
        ("known spectrum", "G/spectrum/{}"),
        ("pulls, width", "pull/{}"),
        ("   calibrated", "pull/{}_expected"),
    )
    cells = {label: [numbers[key.format(n)] for n in OBSERVABLES] for label, key in rows}
    bins = [2**level for level in range(1, config.levels + 1)][-3:]
    by_bins = {
        label: [numbers[f"{key}/{num}"] for num in bins]
        for label, key in (("JSD", "G/jsd"), ("   training showers", "G/jsd_control"))
    }
    heads = [str(num) for num in bins]
    return (
        table(tuple(OBSERVABLES), cells, title=f"G, {config.members}")
        + "\n\n"
        + table(heads, by_bins, title="bins of all observables")
    )


STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, build=build, inputs=load)

if __name__ == "__main__":
    main(STUDY)
