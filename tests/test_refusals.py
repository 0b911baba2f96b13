"""Public functions of the host refuse what they cannot use, in a sentence of their own."""

import traceback

import jax
import numpy as np
import pytest

from jgen import amplification, inference, jets, lattice, metrics, showers

RNG, KEY = np.random.default_rng(0), jax.random.key(0)
X, Y = RNG.normal(size=200), RNG.normal(size=180)
X2, Y2 = RNG.normal(size=(200, 3)), RNG.normal(size=(180, 3))
FRACTIONS, TRUTH = RNG.uniform(0.08, 0.12, size=(6, 3, 4)), np.full(4, 0.1)
SIZES, EDGES, SPLITS = np.array([10, 50, 200]), np.linspace(-3, 3, 9), (X > 0, X < -0.5)
MEMBERS = np.stack([X + RNG.normal(size=200) for _ in range(5)])
ENERGIES, RESPONSE = RNG.uniform(1e3, 1e4, 200), RNG.normal(1, 0.1, 200)
PIXELS, MSE, HISTOGRAM = (X2 > 0) * 1.0, np.array([0.1, 0.2]), metrics.histogram(X, EDGES)
KDTREE = amplification.median_splits(X2, 2)
POINTS = np.abs(RNG.normal(0, 0.1, (12, 3, 3)))
SHOWERS = showers.Showers(ENERGIES, np.abs(RNG.normal(size=(200, 6))))

# Function and arguments by name, which all are arrays of numbers or numbers.
CALLS = [
    (amplification.region_fractions, dict(values=X, edges=EDGES, sizes=SIZES)),
    (
        amplification.averaging_amplification,
        dict(fractions=FRACTIONS, sizes=SIZES, num_train=100.0, level=0.5),
    ),
    (
        amplification.true_amplification,
        dict(truth=TRUTH, fractions=FRACTIONS, sizes=SIZES, num_train=100.0, level=0.5),
    ),
    (amplification.calibration, dict(truth=TRUTH, fractions=FRACTIONS[:, 0])),
    (amplification.prefix_sizes, dict(num=1000, first=10, per_decade=4)),
    (amplification.ks_distances, dict(reference=X, values=Y, sizes=SIZES[:2])),
    (
        amplification.equivalent_events,
        dict(distance=MSE, num_reference=100.0, num_generated=200.0, level=0.5),
    ),
    (
        amplification.differential_amplification,
        dict(values=X, held_out=Y, num_train=100, sizes=SIZES, level=0.5),
    ),
    (
        amplification.differential_on_training_set,
        dict(values=X, training=Y, sizes=SIZES, level=0.5),
    ),
    (amplification.refinement_mask, dict(log_ratio=X, low=0.95, high=1.05)),
    (amplification.kolmogorov_band, dict(level=0.5)),
    (amplification.expected_distance, dict(n=SIZES, m=200.0 * SIZES, k=1.0)),
    (amplification.sample_quantile_edges, dict(sample=X, num=5)),
    (amplification.bin_fractions, dict(bins=np.arange(200) % 5, num_bins=5, sizes=SIZES)),
    (amplification.quantile_mse, dict(fractions=FRACTIONS)),
    (amplification.sample_quantile_mse, dict(num_bins=10, num=SIZES)),
    (
        amplification.fit_quantile_mse,
        dict(covariance=np.eye(2), jacobian=np.ones((5, 2))),
    ),
    (
        amplification.mse_equivalent_events,
        dict(mse=MSE, num_bins=10, num_generated=100.0, level=0.5),
    ),
    (amplification.mean_and_error, dict(values=X2)),
    (amplification.median_splits, dict(sample=X2, levels=2)),
    (lambda events: amplification.split_bins(KDTREE, events), dict(events=Y2)),
    (lambda events: amplification.product_bins(events, [EDGES] * 3), dict(events=X2)),
    (lambda edges: amplification.product_bins(X, [edges]), dict(edges=EDGES)),
    (amplification.jensen_shannon, dict(reference=TRUTH, generated=TRUTH)),
    (amplification.sample_jensen_shannon, dict(num_bins=10, n=100.0, m=200.0)),
    (
        amplification.jsd_equivalent_events,
        dict(divergence=MSE, num_bins=9, num_generated=100.0, num_validation=200.0, level=0.5),
    ),
    (lambda log_weight: inference.independence_metropolis(KEY, log_weight), dict(log_weight=X)),
    (inference.autocorrelation_time, dict(series=X)),
    (inference.chain_mean, dict(series=X)),
    (inference.effective_sample_size, dict(log_weight=X)),
    (inference.forward_effective_sample_size, dict(log_weight=X)),
    (inference.uncovered_fraction, dict(log_weight=X, log_z=0.5, factor=10.0)),
    (inference.log_partition, dict(log_weight=X)),
    (inference.weighted_mean, dict(values=X, log_weight=X)),
    (
        inference.free_energy_difference,
        dict(log_weight=X, region=SPLITS[0], reference=SPLITS[1]),
    ),
    (inference.bin_probabilities, dict(values=X, edges=EDGES, log_weight=X)),
    (inference.integral, dict(weights=np.abs(X))),
    (inference.relative_deviation, dict(weights=np.abs(X))),
    (inference.best_numbers, dict(weights=np.abs(X), num=100)),
    (inference.combined_weights, dict(weights=np.abs(X))),
    (inference.largest_share, dict(weights=np.abs(X))),
    (inference.bootstrap_maximum, dict(weights=np.abs(X), num=50)),
    (inference.overweight_limit, dict(weights=np.abs(X), share=0.001)),
    (inference.unweighting, dict(weights=np.abs(X), limit=2.0)),
    (metrics.pulls, dict(truth=X, predictions=MEMBERS, truth_error=np.abs(X))),
    (metrics.coverage, dict(truth=X, predictions=MEMBERS, levels=np.array([0.68, 0.95]))),
    (metrics.calibration_curve, dict(truth=X, predictions=MEMBERS, num_bins=5)),
    (
        lambda reference, generated, smallest: metrics.member_bins(
            lambda x: EDGES, reference, generated, smallest=smallest
        ),
        dict(reference=X, generated=MEMBERS, smallest=20),
    ),
    (metrics.area_under_curve, dict(reference_scores=X, generated_scores=Y)),
    (metrics.auc_error, dict(auc=0.6, n=100.0, m=100.0)),
    (
        metrics.wasserstein,
        dict(reference=X, generated=Y, reference_weights=np.abs(X), num_bootstrap=2),
    ),
    (
        metrics.sliced_wasserstein,
        dict(reference=X2, generated=Y2, num_directions=3, num_bootstrap=2),
    ),
    (metrics.moments, dict(sample=X2)),
    (
        metrics.frechet_physics_distance,
        dict(
            reference=X2, generated=Y2, min_samples=20, max_samples=90, num_sizes=3, num_batches=1
        ),
    ),
    (metrics.polynomial_mmd, dict(reference=X2, generated=Y2)),
    (
        metrics.kernel_physics_distance,
        dict(reference=X2, generated=Y2, num_batches=2, batch_size=50),
    ),
    (metrics.histogram, dict(values=X, edges=EDGES, weights=np.abs(X))),
    (
        lambda num_bootstrap: metrics.separation(HISTOGRAM, HISTOGRAM, num_bootstrap=num_bootstrap),
        dict(num_bootstrap=3),
    ),
    (
        lambda reference, generated, num_bootstrap: metrics.column_separations(
            reference, generated, [EDGES] * 3, num_bootstrap=num_bootstrap
        ),
        dict(reference=X2, generated=Y2, num_bootstrap=2),
    ),
    (metrics.separation_floor, dict(num_bins=10, num_p=100, num_q=100)),
    (metrics.precision_recall_density_coverage, dict(reference=X2, generated=Y2, k=5)),
    (metrics.expected_coverage, dict(num_reference=100, num_generated=100, k=5)),
    (metrics.nearest_neighbours, dict(sample=X2, others=Y2)),
    (
        metrics.gaussian_mixture_log_prob,
        dict(train=X2, validation=Y2[:90], test=Y2[90:], num=2),
    ),
    (metrics.pca_log_prob, dict(x=X2, num_latent=2)),
    (metrics.bernoulli_mixture_log_prob, dict(train=PIXELS, test=PIXELS[:9], num=2, steps=3)),
    (
        showers.response_test,
        dict(
            reference_energies=ENERGIES,
            reference_response=RESPONSE,
            generated_energies=ENERGIES[::-1],
            generated_response=RESPONSE,
            num_bins=2,
            num_permutations=9,
        ),
    ),
    (
        lambda energies, depth, alpha, radius, threshold, fraction: showers.voxelise(
            energies, depth, alpha, radius, showers.GRIDS["ds2"], threshold, fraction
        ),
        dict(
            energies=ENERGIES,
            depth=10 * np.abs(X),
            alpha=X,
            radius=np.abs(X),
            threshold=0.01,
            fraction=0.03,
        ),
    ),
    (showers.shower_coordinates, dict(positions=X2, inner_radius=1000.0)),
    (
        lambda energies, voxels, threshold: showers.apply_threshold(
            showers.Showers(energies, voxels), threshold
        ),
        dict(energies=ENERGIES, voxels=SHOWERS.voxels, threshold=0.1),
    ),
    (
        lambda energies, voxels: showers.low_level_inputs(showers.Showers(energies, voxels)),
        dict(energies=ENERGIES, voxels=SHOWERS.voxels),
    ),
    (
        lambda reference, generated, num_jets, num_batches: jets.coverage_and_mmd(
            reference, generated, KEY, num_jets, num_batches
        ),
        dict(reference=POINTS, generated=POINTS[::-1], num_jets=4, num_batches=2),
    ),
    (jets.energy_movers_distance, dict(a=POINTS[0], b=POINTS[1])),
    (jets.mean_image, dict(points=POINTS, edges=EDGES)),
    (
        lambda total, labels, wanted, largest: jets.draw_multiplicities(
            total, labels, wanted, KEY, largest
        ),
        dict(total=np.arange(9) + 1, labels=np.arange(9) % 2, wanted=np.arange(2), largest=5),
    ),
    (jets.jet_sample, dict(points=POINTS[:4], n=np.array([3, 2, 0, 1]))),
    (
        lambda reference: showers.binning(showers.get_geometry("ds2"), "E_tot", reference),
        dict(reference=RESPONSE),
    ),
    (
        lambda reference: showers.official_binning(
            showers.get_geometry("ds2"), "E_layer", reference
        ),
        dict(reference=ENERGIES),
    ),
    (showers.layer_observables, dict(layers=np.abs(X2), incident=ENERGIES)),
    (lambda num_layers: showers.layer_energies(SHOWERS, num_layers), dict(num_layers=3)),
    (
        lambda length: lattice.second_moment_length(np.float32(2), np.float32(1), length),
        dict(length=8),
    ),
]


ARRAYS = {
    "NaN": lambda a: np.where(np.arange(a.size).reshape(a.shape) == 1, np.nan, a),
    "text": lambda a: a.astype(str),
    "complex": lambda a: a + 0j,
    "masked": lambda a: np.ma.masked_less_equal(a.astype(float), np.median(a)),
    "objects": lambda a: a.astype(object),
    "empty": lambda a: a[:0],
    "no axes": lambda a: np.array("a"),
    "None": lambda a: None,
}
NUMBERS = {"negative": -1, "NaN": float("nan"), "text": "a", "None": None, "array": np.ones(2)}
# Numbers that may be negative or None, and arrays that may be empty or None.
LEGAL = {
    "negative": {"log_z", "k of expected_distance", "inner_radius"},
    "None": {"sizes of differential_amplification", "sizes of differential_on_training_set"}
    | {"log_weight of bin_probabilities", "min_samples", "max_samples"}
    | {"reference_weights", "weights", "others"},
    "empty": {"positions", "a", "b"},
    "NaN": {"positions", "energies of apply_threshold"},
}


def name_of(function):
    """Of a lambda, what it calls."""
    if function.__name__ != "<lambda>":
        return function.__name__
    names = [name for name in function.__code__.co_names if name.islower()]
    return next(
        n
        for n in names
        if n not in ("amplification", "inference", "jets", "metrics", "showers", "lattice")
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("call", CALLS, ids=lambda call: name_of(call[0]))
def test_what_cannot_be_used_is_refused_in_a_sentence(call):
    function, arguments = call
    function(**arguments)
    wrong = {}
    for name, value in arguments.items():
        is_array = isinstance(value, np.ndarray)
        for kind, change in (ARRAYS if is_array else NUMBERS).items():
            if not LEGAL.get(kind, set()) & {name, f"{name} of {name_of(function)}"}:
                given = arguments | {name: change(value) if is_array else change}
                if problem := _problem(function, given):
                    wrong[f"{name}: {kind}"] = problem
    assert not wrong


def _problem(function, arguments):
    """What is wrong with the refusal of a call, or None."""
    try:
        return f"gives {function(**arguments)}"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        on_purpose = "/jgen/" in last.filename and last.line.startswith("raise")
        return None if isinstance(error, ValueError) and on_purpose else f"{error!r} in {last}"
