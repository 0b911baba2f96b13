"""BIB-AE of calorimeter showers with a post-processor of the voxel spectrum (2005.05334).

    python -m experiments bib_ae

takes 8 minutes on one core; the preset smoke takes a minute. Numbers: results/showers.md.

Encoder, decoder and both critics, 1,140,478 parameters together, are trained on 2000 of the bundled
Geant4 electron showers (1 to 30 GeV, EM physics only) in 15 x 10 x 10 cells (`jgen.showers.box`),
each as it is and turned or reflected seven times; 1000 showers are held out. The parts, one after
another: a flow of the response E_vis / E_inc given E_inc; the autoencoder game of cells given both;
a flow of the encoded latents; two post-processors on reconstructions, of the published loss and of
ours. --data.data takes a larger file.

Deviations from 2005.05334: those of `jgen.showers.bib_ae`, a box that is a twentieth of theirs,
energies in units of 10 MeV, and critics at twice, not five times, the pace.
"""

import numpy as np

from experiments.showers.bib_ae.data import GEOMETRY, Config, Data, load_data
from experiments.showers.bib_ae.report import GENERATED, check_bins, measure, report
from experiments.study import Run, Study, at_least, main, variant
from jgen import GenerativeModel, draw
from jgen.showers import bib_ae, count_showers, sample_path
from jgen.typing import Key

DEFAULT = Config()


_SHORT = {"log_every": 50, "save_every": 1000}
SMOKE = variant(
    DEFAULT,
    data={"layers": 9, "side": 4, "copies": 2, "num_test": 300, "num_validation": 100},
    autoencoder={
        "num_latent": 4,
        "hidden": (32,),
        "critic_hidden": (16,),
        "latent_hidden": (16,),
        "training": _SHORT | {"steps": 300},
    },
    flows={
        "depth": 1,
        "hidden": (16,),
        "response": _SHORT | {"steps": 300},
        "latent": _SHORT | {"steps": 200},
    },
    post={
        "hidden": (16,),
        "num": 64,
        "training": _SHORT | {"steps": 200},
        "sorted_training": _SHORT | {"steps": 50},
    },
    num_bins=2,
    num_repeats=3,
    classifier_epochs=2,
)


def check(config: Config) -> None:
    """Refuse bad options."""
    at_least(config, num_bins=1, num_repeats=1, classifier_epochs=0)
    data = config.data
    num = count_showers(data.data or sample_path())
    if num < 2 * data.num_test + data.num_validation:
        raise ValueError(
            f"{num} showers are too few for {data.num_test} to test on, {data.num_validation} to "
            "validate on and as many as the former to train on; choose smaller numbers"
        )


def build(config: Config) -> dict[str, GenerativeModel]:
    """The parts, in the cells of the box."""
    return parts(config, config.data.shape)


def parts(config: bib_ae.BibAeConfig, shape: bib_ae.Shape) -> dict[str, GenerativeModel]:
    """The parts; that of the BIB-AE has both critics."""
    return {
        "response": bib_ae.response_model(),
        "autoencoder": bib_ae.game_model(config, shape),
        "post-processor": bib_ae.post_models(config, shape)["post"],
    }


def compute(config: Config, run: Run) -> dict:
    """Train, generate, and compare with held-out showers.

    By how showers were made, MADE in with, without (post-processor), sorted (of the published
    loss) and prior (latents from N(0, 1), without), and truth for training showers in their place:

    visible_energy_mean/BIN/MADE   mean of visible over incident energy in bins of the latter,
    visible_energy_width/BIN/MADE  and its standard deviation, both over Geant4's
    spectrum_jsd/MADE              Jensen-Shannon divergence of the spectra of cells, in bits
    num_hits_mean/MADE             mean number of cells above threshold over Geant4's
    free_energy_median/MADE        median of the visible energy that networks give over the one that
                                   was drawn first and that showers are scaled to,
    free_energy_width/MADE         and half the range of the central 68 % of the showers
    separation/..., wasserstein/...      of "with", see `jgen.metrics.compare`
    auc_cells, auc_observables, auc_cells_sorted      of classifiers, the last one of "sorted"
    """
    data = load_data(config.data)
    check_bins(config, data)
    train, validation = data.copies.in_rows(), data.validation.in_rows()
    options = {"validation": validation, "threshold": GEOMETRY.threshold}
    trained = bib_ae.train(config, config.data.shape, train, run, **options)
    samples = run.cached("samples", generate, config, data, trained, run.key("sample"))
    return run.cached("measured", measure, config, data, samples, run.key("classifier"))


def generate(config: Config, data: Data, trained: bib_ae.Trained, key: Key) -> dict:
    """Showers [n, z, y, x] in MeV for `energies` [n] of the test showers, by how they were made.

    Each has "/free" beside it: its visible energy [n] over the one that was drawn first, before
    cells were cut and scaled to that.
    """
    energies = np.repeat(data.test.energies, config.num_repeats)
    made = {"energies": energies}
    for name, sampler in GENERATED.items():
        one = trained.with_sampler(sampler)
        made[name], made[f"{name}/free"] = draw(
            one.cells_and_free, one.params, key, len(energies), energies
        )
    return made


STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build)

if __name__ == "__main__":
    main(STUDY)
