"""The pT and mass of a jet as a condition, and what a generated one misses of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.jets import (
    jet_kinematics,
    missed_whole,
    point_map,
    read_jets,
    sample_jets_path,
    whole_jet,
    whole_jets,
    whole_map,
)
from jgen.sets import SetCondition

JETS = read_jets(sample_jets_path()).leading(30).take(np.arange(0, 4000, 20))
POINTS = point_map(JETS.points, JETS.n)
WHOLE = whole_map(JETS.points)


def asked(points, n):
    """The condition of jets that shall be as they are, behind a number of something else."""
    numbers = np.asarray(jax.vmap(WHOLE.forward)(whole_jets(points))[0])
    return SetCondition(n, np.column_stack([np.ones(len(n)), numbers]).astype(np.float32))


def test_pt_and_mass_in_closed_form():
    """Two massless points of equal pT, an angle a apart in phi: pT cos(a/2), mass sin(a/2)."""
    half = np.array([0.1, 0.3])
    points = np.array([[[0, s * a, 0.5] for s in (-1, 1)] for a in half], np.float32)
    expected = np.log(np.stack([np.cos(half), np.sin(half)], axis=1))
    np.testing.assert_allclose(whole_jets(points), expected, atol=1e-5)
    np.testing.assert_allclose(whole_jets(points[:1, :1]), np.log([[0.5, 1e-3]]), atol=1e-6)


def test_scaled_numbers_have_mean_zero_and_width_one():
    scaled = asked(JETS.points, JETS.n).cond[:, 1:]
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-4)


@pytest.mark.parametrize("same", ["pT", "mass"])
def test_jets_of_the_same_pt_or_mass_are_refused(same):
    """To rounding, as jets turned about the beam are; widths would be those of rounding."""
    points = np.repeat(JETS.points[:1], 20, axis=0)
    points[:, :, 1] += np.linspace(-0.5, 0.5, 20)[:, None]
    if same == "mass":
        points = points[:, :1] * np.linspace(1, 2, 20)[:, None, None]  # of one point each: none
    with pytest.raises(ValueError, match="cannot be asked of a jet; give jets that differ"):
        whole_map(points)


def test_a_true_jet_misses_nothing_and_another_one_the_difference():
    cond = asked(JETS.points, JETS.n)
    z = jax.vmap(POINTS.forward)(JETS.points, cond)[0]
    missed = jax.vmap(missed_whole(POINTS, WHOLE))
    np.testing.assert_allclose(missed(z, cond), 0, atol=2e-3)
    # All pT twice as large: the mass, too.
    double = jax.vmap(POINTS.forward)(JETS.points * np.array([1, 1, 2], np.float32), cond)[0]
    expected = np.log(2) / whole_jets(JETS.points).std(axis=0)
    np.testing.assert_allclose(missed(double, cond), np.tile(expected, (len(z), 1)), atol=5e-3)
    # What is in padded rows changes nothing.
    padded = np.where(np.arange(30)[:, None] < JETS.n[:, None, None], z, np.float32(7))
    np.testing.assert_allclose(missed(padded, cond), 0, atol=2e-3)


@pytest.mark.parametrize("n", [0, 1, 2, 30])
def test_slopes_are_finite_where_there_is_no_mass(n):
    """None, one point, two in one place, and noise far from any jet."""
    missed = missed_whole(POINTS, WHOLE)
    cond = SetCondition(jnp.int32(n), jnp.zeros(2))
    events = jnp.zeros((30, 3)), jnp.full((30, 3), 50.0), jnp.full((30, 3), -50.0)
    for z in events:
        slopes = jax.jacrev(missed)(z, cond)
        assert np.isfinite(slopes).all()
        assert (slopes[:, n:] == 0).all()


def test_slopes_of_whole_jets_are_those_of_differences():
    points = jnp.asarray(JETS.points[0])
    slopes = jax.jacfwd(whole_jet)(points)
    np.testing.assert_allclose(slopes, jax.jacrev(whole_jet)(points), rtol=1e-3, atol=1e-4)
    with jax.enable_x64(True):
        exact, step = points.astype(jnp.float64), 1e-6
        for i, j in ((0, 0), (1, 1), (2, 2)):
            ends = [whole_jet(exact.at[i, j].add(s * step)) for s in (-1, 1)]
            np.testing.assert_allclose(
                slopes[:, i, j], (ends[1] - ends[0]) / (2 * step), rtol=1e-2, atol=1e-3
            )


def test_kinematics_of_nothing_have_no_slope():
    for points in (jnp.zeros((3, 3)), jnp.zeros((3, 3)).at[0].set(jnp.array([0.3, -0.2, 0.5]))):
        assert np.isfinite(jax.jacrev(jet_kinematics)(points)).all()


@pytest.mark.parametrize(
    "cond",
    [None, jnp.zeros(3), SetCondition(jnp.int32(3)), SetCondition(jnp.int32(3), jnp.ones(1))],
)
@pytest.mark.filterwarnings("error")
def test_a_condition_without_pt_and_mass_is_refused(cond):
    with pytest.raises(ValueError, match="whose last two numbers are log pT and log mass"):
        missed_whole(POINTS, WHOLE)(jnp.zeros((30, 3)), cond)
