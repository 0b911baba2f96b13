import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.showers.calodream.preprocessing import (
    Fractions,
    ShowerPreprocessing,
    Statistics,
    fit_statistics,
    from_fractions,
    inverse_logit,
    logit,
    to_fractions,
)
from jgen.showers.data.geometry import get_geometry
from jgen.showers.data.hdf5 import Showers, read_showers, sample_path

DS2 = get_geometry("ds2")
SHAPE = DS2.shape


@pytest.fixture(scope="module")
def sample():
    return read_showers(sample_path(), DS2, 0, 60)


@pytest.fixture(scope="module")
def preprocessing(sample):
    return ShowerPreprocessing(DS2, fit_statistics([sample], DS2), 1e3, 3e4)


def blocks(showers, dtype=np.float64):
    return showers.voxels.reshape(-1, *SHAPE).astype(dtype), showers.energies.astype(dtype)


def awkward_showers():
    """Empty shower; only the first layer; only the last; gaps; one voxel in every layer."""
    voxels = np.zeros((5, *SHAPE))
    voxels[1, 0, 2, 1], voxels[1, 0, 3, 4] = 500.0, 0.02
    voxels[2, 44, 15, 8] = 3.0
    voxels[3, 5, :, 2], voxels[3, 30, 4, 4], voxels[3, 31, 0, 0] = 7.0, 100.0, 0.1
    voxels[4, :, 7, 3] = np.geomspace(1e-2, 1e2, 45)
    return voxels, np.array([1e3, 1e3, 5e3, 3e4, 2e3])


def test_ratios_of_a_shower_by_hand():
    voxels = np.zeros((4, 2, 1))
    voxels[0, 0], voxels[1, :, 0], voxels[2, 1] = 6, [1, 2], 1  # layers 6, 3, 1, 0 MeV
    f = to_fractions(voxels, np.asarray(20.0), factor=0.5)
    np.testing.assert_allclose(f.u, [0.25, 0.6, 0.75, 1.0], rtol=1e-15)
    np.testing.assert_allclose(f.u_complement, [0.75, 0.4, 0.25, 0.0], rtol=1e-15)
    np.testing.assert_allclose(f.x[:, :, 0], [[1, 0], [1 / 3, 2 / 3], [0, 1], [0, 0]])
    np.testing.assert_allclose(from_fractions(f, np.asarray(20.0), 0.5), voxels, rtol=1e-15)


def test_logit_values():
    x = np.array([1.0, 0.0, 0.5, 0.25])
    z = logit(x, 1 - x, 1e-6)
    np.testing.assert_allclose(
        z, [13.81550955796433, -13.81550955796433, 0, np.log(0.2500005 / 0.7499995)], rtol=1e-13
    )
    back, complement = inverse_logit(z, 1e-6)
    np.testing.assert_allclose(back, x, atol=1e-15)
    np.testing.assert_allclose(complement, 1 - x, atol=1e-15)


def test_logit_is_accurate_at_both_ends_in_float32():
    x = jnp.asarray([0.0, 1e-7, 1.0], jnp.float32)
    z = logit(x, 1 - x, 1e-6)
    exact = logit(np.array([0.0, 1e-7, 1.0]), np.array([1.0, 1 - 1e-7, 0.0]), 1e-6)
    np.testing.assert_allclose(z, exact, rtol=2e-7)
    # 1 - x is returned beside x because it cannot be had from it near 1.
    tiny = inverse_logit(jnp.float32(exact[2]), 1e-6)[1]
    assert abs(tiny) < 2e-12


def test_decode_inverts_encode_on_geant4(sample, preprocessing):
    voxels, energies = blocks(sample)
    u, x, condition = preprocessing.encode(voxels, energies)
    decoded = preprocessing.decode(u, x, energies)
    assert np.max(np.abs(decoded - voxels) / energies[:, None, None, None]) < 1e-12
    np.testing.assert_array_equal(decoded > 0, voxels > 0)
    assert (u.shape, x.shape, condition.shape) == ((60, 45), (60, *SHAPE), (60,))
    np.testing.assert_allclose(condition, np.log(energies / 1e3) / np.log(30), rtol=1e-12)


def test_decode_inverts_encode_for_empty_layers_and_showers(preprocessing):
    voxels, energies = awkward_showers()
    u, x, _ = preprocessing.encode(voxels, energies)
    assert np.isfinite(u).all()
    assert np.isfinite(x).all()
    decoded = preprocessing.decode(u, x, energies)
    assert np.max(np.abs(decoded - voxels) / energies[:, None, None, None]) < 1e-12
    np.testing.assert_array_equal(decoded > 0, voxels > 0)
    np.testing.assert_allclose(
        preprocessing.layer_energies(u, energies), voxels.sum((2, 3)), atol=1e-9, rtol=1e-12
    )
    np.testing.assert_allclose(preprocessing.ratios(u)[1, :3], [0.35 * 0.50002, 1, 0], atol=1e-14)


def test_encoded_training_set_is_standardised(sample, preprocessing):
    u, x, _ = preprocessing.encode(*blocks(sample))
    np.testing.assert_allclose(u.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(u.std(axis=0, ddof=1), 1, rtol=1e-12)
    varies = np.ptp(blocks(sample)[0], axis=0) > 0
    np.testing.assert_allclose(x.std(axis=0, ddof=1)[varies], 1, rtol=1e-10)
    assert not varies.all()
    assert (x[:, ~varies] == 0).all()
    assert (preprocessing.statistics.voxel_std[~varies] == 1).all()


def test_float32_decode_under_vmap_agrees_with_float64(sample, preprocessing):
    voxels, energies = blocks(sample)
    more, more_energies = awkward_showers()
    voxels, energies = np.concatenate([voxels, more]), np.concatenate([energies, more_energies])
    u, x, _ = preprocessing.encode(voxels, energies)
    arguments = [jnp.asarray(a, jnp.float32) for a in (u, x, energies)]
    one_by_one = jax.jit(jax.vmap(preprocessing.decode))(*arguments)
    batched = jax.jit(preprocessing.decode)(*arguments)
    assert one_by_one.dtype == jnp.float32
    np.testing.assert_allclose(one_by_one, batched, rtol=1e-5, atol=1e-3)
    # Float32 numbers of size 14 resolve 1e-6, which an exponential turns into relative 1e-6.
    scale = energies[:, None, None, None]
    assert np.max(np.abs(one_by_one - voxels) / scale) < 1e-6
    np.testing.assert_array_equal(one_by_one > 0, voxels > 0)
    np.testing.assert_allclose(one_by_one.sum((1, 2, 3)), voxels.sum((1, 2, 3)), rtol=3e-6)


def test_float32_encode_is_near_float64(sample, preprocessing):
    voxels, energies = blocks(sample)
    exact = preprocessing.encode(voxels, energies)
    found = jax.jit(jax.vmap(preprocessing.encode))(
        jnp.asarray(voxels, jnp.float32), jnp.asarray(energies, jnp.float32)
    )
    for a, b in zip(found, exact, strict=True):
        assert a.dtype == jnp.float32
        # A fraction within one float32 step, 6e-8, of 1 moves its logit by up to 6e-8 / alpha.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=0.07)
        assert np.mean(np.abs(a - b) < 1e-3 + 1e-4 * np.abs(b)) > 0.999


def test_any_network_output_decodes_to_a_shower_of_the_asked_energy(preprocessing):
    rng = np.random.default_rng(0)
    u, x = rng.normal(size=(8, 45)), 3 * rng.normal(size=(8, *SHAPE))
    x[0, 7] = -1e3  # every voxel of the layer at or below the cut
    u[1, 0] = -1e3  # no energy at all
    energies = np.full(8, 1e4)
    voxels = preprocessing.decode(u, x, energies)
    assert (voxels >= 0).all()
    assert not voxels[0, 7].any()
    total = energies * preprocessing.ratios(u)[:, 0] / 0.35
    np.testing.assert_allclose(voxels.sum((1, 2, 3)), total, rtol=1e-12)
    assert not voxels[1].any()
    layers = preprocessing.layer_energies(u, energies)
    np.testing.assert_allclose(voxels[2:].sum((2, 3)), layers[2:], rtol=1e-10, atol=1e-12)
    # The lost layer's energy went to the others in proportion.
    others = np.arange(45) != 7
    gain = layers[0].sum() / layers[0][others].sum()
    assert gain > 1.01
    np.testing.assert_allclose(voxels[0].sum((1, 2))[others], gain * layers[0][others], rtol=1e-10)


def test_voxels_up_to_the_cut_are_removed():
    zero, one = np.zeros(45), np.ones(45)
    statistics = Statistics(zero, one, np.zeros(SHAPE), np.ones(SHAPE))
    p = ShowerPreprocessing(DS2, statistics, 1e3, 1e6)
    fraction = np.full(SHAPE, 1.0)
    fraction[:, 0, 0], fraction[:, 0, 1] = 0.9e-7, 1.1e-7
    voxels = p.decode(zero, logit(fraction, 1 - fraction, 1e-6), np.asarray(1e5))
    assert not voxels[:, 0, 0].any()
    assert (voxels[:, 0, 1] > 0).all()


def test_statistics_of_chunks_equal_those_of_the_whole(sample):
    chunks = [Showers(*(a[i : i + 7] for a in sample)) for i in range(0, 60, 7)]
    for standardise in ("voxel", "global"):
        whole = fit_statistics([sample], DS2, standardise=standardise)
        merged = fit_statistics(iter(chunks), DS2, standardise=standardise)
        for a, b in zip(merged, whole, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)
    voxels, energies = blocks(sample)
    x = to_fractions(voxels, energies, 0.35).x
    z = logit(x, 1 - x, 1e-6)[x > 0]
    np.testing.assert_allclose(whole.voxel_mean, z.mean(), rtol=1e-12)
    np.testing.assert_allclose(whole.voxel_std, z.std(ddof=1), rtol=1e-12)


def test_global_statistics_keep_the_rotational_symmetry(sample):
    p = ShowerPreprocessing(DS2, fit_statistics([sample], DS2, standardise="global"), 1e3, 3e4)
    voxels, energies = blocks(sample)
    turned = p.encode(np.roll(voxels, 5, axis=2), energies)[1]
    np.testing.assert_allclose(turned, np.roll(p.encode(voxels, energies)[1], 5, axis=2))


def test_bad_input_is_refused(sample, preprocessing):
    one = Showers(*(a[:1] for a in sample))
    with pytest.raises(ValueError, match="at least two showers"):
        fit_statistics([one], DS2)
    with pytest.raises(ValueError, match="at least two showers"):
        fit_statistics([], DS2)
    with pytest.raises(ValueError, match=r"E_tot/E_inc = .*more than 1/factor = 2.86"):
        fit_statistics([Showers(sample.energies, 4 * sample.voxels)], DS2)
    with pytest.raises(ValueError, match="'voxel' or 'global', got 'none'"):
        fit_statistics([sample], DS2, standardise="none")
    with pytest.raises(ValueError, match="not a regular grid"):
        fit_statistics([sample], get_geometry("ds1-pions"))
    with pytest.raises(ValueError, match="do not fit geometry 'ds3'"):
        dataclasses.replace(preprocessing, geometry=get_geometry("ds3"))
    with pytest.raises(ValueError, match="0 < energy_min < energy_max"):
        dataclasses.replace(preprocessing, energy_min=1e5)
    with pytest.raises(ValueError, match="0 < alpha < 0.5"):
        dataclasses.replace(preprocessing, alpha=0.0)
    with pytest.raises(ValueError, match=r"voxels ends in the axes \(60, 6480\).*reshape"):
        preprocessing.encode(sample.voxels, sample.energies)
    with pytest.raises(ValueError, match=r"u ends in the axes \(44,\)"):
        preprocessing.decode(np.zeros((2, 44)), np.zeros((2, *SHAPE)), np.ones(2))


def test_unnormalised_voxels_are_fine():
    voxels, energies = awkward_showers()
    f = to_fractions(voxels, energies, 0.35)
    scaled = from_fractions(Fractions(f.u, f.u_complement, 17 * f.x), energies, 0.35)
    np.testing.assert_allclose(scaled, voxels, rtol=1e-12, atol=1e-9)


def test_the_end_of_a_shower_survives_float32(preprocessing):
    voxels = np.zeros(SHAPE, np.float32)
    voxels[0, 0, 0], voxels[1, 0, 0] = 1e4, 1.3e-2  # u_1 = 1 - 1.3e-6
    f = to_fractions(jnp.asarray(voxels), jnp.float32(1e4), 0.35)
    assert f.u.dtype == jnp.float32
    np.testing.assert_allclose(f.u_complement[1], 1.3e-6 / (1 + 1.3e-6), rtol=1e-6)
    exact = -np.log((1.3e-6 + 1e-6) / (1 - 2.3e-6))
    np.testing.assert_allclose(logit(f.u, f.u_complement, 1e-6)[1], exact, rtol=1e-6)
    # Decoded through u alone, layer 1 keeps its energy, and none is left for layer 2 on.
    u, _, _ = preprocessing.encode(voxels.astype(np.float64), np.asarray(1e4))
    layers = preprocessing.layer_energies(jnp.asarray(u, jnp.float32), jnp.float32(1e4))
    np.testing.assert_allclose(layers[1], 1.3e-2, rtol=1e-4)
    assert layers[2:].sum() < 1e-7


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_of_the_input_is_kept(sample, preprocessing, dtype):
    encoded = preprocessing.encode(*blocks(sample, dtype))
    assert {a.dtype for a in encoded} == {np.dtype(dtype)}
    assert preprocessing.decode(*encoded[:2], blocks(sample, dtype)[1]).dtype == dtype
