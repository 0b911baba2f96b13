import jax.numpy as jnp
import numpy as np
import pytest

from jgen.showers.data.geometry import get_geometry
from jgen.showers.data.hdf5 import Showers, read_showers, sample_path
from jgen.showers.observables import (
    binning,
    compute_high_level_inputs,
    compute_observables,
    high_level_inputs,
    layer_observables,
    official_binning,
    shower_depth,
    shower_observables,
)
from jgen.showers.observables.features import _apply_batch

DS2 = get_geometry("ds2")


def oracle(g, voxels):
    """The official definitions in float64, voxel by voxel, with the one-pass width."""
    voxels = np.where(voxels < g.threshold, 0, voxels.astype(np.float64))
    out = {"E_tot": voxels.sum(), "E_layer": [], "sparsity": []}
    index = 0
    for layer in g.layers:
        sums = dict.fromkeys(["n", "e", "r", "rr", "eta", "eta2", "phi", "phi2"], 0.0)
        for a in range(layer.num_alpha):
            alpha = -np.pi + (a + 0.5) * 2 * np.pi / layer.num_alpha
            for i in range(layer.num_r):
                r = 0.5 * (layer.r_edges[i] + layer.r_edges[i + 1])
                e, eta, phi = voxels[index], r * np.cos(alpha), r * np.sin(alpha)
                terms = (e > 0, e, r * e, r**2 * e, eta * e, eta**2 * e, phi * e, phi**2 * e)
                sums = {k: v + t for (k, v), t in zip(sums.items(), terms, strict=True)}
                index += 1
        energy = sums["e"] + 1e-16
        out["E_layer"].append(sums["e"])
        out["sparsity"].append(1 - sums["n"] / layer.num_voxels)
        for key, one, two in [("r", "r", "rr"), ("eta", "eta", "eta2"), ("phi", "phi", "phi2")]:
            if key != "r" and layer.num_alpha == 1:
                continue
            mean, square = sums[one] / energy, sums[two] / energy
            out.setdefault(f"EC_{key}", []).append(mean)
            out.setdefault(f"width_{key}", []).append(np.sqrt(max(0, square - mean**2)))
    return {key: np.asarray(value) for key, value in out.items()}


@pytest.fixture(scope="module")
def sample():
    return read_showers(sample_path(), DS2, 0, 40)


def dataset1_showers(g):
    rng = np.random.default_rng(1)
    voxels = rng.exponential(size=(5, g.num_voxels)) * (rng.random((5, g.num_voxels)) < 0.3)
    voxels[0] = 0
    voxels[1, g.layer_slices[2]] = 0
    return Showers(np.full(5, 1024.0), voxels.astype(np.float32))


@pytest.mark.parametrize("name", ["ds1-photons", "ds1-pions", "ds2"])
def test_observables_equal_a_brute_force_in_float64(name, sample):
    g = get_geometry(name)
    showers = sample if name == "ds2" else dataset1_showers(g)
    found = compute_observables(g, showers, batch_size=16)
    expected = [oracle(g, voxels) for voxels in showers.voxels[:10]]
    for key in expected[0]:
        wanted = np.stack([e[key] for e in expected])
        # The oracle's difference of squares is itself good to about sqrt(1e-15) * 40 mm.
        np.testing.assert_allclose(
            found[key][:10], wanted, rtol=3e-6, atol=3e-5, err_msg=key, strict=False
        )
    np.testing.assert_allclose(found["E_ratio"], found["E_tot"] / showers.energies, rtol=1e-6)
    assert ("depth" in found) == (name == "ds2")


def test_dataset1_has_eta_only_where_alpha_is_binned():
    found = compute_observables(
        get_geometry("ds1-pions"), dataset1_showers(get_geometry("ds1-pions"))
    )
    assert found["EC_eta"].shape == (5, 4)
    assert found["EC_r"].shape == (5, 7)
    assert not found["EC_r"][0].any()
    assert (found["sparsity"][0] == 1).all()


def test_one_voxel_shower_is_found_where_it_was_put():
    voxels = np.zeros(DS2.shape, np.float32)
    voxels[3, 12, 5] = 20.0  # alpha centre 2 pi (12.5 / 16) - pi = 9 pi / 16, r = 5.5 * 4.65 mm
    found = shower_observables(DS2, jnp.asarray(voxels.ravel()), jnp.float32(1000))
    r, alpha = 5.5 * 4.65, 9 * np.pi / 16
    layer = np.arange(45) == 3
    for key, value in [
        ("E_layer", 20),
        ("EC_r", r),
        ("EC_eta", r * np.cos(alpha)),
        ("EC_phi", r * np.sin(alpha)),
    ]:
        np.testing.assert_allclose(found[key], layer * value, rtol=1e-6, atol=1e-6)
    for key in ("width_eta", "width_phi", "width_r"):
        np.testing.assert_allclose(found[key], 0, atol=1e-5)
    np.testing.assert_allclose(found["sparsity"], 1 - layer / 144, rtol=1e-6)
    np.testing.assert_allclose(found["depth"], 3 * (np.arange(9) == 5))
    assert found["E_tot"] == 20
    np.testing.assert_allclose(found["E_ratio"], 0.02, rtol=1e-6)


def test_two_voxels_by_hand():
    voxels = np.zeros(DS2.shape, np.float32)
    voxels[0, 0, 0], voxels[0, 0, 2] = 3.0, 1.0  # r = 2.325 and 11.625 mm, 9.3 mm apart
    voxels[10, 4, 2] = 3.0
    found = shower_observables(DS2, jnp.asarray(voxels.ravel()), jnp.float32(100))
    np.testing.assert_allclose(found["EC_r"][0], 2.325 + 9.3 / 4, rtol=1e-6)
    np.testing.assert_allclose(found["width_r"][0], 9.3 * np.sqrt(3) / 4, rtol=1e-6)
    np.testing.assert_allclose(found["depth"], [0, 0, 7.5, 0, 0, 0, 0, 0, 0])


def test_widths_survive_float32():
    # Energy in the outermost ring and a 1e-4 share one bin further in: <r^2> - <r>^2 in float32
    # is off by far more than the width, the two-pass sum is not.
    voxels = np.zeros(DS2.shape, np.float32)
    voxels[0, 0, 8], voxels[0, 0, 7] = 1e4, 1e-1
    found = shower_observables(DS2, jnp.asarray(voxels.ravel()), jnp.float32(1e5))
    share = 1e-5 / (1 + 1e-5)
    np.testing.assert_allclose(found["width_r"][0], 4.65 * np.sqrt(share), rtol=1e-4)


def test_voxels_below_threshold_do_not_exist():
    voxels = np.zeros(6480, np.float32)
    voxels[0], voxels[1] = 0.01514, 0.01516
    found = shower_observables(DS2, jnp.asarray(voxels), jnp.float32(1000))
    np.testing.assert_allclose(found["E_tot"], 0.01516, rtol=1e-6)
    np.testing.assert_allclose(found["sparsity"][0], 1 - 1 / 144, rtol=1e-6)


def test_depth_is_the_mean_layer():
    voxels = np.zeros((4, 2, 3), np.float32)
    voxels[1, :, 0] = [2, 4]
    voxels[3, 1, 0] = 2
    voxels[2, 0, 2] = 5
    np.testing.assert_allclose(shower_depth(jnp.asarray(voxels)), [(6 + 6) / 8, 0, 2], rtol=1e-6)


def test_classifier_inputs_and_their_order(sample):
    found = compute_high_level_inputs(DS2, sample, batch_size=40)
    assert found.shape == (40, 362)
    o = compute_observables(DS2, sample)
    column = 0
    for block in [
        np.log10(sample.energies)[:, None],
        np.log10(o["E_layer"] + 1e-8),
        o["EC_eta"] / 100,
        o["EC_phi"] / 100,
        o["width_eta"] / 100,
        o["width_phi"] / 100,
        np.log10(o["E_tot"] + 1e-8)[:, None],
        o["sparsity"],
        o["EC_r"] / 100,
        o["width_r"] / 100,
    ]:
        columns = found[:, column : column + block.shape[1]]
        np.testing.assert_allclose(columns, block, rtol=1e-5, atol=1e-6)
        column += block.shape[1]
    assert column == 362


def test_empty_shower_has_finite_inputs():
    voxels, energy = jnp.zeros(6480), jnp.float32(1000)
    inputs = high_level_inputs(DS2, shower_observables(DS2, voxels, energy), energy)
    assert inputs[0] == 3
    np.testing.assert_allclose(inputs[1:46], -8, rtol=1e-6)
    np.testing.assert_allclose(inputs[227:272], 1)


def test_inputs_refuse_a_batch_of_features(sample):
    o = compute_observables(DS2, sample)
    with pytest.raises(ValueError, match=r"E_layer has shape \(40, 45\).*45 layers"):
        high_level_inputs(DS2, o, sample.energies)


def test_batches_do_not_change_the_result_and_compile_once(sample):
    before = _apply_batch._cache_size()
    found = compute_observables(DS2, sample, batch_size=12)
    assert _apply_batch._cache_size() == before + 1
    whole = compute_observables(DS2, sample, batch_size=1000)
    assert {v.shape[0] for v in found.values()} == {40}
    for key, value in whole.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-6, atol=1e-5)
    with pytest.raises(ValueError, match="batch_size must be a whole number from 1 to .*, got 0"):
        compute_observables(DS2, sample, batch_size=0)
    with pytest.raises(ValueError, match="6480 voxels per shower, but geometry 'ds3'"):
        compute_observables(get_geometry("ds3"), sample)


def test_official_bins():
    ratio = official_binning(DS2, "E_ratio")
    assert (len(ratio), ratio[0], ratio[-1]) == (101, 0.5, 1.5)
    assert len(official_binning(DS2, "sparsity")) == 21
    assert official_binning(DS2, "EC_r")[-1] == 42
    layer = official_binning(DS2, "E_layer", reference=np.array([0.0, 151.5]))
    assert len(layer) == 40
    np.testing.assert_allclose(layer[[0, -1]], [15.15e-3, 151.5])
    np.testing.assert_allclose(layer[1:] / layer[:-1], 1e4 ** (1 / 39))
    assert len(official_binning(DS2, "voxel", reference=np.array([[3.0]]))) == 50
    pions = get_geometry("ds1-pions")
    assert official_binning(pions, "EC_eta", layer_id=12)[0] == -500
    assert official_binning(pions, "EC_phi", layer_id=2)[0] == -100
    assert official_binning(pions, "width_phi", layer_id=13)[-1] == 400
    assert official_binning(pions, "E_layer", reference=np.array([1e3]))[0] == 10


@pytest.mark.parametrize(
    ("name", "arguments", "match"),
    [
        ("E_tot", {}, "no official binning of 'E_tot'.*'E_ratio'"),
        ("depth", {}, "no official binning"),
        ("E_layer", {}, "pass reference energies"),
        ("voxel", {"reference": np.array([0.001])}, "which is 0.001"),
        ("voxel", {"reference": np.array([])}, "which is -inf"),
    ],
)
def test_bad_binning_requests(name, arguments, match):
    with pytest.raises(ValueError, match=match):
        official_binning(DS2, name, **arguments)


def test_dataset1_binning_needs_a_layer_and_has_no_radial_ranges():
    with pytest.raises(ValueError, match="pass layer_id"):
        official_binning(get_geometry("ds1-photons"), "EC_eta")
    with pytest.raises(ValueError, match="no official binning of 'EC_r'"):
        official_binning(get_geometry("ds1-photons"), "EC_r")


def test_observables_of_layer_energies_by_hand():
    layers = np.array([[1.0, 0, 3, 0], [0, 2, 0, 0], [0, 0, 0, 0]])
    found = layer_observables(layers, np.array([8.0, 4.0, 1.0]))
    np.testing.assert_allclose(found["E_ratio"], [0.5, 0.5, 0])
    np.testing.assert_allclose(found["depth"], [1.5, 1, 0])
    np.testing.assert_allclose(found["length"], [0.75**0.5, 0, 0], atol=1e-12)


def test_one_shower_does_not_set_the_bins_of_an_uncalibrated_response():
    response = np.random.default_rng(0).normal(0.03, 0.002, 5000)
    response[7] = 1e3
    edges = binning(DS2, "E_tot", response)
    assert 0.02 < edges[0] < np.sort(response)[5] < np.sort(response)[-6] < edges[-1] < 0.04
    assert len(binning(DS2, "E_tot", np.full(9, 0.03))) == 101
