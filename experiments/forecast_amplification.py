"""What generated events are worth: the amplification forecast for anybody's files (2509.08048).

    python -m experiments.forecast_amplification --train T.npy --generated G1.npy G2.npy ... \
        --held-out H.npy --region LOW HIGH --members bootstrap --out D

reads events as HDF5 or .npy, [events] or [events, columns], one file of generated events a member
of an ensemble, and says in plain language how many real events the generated ones are worth: in
D/verdict.txt, with metrics.json and figures. `--preset smoke` makes a toy example of known
amplification and needs no files. The same command goes on where an interrupted one stopped.

Averaging. With two or more members, shares of events in regions: how much members disagree, what a
real sample with this error would count, and when more generated events add nothing. Regions are
intervals of one column (--region LOW HIGH, as often as needed) or quantiles of the training events
(--quantiles 20). Say with --members what the members are. Members trained on the same events
disagree by their optimisation only, so their agreement is no amplification; train them on
resampled events (TrainConfig.members = "bootstrap" in jgen). Held-out events show a bias that all
members share.

Full resolution. Kolmogorov-Smirnov distances of each column, and of the likelihood ratio that a
cross-fitted classifier learns from all columns, to held-out events that neither the generator nor
its selection has seen. Without them the distance is to the training set, as published; those
numbers are named uncalibrated and are not to be quoted, because the generator was fitted to what it
is compared with.

Files larger than memory may have any number of columns; those looked at (--column 0 3) of one
member have to fit. Files must not be sorted. Two members of 10^7 events and four columns took 9 s
of processor time and 0.7 GB without classifiers (--classifier-members 0), the example takes 20 s.

Expected of the example, whose generator is a fit of the ring's mean and width to 1000 radii, an
average over training sets: G = 7.0 in the second of 20 quantiles, 10.4 in all of them, 20.7 without
the outer two, 1.9 in each of these. One training set scatters around that, and 20 members know
their spread to a third.
"""

import dataclasses
from pathlib import Path

import jax

from experiments._command_line import run
from experiments._forecast import Config, check_members, load_inputs, measure, regions
from experiments._forecast_example import (
    QUANTILES,
    REGION,
    exact_amplifications,
    example_files,
    write_example,
)
from experiments._forecast_report import figures, gather, metrics, table
from experiments._forecast_verdict import verdict
from jgen.files import atomic_path
from jgen.plotting import save
from jgen.training import RunFolder

DEFAULT = Config()
SMOKE = Config(
    example=True,
    names=("x", "y", "R"),
    region_column=2,
    region=(REGION,),
    quantiles=QUANTILES,
    members="bootstrap",
    classifier_members=1,
    classifier_events=10_000,
    folds=2,
    classifier=dataclasses.replace(DEFAULT.classifier, hidden=(16, 16), epochs=5, num_seeds=1),
)
PRESETS = {"default": DEFAULT, "smoke": SMOKE}


def main(config: Config, out: Path, *, plot_only: bool = False) -> dict[str, float]:
    """Measure all members and judge; returns the metrics, which metrics.json holds too.

    For each region SELECTION (region_1, ..., regions together; quantiles, quantiles_inner without
    the outer two, quantile_lowest, quantile_2, ..., quantile_highest), from the spread of members:

    G/SELECTION, n_equiv/SELECTION     with _low and _high; what is infinite is left out
    share/SELECTION                    of generated events, share_train of training events
    pull/SELECTION                     of the members' mean against held-out events

    and for each column and "classifier":

    G_ks/NAME, n_equiv_ks/NAME         from distances to held-out events, with _low and _high
    G_uncalibrated/NAME, ...           in their place, where there are none
    distance/NAME, distance_spread     mean over members and standard deviation
    probability/NAME                   of so small a distance if the generator were perfect
    """
    if plot_only and not (out / "config.json").exists():
        raise ValueError(f"{out} holds no run to plot; run without --plot-only first")
    files = _with_files(config, out)
    folder = None
    if config.example:
        folder = RunFolder(out, config)
        if jax.process_index() == 0:
            write_example(example_files(out / "example"), config.seed)
    if jax.process_index() != 0:
        return {}
    inputs = load_inputs(files)
    intervals = regions(files, inputs)
    # Made only now: files and regions that are refused leave no folder behind.
    folder = folder or RunFolder(out, config)
    if plot_only:
        check_members(inputs, folder)
    found = gather(files, inputs, intervals, measure(files, inputs, intervals, folder))
    numbers = metrics(files, inputs, found)
    folder.write_metrics(numbers)
    text = verdict(files, inputs, found)
    with atomic_path(folder.path / "verdict.txt") as partial:
        partial.write_text(text)
    for name, figure in figures(inputs, found).items():
        save(figure, folder.figure(name))
    exact = exact_amplifications() if config.example else {}
    print(table(inputs, found, exact), text, sep="\n\n")
    return numbers


def count_parameters(config: Config) -> dict[str, int]:
    """Nothing is trained to be kept."""
    del config
    return {}


def _with_files(config: Config, out: Path) -> Config:
    """The configuration with the example's files in it, if it is to be taken."""
    if not config.example:
        return config
    if config.train or config.generated or config.held_out:
        raise ValueError("the example brings its own files; give --no-example with yours")
    files = example_files(out / "example")
    return dataclasses.replace(
        config,
        train=str(files.train),
        held_out=str(files.held_out),
        generated=tuple(str(path) for path in files.generated),
    )


if __name__ == "__main__":
    run("forecast_amplification", __doc__, PRESETS, main, count_parameters)
