"""The table: truth is not blamed, wrong samples are, and nothing that matters is silent."""

import dataclasses

import jax
import numpy as np
import pytest

from jgen import load, save
from jgen.estimate import flatten
from jgen.metrics import ClassifierConfig, histogram, separation
from jgen.plotting import shower_figures
from jgen.showers import (
    EvaluationConfig,
    Showers,
    apply_threshold,
    compute_observables,
    evaluate,
    get_geometry,
    official_binning,
    read_showers,
    sample_path,
    separations,
    summary_table,
)
from jgen.showers.evaluation import layer_moments, structure

GEOMETRY = get_geometry("ds2")
SMALL = EvaluationConfig(
    ClassifierConfig(hidden=(32, 32), batch_size=100, epochs=12, num_seeds=2, learning_rate=1e-3),
    bootstrap=20,
    fpd=False,  # nothing to learn from 200 showers, and slow
    permutations=200,
)
QUICK = dataclasses.replace(SMALL, classifiers=(), kpd=False, prdc=False, bootstrap=2)


def rows(showers, index):
    return Showers(showers.energies[index], showers.voxels[index])


@pytest.fixture(scope="module")
def showers():
    return read_showers(sample_path(), GEOMETRY, 0, 600)


@pytest.fixture(scope="module")
def evaluation(showers):
    """Truth that is wrong by 40 % in energy."""
    first, second, third = (rows(showers, np.s_[i : i + 200]) for i in (0, 200, 400))
    wrong = third._replace(voxels=third.voxels * 1.4)
    key = jax.random.key(0)
    return evaluate(GEOMETRY, first, wrong, key, SMALL, holdout=second)


def test_a_wrong_energy_scale_is_seen_and_truth_is_not_blamed(evaluation):
    m = flatten(evaluation.metrics)
    assert m["num_showers"] == 200
    excess = m["separation/E_tot"] - m["separation/E_tot_truth"]
    assert excess > 3 * m["separation/E_tot_error"]
    assert m["wasserstein/E_tot"] == pytest.approx(0.4 * 0.955, abs=0.03)
    # 140 showers are too few for a classifier of 362 features to see a scale.
    assert abs(m["auc_high_truth"] - 0.5) < 4 * m["auc_high_truth_error"]
    # Scaling a shower leaves its shape alone, apart from voxels near the threshold.
    shape_excess = m["separation/EC_r"] - m["separation/EC_r_truth"]
    assert abs(shape_excess) < 4 * m["separation/EC_r_error"]
    # The response is wrong in its mean and, relative to it, right in its width.
    assert m["response/mean_p"] == 1 / 201
    for name in ("response/mean_p_truth", "response/resolution_p", "response/resolution_p_truth"):
        assert m[name] > 0.01, name
    profile = evaluation.response["generated"]
    ratio = profile.generated.mean / profile.reference.mean
    np.testing.assert_allclose(ratio, 1.4, atol=0.1)
    excess = m["separation/voxel"] - m["separation/voxel_truth"]
    assert excess > 3 * m["separation/voxel_error"]


def test_an_evaluation_is_stored_completely(evaluation, tmp_path):
    save(tmp_path / "e.npz", evaluation)
    restored = load(tmp_path / "e.npz")
    assert type(restored) is type(evaluation)
    assert restored.metrics == evaluation.metrics
    assert restored.notes == evaluation.notes
    assert jax.tree.structure(restored) == jax.tree.structure(evaluation)
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(evaluation), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_table_has_both_columns_and_the_notes(evaluation):
    lines = summary_table(evaluation.metrics, ["Beware."]).splitlines()
    row = next(line for line in lines if line.startswith("separation/E_tot"))
    assert row.count("(") == 2
    row = next(line for line in lines if line.startswith("response/mean_p"))
    assert len(row.split()) == 3
    assert not any("flow/" in line for line in lines)
    assert lines[-1] == "Note: Beware."


def test_without_a_holdout_the_halves_are_the_odd_and_even_rows(showers):
    reference, generated = rows(showers, np.s_[:400]), rows(showers, np.s_[400:])
    found = evaluate(GEOMETRY, reference, generated, jax.random.key(0), QUICK)
    halves = [rows(reference, np.s_[i::2]) for i in (0, 1)]
    by_hand = evaluate(GEOMETRY, halves[0], generated, jax.random.key(0), QUICK, holdout=halves[1])
    for name, value in by_hand.metrics.items():
        if not name.startswith(("response/", "incident", "shared")):
            assert found.metrics[name] == value, name
        elif name.startswith("response/"):
            assert found.metrics[name].truth == value.truth, name
    # The response takes all that there are.
    assert found.response["generated"].reference.num.sum() == 400
    assert by_hand.response["generated"].reference.num.sum() == 200


def test_training_showers_that_are_returned_are_seen(showers):
    reference, holdout, training = (rows(showers, np.s_[i::3]) for i in range(3))
    config = dataclasses.replace(QUICK, response=False, threshold=None, bootstrap=20)
    judge = lambda made, **given: (
        evaluate(
            GEOMETRY, reference, made, jax.random.key(0), config, holdout=holdout, **given
        ).metrics
    )
    found = judge(training, training=training)
    for name in ("copies/training", "copies/training_exact"):
        assert found[name].value.value == 1
        assert found[name].truth.value < 0.05
        assert found[f"{name}_p"].value < 1e-6 < found[f"{name}_p"].truth
    own = summary_table(found).split("copies and structure")[1].splitlines()
    assert [line.split()[0] for line in own if "copies/training_p" in line] == ["copies/training_p"]
    assert not [name for name in judge(training) if "training" in name]
    with pytest.raises(ValueError, match="200 of 200 reference showers are training showers"):
        judge(holdout, training=reference)


def test_geant4_is_aligned_and_a_turned_shower_is_not(showers):
    first, second, third = (rows(showers, np.s_[i::3]) for i in range(3))
    blocks = third.voxels.reshape(-1, *GEOMETRY.shape)
    turned = np.stack([np.roll(blocks[:, k], 5 * k, axis=1) for k in range(45)], axis=1)
    samples = (first, second, third._replace(voxels=turned.reshape(third.voxels.shape)))
    found = structure(*(layer_moments(GEOMETRY, s) for s in samples), num_bootstrap=20)
    assert found["structure/alignment"].truth.value == pytest.approx(0.283, abs=0.06)
    # Neighbours are turned by 112.5 degrees, so their cosine by its own: 0.283 cos 112.5.
    assert found["structure/alignment"].value.value == pytest.approx(-0.108, abs=0.06)
    assert (
        found["structure/alignment_p"].value < 1e-6 < 0.001 < found["structure/alignment_p"].truth
    )
    assert found["structure/holes"].truth.value == pytest.approx(0.016, abs=0.03)
    assert found["structure/rayleigh"].truth.value < 7


def test_samples_are_thinned_evenly(showers):
    """A file that is sorted by energy must not lose its upper half."""
    order = np.argsort(showers.energies[:400])
    reference = rows(showers, order)
    half = rows(showers, np.s_[400:])
    found = evaluate(GEOMETRY, reference, half, jax.random.key(0), QUICK, holdout=half)
    thinned = rows(reference, np.s_[::2])
    expected = evaluate(GEOMETRY, thinned, half, jax.random.key(0), QUICK, holdout=half)
    assert found.metrics["separation/E_layer"] == expected.metrics["separation/E_layer"]


def test_voxel_separation_is_that_of_the_pooled_voxels(showers):
    samples = [rows(showers, np.s_[i : i + 100]) for i in (0, 100, 200)]
    numbers = flatten(separations(GEOMETRY, *samples, num_bootstrap=50).metrics)
    edges = official_binning(GEOMETRY, "voxel", samples[0].voxels)
    assert len(edges) == 50
    pooled = [histogram(s.voxels.ravel(), edges) for s in samples]
    found = separation(pooled[0], pooled[2])
    assert numbers["separation/voxel"] == pytest.approx(found.value, rel=1e-12)
    assert numbers["overflow/voxel"] == abs(found.overflow[0] - found.overflow[1])
    assert numbers["underflow/voxel"] == abs(found.underflow[0] - found.underflow[1])
    # Voxels of a shower belong together, so the error is larger than that of as many free ones.
    assert numbers["separation/voxel_error"] > 2 * found.error


def dataset1_showers(geometry, num, seed):
    """Showers of fixed energies, as dataset 1 has them, whose layers differ in their binning."""
    rng = np.random.default_rng(seed)
    energies = 256.0 * 2 ** rng.integers(0, 12, num)
    hit = rng.random((num, geometry.num_voxels)) < 0.5
    voxels = hit * rng.exponential(size=hit.shape) * np.exp(-geometry.r / 50)[None]
    voxels *= (0.9 * energies / voxels.sum(axis=1))[:, None] * rng.normal(1, 0.05, (num, 1))
    return Showers(energies, voxels.astype(np.float32))


@pytest.mark.parametrize("name", ["ds1-photons", "ds1-pions"])
def test_dataset_1_is_judged_layer_by_layer(name):
    geometry = get_geometry(name)
    samples = [dataset1_showers(geometry, 100, seed) for seed in range(3)]
    config = dataclasses.replace(QUICK, kpd=True, prdc=True)
    found = evaluate(geometry, *samples[1:], jax.random.key(0), config, holdout=samples[0])
    metrics = flatten(found.metrics)
    assert np.isfinite(list(metrics.values())).all()
    assert metrics["shared_energies"] == 0
    # The fourth layer with angles is layer 13 of pions, with a range of its own.
    columns = found.table.columns["separation/EC_eta"].value.value
    assert len(columns) == len(geometry.alpha_layer_ids)
    values = [compute_observables(geometry, s)["EC_eta"][:, -1] for s in samples]
    reach = 500 if name == "ds1-pions" else 100
    pair = [histogram(v, np.linspace(-reach, reach, 101)) for v in values[1:]]
    assert columns[-1] == pytest.approx(separation(*pair, num_bootstrap=0).value)
    # Radii have no official bins; nothing may be outside of ours.
    assert metrics["overflow/EC_r"] < 0.05
    figures = shower_figures(geometry, samples[1], {"made": samples[2]}, found, threshold=1.0)
    assert {"features", "layer_ratios", "longitudinal_profile", "threshold"} < set(figures)
    images = dataclasses.replace(config, classifiers=("resnet",))
    with pytest.raises(ValueError, match="a resnet needs a regular grid"):
        evaluate(geometry, *samples[1:], jax.random.key(0), images, holdout=samples[0])


def test_a_threshold_removes_what_lies_at_or_below_it():
    showers = Showers(np.ones(1), np.array([[0.5, 1.0, 1.0001, 3.0]], np.float32))
    cut = apply_threshold(showers, 1.0)
    np.testing.assert_array_equal(cut.voxels, np.array([[0, 0, 1.0001, 3.0]], np.float32))
    with pytest.raises(ValueError, match="must be an energy >= 0 MeV, got -1.0"):
        EvaluationConfig(threshold=-1.0)


def test_a_threshold_cures_noise_below_it(showers):
    """Noise of 0.5 MeV in every voxel ruins the sparsity, and the cut of 1 MeV removes it."""
    first, second, third = (rows(showers, np.s_[i : i + 200]) for i in (0, 200, 400))
    noisy = third._replace(voxels=np.maximum(third.voxels, 0.5))
    judge = lambda made, threshold=1.0: (
        evaluate(
            GEOMETRY,
            first,
            made,
            jax.random.key(0),
            dataclasses.replace(QUICK, threshold=threshold),
            holdout=second,
        ).metrics
    )
    found, clean = judge(noisy), judge(third)
    assert found["separation/sparsity"].value.value > 0.9
    names = [name for name in clean if name.startswith("separation_cut/")]
    assert "separation_cut/sparsity" in names
    for name in names:
        assert found[name] == clean[name], name
    cut = [apply_threshold(s, 1.0) for s in (first, second, third)]
    by_hand = separations(GEOMETRY, *cut, num_bootstrap=2).metrics
    assert clean["separation_cut/sparsity"] == by_hand["separation/sparsity"]
    assert not [name for name in judge(third, None) if "_cut" in name]


def test_what_matters_is_noted(showers):
    reference, generated = rows(showers, np.s_[:300]), rows(showers, np.s_[300:])
    note = lambda made, config=QUICK: " ".join(
        evaluate(GEOMETRY, reference, made, jax.random.key(0), config).notes
    )
    assert note(generated) == ""
    assert "100 % of the generated showers have an incident energy of" in note(reference)
    assert "% of the generated showers are showers of the reference, voxel" in note(reference)
    assert "% of the generated showers are showers of the holdout, voxel" in note(reference)
    assert "removes 100 % of the energy" in note(
        generated, dataclasses.replace(QUICK, threshold=15_150.0)
    )
    hard = rows(generated, generated.energies > np.median(generated.energies))
    assert "spectra of incident energies differ" in note(hard)
    outside = generated._replace(voxels=generated.voxels * 0.4)
    assert "fractions of E_tot in the underflow differ by" in note(outside)
    few = [rows(showers, np.s_[start : start + 40]) for start in (0, 40)]
    fpd = dataclasses.replace(QUICK, fpd=True, fpd_batches=1)
    found = " ".join(evaluate(GEOMETRY, *few, jax.random.key(0), fpd).notes)
    assert "features are singular with 20 showers" in found
    # A width that is tiny in the reference has no good scale.
    faint = reference._replace(voxels=reference.voxels.copy())
    faint.voxels[:, :144] = 0
    faint.voxels[:, 4:6] = 1e3, 0.02
    kpd = dataclasses.replace(QUICK, kpd=True)
    found = evaluate(GEOMETRY, faint, generated, jax.random.key(0), kpd, holdout=reference)
    assert "times the largest reference value" in " ".join(found.notes)


def test_a_holdout_of_reference_showers_is_refused(showers):
    reference, generated = rows(showers, np.s_[:300]), rows(showers, np.s_[300:])
    part = rows(reference, np.random.default_rng(0).permutation(300)[:100])
    with pytest.raises(ValueError, match="100 % of the events of holdout are in reference"):
        evaluate(GEOMETRY, reference, generated, jax.random.key(0), QUICK, holdout=part)


def test_parts_can_be_left_out_and_chosen(showers):
    reference, generated = rows(showers, np.s_[:100]), rows(showers, np.s_[100:150])
    off = dataclasses.replace(QUICK, response=False, copies=False)
    found = evaluate(GEOMETRY, reference, generated, jax.random.key(0), off)
    families = {name.partition("/")[0] for name in found.metrics}
    single = {"num_showers", "incident_energy_p", "shared_energies"}
    tables = {"separation", "separation_cut", "wasserstein", "underflow", "overflow", "structure"}
    assert families == tables | single
    on = dataclasses.replace(off, fpd=True, kpd=True, prdc=True, fpd_batches=1)
    found = evaluate(GEOMETRY, reference, generated, jax.random.key(0), on)
    for name in ("fpd", "kpd", "precision", "recall", "density", "coverage"):
        assert np.isfinite(np.array(found.metrics[name])).all()
    for name in ("fpd", "kpd"):
        assert min(estimate.error for estimate in found.metrics[name]) >= 0


def test_the_official_protocol_has_the_official_classifiers(showers, monkeypatch):
    found = {}

    def record(first, second, third, key, tag, config, *, progress):
        found[tag] = config, first.shape[1]
        raise StopIteration if tag == "resnet" else KeyError(tag)

    monkeypatch.setattr("jgen.showers.evaluation.protocol.classifier_comparison", record)
    for tag in ("high", "low", "resnet"):
        config = dataclasses.replace(QUICK, classifiers=(tag,), protocol="calochallenge")
        with pytest.raises((KeyError, StopIteration)):
            evaluate(GEOMETRY, showers, showers, jax.random.key(0), config)
    assert {tag: inputs for tag, (_, inputs) in found.items()} == {
        "high": 362,
        "low": 6481,
        "resnet": 6481,
    }
    for config, _ in found.values():
        assert (config.num_seeds, config.epochs, config.select) == (10, 50, "accuracy")
    assert found["low"][0].hidden == (2048, 2048, 2048)
    assert found["resnet"][0].network == "resnet3d"
    assert found["resnet"][0].shape == (45, 16, 9)


def test_bad_samples_and_options_are_refused(showers):
    reference, generated = rows(showers, np.s_[:100]), rows(showers, np.s_[100:150])
    judge = lambda made, geometry=GEOMETRY: evaluate(
        geometry, reference, made, jax.random.key(0), QUICK
    )
    voxels = generated.voxels.copy()
    voxels[3, 7] = np.nan
    with pytest.raises(ValueError, match="generated: voxel 7 of shower 3 is nan"):
        judge(generated._replace(voxels=voxels))
    with pytest.raises(ValueError, match="negative"):
        judge(generated._replace(voxels=-generated.voxels))
    with pytest.raises(ValueError, match="generated has 5 showers"):
        judge(rows(generated, np.s_[:5]))
    with pytest.raises(ValueError, match="6480 voxels per shower, but geometry 'ds1-photons' has"):
        judge(generated, get_geometry("ds1-photons"))
    for factor, unit in ((1e-3, "GeV"), (1e3, "keV")):
        with pytest.raises(ValueError, match=f"their voxels look like {unit}"):
            judge(generated._replace(voxels=generated.voxels * np.float32(factor)))
    for options, words in (
        ({"bootstrap": 1}, "at least 2 resamplings"),
        ({"classifiers": ("high", "higher")}, "higher"),
        ({"protocol": "official"}, "must be 'jgen' or 'calochallenge'"),
        ({"permutations": 0}, "at least 1 permutation"),
    ):
        with pytest.raises(ValueError, match=words):
            EvaluationConfig(**options)
