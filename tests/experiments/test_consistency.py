"""The study of consistency models, on small untrained teachers."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from experiments import _calodream as study
from experiments import consistency
from experiments._calodream_presets import SMOKE, SMOKE_LATENT
from experiments._consistency import Distillation, distances, parts
from experiments._consistency_report import LABELS
from jgen.files import save as save_params
from jgen.metrics import ClassifierConfig
from jgen.nets.sequence import SequenceConfig
from jgen.nets.vit import ViTConfig
from jgen.showers import (
    ShowerPreprocessing,
    Showers,
    fit_statistics,
    get_geometry,
    read_showers,
    sample_path,
    save_preprocessing,
)
from jgen.training import RunFolder, TrainConfig

GEOMETRY = get_geometry("ds2")
TEACHER = dataclasses.replace(
    SMOKE,
    energies="parallel",
    num_train=80,
    num_test=60,
    parallel_network=SequenceConfig(width=8, heads=2, blocks=1, mlp_width=8),
    shape_network=ViTConfig(patch=(9, 16, 3), width=12, heads=2, blocks=1, mlp_width=16),
)
ONCE = dataclasses.replace(consistency.SMOKE.shape, training=TrainConfig(steps=2, batch_size=8))
STUDY = dataclasses.replace(
    consistency.SMOKE,
    energy=ONCE,
    shape=ONCE,
    num_showers=50,
    classifier=ClassifierConfig(hidden=(8,), batch_size=20, epochs=1, num_seeds=1),
)


@pytest.fixture(scope="module")
def showers():
    return read_showers(sample_path(), GEOMETRY, 0, 120)


@pytest.fixture(scope="module")
def teacher(showers, tmp_path_factory):
    """A run folder whose networks have random weights."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "calodream", TEACHER)
    preprocessing = ShowerPreprocessing(GEOMETRY, fit_statistics([showers], GEOMETRY), 1e3, 3e4)
    save_preprocessing(folder.path / "preprocessing.npz", preprocessing)
    for part in TEACHER.parts:
        rng = np.random.default_rng(0)
        shapes = jax.eval_shape(parts(TEACHER)[part].network.init, jax.random.key(0))
        params = jax.tree.map(lambda p: 0.1 * np.float32(rng.normal(size=p.shape)), shapes)  # noqa: B023
        save_params(folder.path / part / "params.npz", params)
    return folder.path


@pytest.fixture(scope="module")
def finished(teacher, tmp_path_factory):
    """The study, without its figures, in a folder that has the distillation of shapes already."""
    out = tmp_path_factory.mktemp("runs") / "study"
    config = dataclasses.replace(STUDY, model=str(teacher))
    params = study.load_trained(teacher).params["shape"]
    save_params(RunFolder(out, config).path / "shape" / "params.npz", params)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(consistency, "figures", lambda *args: ())
        return config, out, consistency.main(config, out)


def test_every_sampler_has_its_distances_beside_the_truths(finished):
    config, out, metrics = finished
    for row in (*config.rows, "truth"):
        for name in LABELS:
            assert metrics[f"w1/{row}/{name}"] > 0
            assert metrics[f"w1/{row}/{name}_error"] > 0
    assert config.rows == ("euler/2", "consistency/1")
    for row in config.rows:
        assert metrics[f"ms_per_shower/{row}"] > 0
        assert 0 <= metrics[f"auc/{row}"] <= 1
    assert (out / "energy" / "params.npz").exists()
    assert not (out / "shape" / "metrics.jsonl").exists()
    assert json.loads((out / "metrics.json").read_text()) == metrics
    ratios = [metrics[f"w1/consistency/1/{n}"] / metrics[f"w1/euler/2/{n}"] for n in LABELS]
    assert metrics["largest_w1_ratio"] == max(ratios)
    times = [metrics[f"ms_per_shower/{row}"] for row in config.rows]
    assert metrics["speedup"] == times[0] / times[1]


def test_a_finished_study_is_not_done_again_but_plotted(finished, monkeypatch):
    config, out, metrics = finished
    monkeypatch.setattr(consistency, "_measure_all", None)
    assert consistency.main(config, out, plot_only=True) == metrics
    for name in ("w1_time", "auc_time", "observables"):
        assert (out / "figures" / f"{name}.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("part", "cond"), [("energy", jnp.float32(0.4)), ("shape", jnp.linspace(-1, 1, 46))]
)
def test_a_student_with_the_teachers_parameters_is_one_step_of_euler(teacher, part, cond):
    """From the same noise: on a linear path the consistency function starts as x + (1 - t) u."""
    trained, key = study.load_trained(teacher), jax.random.key(3)
    theirs = getattr(trained, part)(trained.solver(part, "euler-1"))
    found, expected = (
        jax.jit(model.sample)(trained.params[part], key, cond)
        for model in (parts(TEACHER)[part].model(trained.params[part]), theirs)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_distances_of_scaled_showers(showers):
    """Twice the energy is a distance of the mean energy, and log10(2) between voxels."""
    # Without voxels below the threshold, which twice the energy would take above it.
    kept = np.where(showers.voxels > GEOMETRY.threshold, showers.voxels, 0)
    once = Showers(showers.energies, kept)
    found = distances(GEOMETRY, once, once._replace(voxels=2 * kept), 2)
    np.testing.assert_allclose(found["E_voxel"], np.log10(2), rtol=1e-5)
    ratio = kept.sum(axis=1) / showers.energies
    expected = scipy.stats.wasserstein_distance(ratio, 2 * ratio)
    np.testing.assert_allclose(found["E_tot"], expected, rtol=1e-5)
    np.testing.assert_allclose([found["EC_eta"], found["depth"], found["sparsity"]], 0, atol=1e-5)


def test_an_autoregressive_energy_network_is_left_as_it_is():
    assert set(parts(dataclasses.replace(TEACHER, energies="autoregressive"))) == {"shape"}
    assert set(parts(TEACHER)) == {"energy", "shape"}


def test_bad_options(tmp_path):
    for changed, message in (
        ({"teacher": "euler-3"}, "the teacher 'euler-3' is none of the solvers"),
        ({"solvers": ("euler-2", "eular-4")}, "unknown Runge-Kutta method 'eular'"),
        ({"solvers": ("euler-2", "midpoint-3")}, "midpoint takes 2 evaluations a step"),
        ({"solvers": ("euler-2", "bespoke-4")}, "does not exist"),
        ({"trajectories": "heun-3"}, "heun takes 2 evaluations a step"),
        ({"energy": Distillation(0)}, "energy.trajectories must be at least 1, got 0"),
        ({"cut": 1.0}, "cut must be at least 0 and less than 1, got 1.0"),
        ({"num_showers": 10}, "40 at least"),
        ({"bootstrap": 0}, "bootstrap must be at least 1"),
        ({"calodream": SMOKE_LATENT}, "distils models of voxels"),
        ({"model": str(tmp_path)}, "holds no run"),
    ):
        with pytest.raises(ValueError, match=message):
            consistency.main(dataclasses.replace(STUDY, **changed), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="no metrics to plot"):
        consistency.main(STUDY, tmp_path / "out", plot_only=True)
