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

import jax
import jax.numpy as jnp
import numpy as np

from experiments.showers.bib_ae.data import GEOMETRY, Config, Data, load_data
from experiments.showers.bib_ae.report import GENERATED, measure, report
from experiments.study import Run, Study, at_least, main, variant
from jgen import Batch, GenerativeModel, draw
from jgen.showers import bib_ae, box, count_showers, sample_path
from jgen.typing import Key, Params

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
    data, post, cells = config.data, config.post, np.prod(config.data.shape)
    if not post.window <= post.num <= cells:
        raise ValueError(
            f"post.window must be at most post.num, and that at most the {cells} cells of the box, "
            f"got {post.window} and {post.num}"
        )
    num = count_showers(data.data or sample_path())
    if num < 2 * data.num_test + data.num_validation:
        raise ValueError(
            f"{num} showers are too few for {data.num_test} to test on, {data.num_validation} to "
            "validate on and as many as the former to train on; choose smaller numbers"
        )


def build(config: Config) -> dict[str, GenerativeModel]:
    """The parts; that of the BIB-AE has both critics."""
    return {
        "response": bib_ae.response_model(),
        "autoencoder": bib_ae.game_model(config, config.data.shape),
        "post-processor": bib_ae.post_models(config, config.data.shape)["post"],
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
    models, params = train(config, data, run)
    samples = run.cached("samples", generate, config, data, models, params, run.key("sample"))
    return run.cached("measured", measure, config, data, samples, run.key("classifier"))


def train(
    config: Config, data: Data, run: Run
) -> tuple[dict[str, GenerativeModel], dict[str, Params]]:
    """Train all parts one after another; returns models and parameters by name."""
    events, validation = (data.batch(s, config.data.scale) for s in (data.copies, data.validation))
    response = lambda batch: Batch(batch.cond[:, 1:], batch.cond[:, :1])
    models, params, shape = {}, {}, config.data.shape

    def fit(name, model, training, batch=events, **options):
        models[name] = model
        params[name] = run.fit(name, model, batch, training, **options).one

    flows, game, post = config.flows, config.autoencoder, config.post
    fit("response", bib_ae.response_model(), flows.response, response(events),
        validation=response(validation))  # fmt: skip
    fit("game", bib_ae.game_model(config, shape), game.training, optimizer=game.optimizer)
    coder_params = {name: params["game"][name] for name in ("encoder", "decoder")}
    latent = bib_ae.latent_model(config, shape, coder_params)
    fit("latent", latent, flows.latent, validation=validation)
    generate = lambda key, cond: latent.sample(params["latent"], key, cond)
    both = bib_ae.post_models(config, shape, coder_params, generate)
    fit("sorted", both["sorted"], post.sorted_training)
    fit("post", both["post"], post.training)
    return models, params


def generate(
    config: Config,
    data: Data,
    models: dict[str, GenerativeModel],
    params: dict[str, Params],
    key: Key,
) -> dict[str, np.ndarray]:
    """Showers [n, z, y, x] in MeV for `energies` [n] of the test showers, by how they were made.

    Each has "/free" beside it: its visible energy [n] over the one that was drawn first, before
    cells were cut and scaled to that.
    """
    centre, width = np.float32(data.centre), np.float32(data.width)

    def sample(params, key, energy):
        key_response, key_shape = jax.random.split(key)
        log_energy = ((jnp.log(energy) - centre[0]) / width[0])[None]
        response = models["response"].sample(params["response"], key_response, log_energy)
        cond = jnp.concatenate([log_energy, response])
        total = energy * jnp.exp(response[0] * width[1] + centre[1])
        made = {}
        for name, part in GENERATED.items():
            cells = models[part].sample(params[part], key_shape, cond)
            cells = box.decompressed(cells, config.data.scale)
            made[name] = box.cut_and_scaled(cells, total, GEOMETRY.threshold)
            made[f"{name}/free"] = jnp.sum(cells) / total
        return made

    energies = np.repeat(data.test.energies, config.num_repeats)
    made = draw(sample, params, key, len(energies), energies)
    return {"energies": energies, **made}


STUDY = Study({"default": DEFAULT, "smoke": SMOKE}, compute, report, check, build)

if __name__ == "__main__":
    main(STUDY)
