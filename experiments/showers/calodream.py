"""CaloDREAM: calorimeter showers by flow matching (2405.09629), trained, sampled and judged.

    python -m experiments calodream

trains both networks on the bundled Geant4 showers, generates showers and judges them against others
that the networks have not seen. `--preset latent` makes the shapes in the latent space of an
autoencoder (laViT), `--energies parallel` all layer energies at once. The finished run is a model:
`jgen.showers.calodream.load("runs/calodream-default")`, `python -m experiments generate --model`.

Time: 10 minutes of processor time on 2 CPU cores (smoke: 1.5, mostly to compile); the paper presets
want a GPU for a day or two. Numbers: results/showers.md.
"""

import numpy as np

from experiments.showers.presets import (
    PRESETS,
    Config,
    evaluated,
    load_showers,
    report_evaluation,
)
from experiments.study import Run, Study, main
from jgen import plotting
from jgen.generative_model import GenerativeModel
from jgen.models import elbo_of_events
from jgen.showers import (
    Showers,
    calodream,
    generate_showers,
    get_geometry,
    read_showers,
    write_showers,
)


def build(config: Config) -> dict[str, GenerativeModel]:
    """The networks by name."""
    return {name: part.model for name, part in calodream.parts(config).items()}


def compute(config: Config, run: Run) -> dict:
    """Train, sample and judge.

    The names of `jgen.showers.evaluate`, and
      ms_per_shower           by the clock, without the first batch, which waits for the compiler
      train_seconds/PART      of each network
      loss/PART               mean of the last ten that were logged
      autoencoder/TERM        of the bound on the reference, in a latent space
    """
    showers, reference = load_showers(config)
    trained = calodream.train(config, showers, run)
    sampling = run.cached(
        "sampling",
        generate_showers,
        run.path / "samples.h5",
        trained.model,
        trained.params,
        run.key("sample"),
        # Incident energies of the training sample, whose spectrum is the reference's. With the
        # reference's own the generated sample would share the reference's statistical fluctuation,
        # and look better than a second sample of the truth.
        np.resize(showers.energies, config.num_test),
        trained.geometry,
        batch_size=config.sample_batch,
        progress=True,
    )
    generated = read_showers(run.path / "samples.h5", trained.geometry)
    own = {"holdout": showers, "training": showers}
    metrics = dict(evaluated(run, trained.geometry, reference, generated, **own).metrics)
    if sampling.num_timed:  # one batch alone is timed with its compilation, so not at all
        metrics["ms_per_shower"] = 1e3 * sampling.seconds / sampling.num_timed
    for name in trained.parts:
        history = run.history(name)
        metrics[f"train_seconds/{name}"] = sum(row.get("seconds", 0.0) for row in history)
        last = [np.mean(row["loss"]) for row in history if "loss" in row][-10:]
        metrics[f"loss/{name}"] = np.mean(last)
    if config.space == "latent":
        metrics["autoencoder"] = run.cached("reconstructed", _reconstruct, trained, reference, run)
    return metrics


def _reconstruct(trained: calodream.Trained, reference: Showers, run: Run) -> dict[str, float]:
    """Write reconstructed.h5: the reference through the autoencoder, the best laViT can become."""
    key, coder = run.key("reconstruct"), trained.parts["autoencoder"].network
    batch = calodream.training_data(reference, trained.preprocessing).shape
    params = trained.params["autoencoder"]
    terms = elbo_of_events(coder, params, key, batch, batch_size=100)
    showers = trained.reconstruct(key, reference)
    write_showers(run.path / "reconstructed.h5", showers, trained.geometry)
    return {name: float(np.mean(values)) for name, values in terms._asdict().items()}


def report(config: Config, run: Run, metrics: dict) -> str:
    """Draw the figures of CaloDREAM and tabulate the metrics."""
    geometry = get_geometry(config.geometry)
    samples = {"CaloDREAM": read_showers(run.path / "samples.h5", geometry)}
    if config.space == "latent":
        samples["Autoencoder"] = read_showers(run.path / "reconstructed.h5", geometry)
    for name in calodream.parts(config):
        title = name if name == "autoencoder" else f"{name} network"
        figure = plotting.training_curves({title: run.history(name)}, log_y=True)
        run.save(f"training_{name}", figure)
    _, reference = load_showers(config)
    return report_evaluation(run, geometry, reference, samples, metrics)


STUDY = Study(PRESETS, compute, report, build=build, inputs=load_showers)

if __name__ == "__main__":
    main(STUDY)
