"""CaloDREAM: calorimeter showers by flow matching (2405.09629), trained, sampled and judged.

    python -m experiments.calodream

trains both networks on the bundled Geant4 showers, generates showers and judges them against others
that the networks have not seen. `--preset latent` makes the shapes in the latent space of an
autoencoder (laViT), `--energies parallel` all layer energies at once. See --help for all options.

Time: 10 minutes of processor time on 2 CPU cores (smoke: 1.5, mostly to compile); the paper presets
want a GPU for a day or two. Expected of the default: separation/E_tot 0.03 to 0.04 (truth 0.026),
sparsity 0.03 (0.002), widths 0.07 to 0.10 (0.03), auc_low 0.92, auc_high 0.99: total energies are
learned in that time, shapes are not yet.
"""

import json
from pathlib import Path

import jax
import numpy as np

from experiments._calodream import (
    Config,
    Trained,
    check_options,
    chunks,
    count_parameters,
    load_showers,
    train,
)
from experiments._calodream_presets import PRESETS
from experiments._command_line import run
from jgen.models import bernoulli, elbo_of_events, reconstruct
from jgen.plotting import save, shower_figures, training_curves
from jgen.random import stream
from jgen.showers import (
    Showers,
    evaluate,
    get_geometry,
    load_evaluation,
    read_showers,
    save_evaluation,
    summary_table,
    write_showers,
)
from jgen.showers.calodream import shower_autoencoder, training_data
from jgen.showers.calodream.generation import generate_showers
from jgen.training import MetricsLog, RunFolder


def main(config: Config, out: Path, *, plot_only: bool = False) -> dict[str, float]:
    """Train, sample, judge and plot; returns the metrics, which metrics.json holds too.

    Every stage is kept in the run folder and taken from there when it is finished.
    """
    # Bad options and files are refused before the folder is made, so that they do not mark it.
    check_options(config)
    if plot_only and not (out / "config.json").exists():
        raise ValueError(f"{out} holds no run to plot; run without --plot-only first")
    showers, reference = load_showers(config)
    folder = RunFolder(out, config)
    if not plot_only:
        trained = train(config, showers, folder)
        if jax.process_index() != 0:
            return {}
        _sample(trained, showers, folder)
        if config.space == "latent":
            _reconstruct(trained, reference, folder)
    if not (folder.path / "samples.h5").exists():
        raise ValueError(f"{folder.path} has no samples.h5 to plot; run without --plot-only first")
    return _judge(config, showers, reference, folder, plot_only)


def _sample(trained: Trained, showers: Showers, folder: RunFolder) -> None:
    """Generate samples.h5, as many showers as the reference has.

    Their incident energies are those of the training sample, whose spectrum is the reference's.
    With the reference's own energies the generated sample would share the reference's statistical
    fluctuation, and look better than a second sample of the truth.
    """
    config, path = trained.config, folder.path / "samples.h5"
    if path.exists() and folder.read_json("sampling.json"):
        return
    done = generate_showers(
        path,
        *trained.showers(),
        stream(jax.random.key(config.seed), "sample"),
        np.resize(showers.energies, config.num_test),
        trained.geometry,
        batch_size=config.sample_batch,
        progress=True,
    )
    folder.write_json("sampling.json", done._asdict())


def _reconstruct(trained: Trained, reference: Showers, folder: RunFolder) -> None:
    """Write reconstructed.h5: the reference through the autoencoder, the best laViT can become."""
    path = folder.path / "reconstructed.h5"
    if path.exists():
        return
    config, params = trained.config, trained.params["autoencoder"]
    coder, _ = shower_autoencoder(trained.geometry, config.autoencoder)
    _, batch = training_data(chunks(reference), trained.preprocessing)
    key = stream(jax.random.key(config.seed), "reconstruct")
    terms = elbo_of_events(coder, bernoulli(), params, key, batch, batch_size=100)
    folder.write_json(
        "autoencoder.json", {name: float(np.mean(v)) for name, v in terms._asdict().items()}
    )

    @jax.jit
    def through(params, keys, x, cond):
        one = lambda a: reconstruct(coder, bernoulli(), params, *a)
        return jax.lax.map(one, (keys, x, cond), batch_size=50)

    keys = jax.random.split(key, len(batch.x))
    x = through(params, keys, batch.x, batch.cond)
    u, energies = batch.cond[:, 1:], reference.energies.astype(np.float32)
    voxels = trained.preprocessing.decode(u, np.asarray(x), energies)
    write_showers(path, Showers(energies, voxels.reshape(len(x), -1)), trained.geometry)


def _judge(
    config: Config, showers: Showers, reference: Showers, folder: RunFolder, plot_only: bool
) -> dict[str, float]:
    """Evaluate the samples unless that is done, write metrics.json and draw the figures."""
    geometry, stored = get_geometry(config.geometry), folder.path / "evaluation.npz"
    generated = read_showers(folder.path / "samples.h5", geometry)
    if stored.exists():
        found = load_evaluation(stored)
    elif plot_only:
        raise ValueError(f"{folder.path} has no evaluation to plot; run without --plot-only first")
    else:
        key = stream(jax.random.key(config.seed), "evaluation")
        found = evaluate(
            geometry, reference, generated, key, config.evaluation, holdout=showers, progress=True
        )
        save_evaluation(stored, found)
    metrics = found.metrics | _costs(config, folder)
    if terms := folder.read_json("autoencoder.json"):
        metrics |= {f"autoencoder/{name}": value for name, value in terms.items()}
    folder.write_metrics(metrics)
    samples = {"CaloDREAM": generated}
    if config.space == "latent":
        samples["Autoencoder"] = read_showers(folder.path / "reconstructed.h5", geometry)
    figures = shower_figures(
        geometry, reference, samples, found, threshold=config.evaluation.threshold
    )
    for part in config.parts:
        rows = MetricsLog(folder.path / part / "metrics.jsonl").read()
        figures[f"training_{part}"] = training_curves({f"{part} network": rows}, log_y=True)
    for name, figure in figures.items():
        save(figure, folder.figure(name))
    print(summary_table(metrics, found.notes))
    return metrics


def _costs(config: Config, folder: RunFolder) -> dict[str, float]:
    """Losses, and what training and sampling took."""
    sampling = json.loads((folder.path / "sampling.json").read_text())
    metrics = {}
    if sampling["num_timed"]:  # one batch alone is timed with its compilation, so not at all
        metrics["ms_per_shower"] = 1e3 * sampling["seconds"] / sampling["num_timed"]
    for part in config.parts:
        rows = MetricsLog(folder.path / part / "metrics.jsonl").read()
        metrics[f"train_seconds/{part}"] = sum(row.get("seconds", 0.0) for row in rows)
        last = [np.mean(row["loss"]) for row in rows if "loss" in row][-10:]
        metrics[f"loss/{part}"] = float(np.mean(last))
    return metrics


if __name__ == "__main__":
    run("calodream", __doc__, PRESETS, main, count_parameters)
