"""The map of events: back and forth, its determinant, its scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import load, save
from jgen.events import (
    UNIT,
    event_base,
    event_map,
    finite_events,
    fit_coordinates,
    log_jacobian,
    read_events,
    to_coordinates,
    to_events,
)

vector = pytest.importorskip("vector")


@pytest.fixture(scope="module")
def events():
    return read_events()[:400].astype(float)


@pytest.fixture(scope="module")
def coordinates(events):
    return fit_coordinates(events)


def test_coordinates_are_the_known_ones(events, coordinates):
    z = to_coordinates(coordinates, events)
    assert z.dtype == np.float32
    np.testing.assert_allclose(z[..., (0, 3)].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(z[..., (0, 3)].std(axis=0), 1, rtol=1e-5)
    p = vector.array(dict(zip(("E", "px", "py", "pz"), np.moveaxis(events, -1, 0), strict=True)))
    np.testing.assert_allclose(z[..., 1], p.phi, atol=1e-6)
    np.testing.assert_allclose(z[..., 2], p.eta, atol=1e-6)
    logs = z[..., (0, 3)] * coordinates.std + coordinates.mean
    np.testing.assert_allclose(logs[..., 0], np.log((p.pt - 22) / UNIT + 1e-5), atol=1e-5)
    square = np.maximum(p.tau2, 0) / UNIT**2
    np.testing.assert_allclose(logs[..., 1], np.log(square + 1e-5), atol=2e-4)


def test_events_come_back(events, coordinates):
    back = to_events(coordinates, to_coordinates(coordinates, events))
    np.testing.assert_allclose(back, events, atol=1e-5 * events[..., :1].max())
    mass2 = lambda p: p[..., 0] ** 2 - (p[..., 1:] ** 2).sum(axis=-1)
    np.testing.assert_allclose(mass2(back), np.maximum(mass2(events), 0), rtol=2e-5, atol=0.02)


def test_coordinates_are_kept_in_a_file(tmp_path, events, coordinates):
    save(tmp_path / "coordinates.npz", coordinates)
    back = load(tmp_path / "coordinates.npz")
    np.testing.assert_array_equal(to_coordinates(back, events), to_coordinates(coordinates, events))
    assert back.edges == coordinates.edges


def test_the_map_of_one_event_has_its_determinant(x64, events, coordinates):
    bijector = event_map(coordinates)
    x = jnp.asarray(events[0])
    z, log_det = bijector.forward(x, None)
    np.testing.assert_allclose(z, to_coordinates(coordinates, events[:1])[0], atol=1e-5)
    full = jax.jacfwd(lambda x: bijector.forward(x, None)[0])(x).reshape(24, 24)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(full)[1], rtol=1e-10)
    known = log_jacobian(coordinates, events[:2])
    np.testing.assert_allclose(known[0], log_det + 24 * np.log(UNIT), rtol=1e-6)
    back, inverse = bijector.inverse(z, None)
    np.testing.assert_allclose(back, x, rtol=1e-9)
    np.testing.assert_allclose(inverse, -log_det, rtol=1e-9)


def test_single_precision_is_double_inside(events, coordinates):
    bijector = event_map(coordinates)
    x = events[:20].astype(np.float32)
    z, log_det = jax.jit(jax.vmap(lambda x: bijector.forward(x, None)))(x)
    assert z.dtype == log_det.dtype == np.float32
    np.testing.assert_allclose(z, to_coordinates(coordinates, x), rtol=1e-5, atol=1e-5)
    back, _ = jax.jit(jax.vmap(lambda z: bijector.inverse(z, None)))(z)
    np.testing.assert_allclose(back, x, rtol=1e-4, atol=1e-3)


def test_light_particles_and_low_ones_have_a_known_density(events, coordinates):
    """A mass that rounding made imaginary counts as none; below the cut there is no density."""
    bijector = event_map(coordinates)
    light = np.array(events[:4])
    light[:, 1, 0] = np.linalg.norm(light[:, 1, 1:], axis=1) * (1 - 1e-8)
    with jax.enable_x64(True):
        z, log_det = jax.vmap(lambda x: bijector.forward(x, None))(jnp.asarray(light))
        known = log_jacobian(coordinates, light) - 24 * np.log(UNIT)
        np.testing.assert_allclose(log_det, known, rtol=1e-6)
        np.testing.assert_allclose(z, to_coordinates(coordinates, light), atol=1e-4)
    low = np.array(events[0], np.float32)
    low[2] *= 21 / np.hypot(low[2, 1], low[2, 2])
    z, log_det = bijector.forward(jnp.asarray(low), None)
    assert np.isfinite(z).all()
    assert log_det == -np.inf


def test_what_does_not_fit_is_refused(events, coordinates):
    z = to_coordinates(coordinates, events)
    with pytest.raises(ValueError, match=r"\[num, 6, 4\]"):
        to_coordinates(coordinates, events[:, :5])
    with pytest.raises(ValueError, match=r"\[num, 6, 4\]"):
        to_events(coordinates, z[:, :5])
    with pytest.raises(ValueError, match="below the cut of 30 GeV"):
        fit_coordinates(events, 30.0)
    with pytest.raises(ValueError, match="1 of 400 events have momenta that are not finite"):
        to_events(coordinates, np.where(np.arange(400)[:, None, None] == 3, 1e4, z))
    # Infinite, and too large for single precision.
    for eta in (1e4, 100.0):
        one = np.arange(400)[:, None] == 3
        far = np.concatenate([z[..., :2], np.where(one, eta, z[..., 2])[..., None], z[..., 3:]], -1)
        kept, finite = finite_events(coordinates, far)
        assert list(np.flatnonzero(~finite)) == [3]
        assert np.isfinite(kept.astype(np.float32)).all()
    np.testing.assert_array_equal(kept[:4], to_events(coordinates, z)[[0, 1, 2, 4]])
    with pytest.raises(ValueError, match="must differ"):
        fit_coordinates(np.repeat(events[:1], 5, axis=0))
    # A mass of rounding is none.
    light = events.copy()
    light[..., 0] = np.linalg.norm(light[..., 1:], axis=-1) * (1 - 1e-8)
    flat = to_events(coordinates, to_coordinates(coordinates, light))
    np.testing.assert_allclose(flat, light, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mean": np.zeros((6, 3))}, r"\[n, 2\], got the shapes \(6, 3\)"),
        ({"std": np.ones((5, 2))}, r"\[n, 2\].*\(5, 2\)"),
        ({"mean": np.zeros(6)}, "2 axes"),
        ({"std": np.zeros((6, 2))}, "must be positive, got 0"),
        ({"mean": np.full((6, 2), np.nan)}, "finite"),
        ({"min_pt": -1.0}, "min_pt"),
        ({"edges": (0.0, 0.0)}, "standard deviation of edges"),
        ({"edges": (0.0,)}, r"edges.*\(1,\)"),
        ({"peaks": np.zeros((4, 2))}, r"positive centres and widths \[4, 2\]"),
        ({"recoil": 0.0}, "recoil"),
    ],
)
def test_coordinates_made_by_hand_are_checked(events, coordinates, change, said):
    wrong = coordinates._replace(**change)
    z = to_coordinates(coordinates, events)
    uses = (event_map, event_base, lambda c: to_coordinates(c, events), lambda c: to_events(c, z))
    for use in uses:
        with pytest.raises(ValueError, match=said):
            use(wrong)
