"""Matrix elements against totals in closed form, crossing and the limits of textbooks."""

import numpy as np
import pytest
from scipy import integrate

from jgen.physics import (
    GEV2_TO_PB,
    ElectroweakParameters,
    gluons_to_top,
    muon_pair,
    muon_pair_cross_section,
    quarks_to_top,
    top_cross_sections,
    toy_parton_density,
    two_body_volume,
)


def total(square, s, masses=(0.0, 0.0)):
    """Mean over the angle, times phase space, over the flux 2 s."""
    mean = integrate.quad(lambda c: float(square(s, c)) / 2, -1, 1, epsrel=1e-10)[0]
    return mean * two_body_volume(s**0.5, masses) / (2 * s)


def test_muon_pairs(x64):
    for energy in (20.0, 91.1876, 189.0):
        exact = muon_pair_cross_section(energy**2)
        assert total(muon_pair, energy**2) == pytest.approx(exact, rel=1e-9)
    # Below the Z it is 86.8 nb / s; on it, 12 pi Gamma_e Gamma_mu / (m Gamma)^2 of the widths.
    low = ElectroweakParameters(alpha=1 / 137.036)
    assert muon_pair_cross_section(100.0, low) * GEV2_TO_PB == pytest.approx(868.6, rel=2e-3)
    p = ElectroweakParameters()
    axial, vector = 0.5, 0.5 - 2 * p.sin2_theta
    width = p.alpha * p.z_mass / (12 * p.sin2_theta * (1 - p.sin2_theta)) * (axial**2 + vector**2)
    peak = 12 * np.pi * width**2 / (p.z_mass * p.z_width) ** 2
    photon = 4 * np.pi * p.alpha**2 / (3 * p.z_mass**2)
    assert muon_pair_cross_section(p.z_mass**2) == pytest.approx(peak + photon, rel=1e-12)
    # Forward-backward asymmetry on the peak: 3/4 A_e^2 but for the photon's share.
    forward, backward = (
        integrate.quad(lambda c: float(muon_pair(p.z_mass**2, c)), *ends)[0]
        for ends in ((0, 1), (-1, 0))
    )
    asymmetry = 2 * axial * vector / (axial**2 + vector**2)
    exact = 0.75 * asymmetry**2 * peak / (peak + photon)
    assert (forward - backward) / (forward + backward) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("ratio", [1.02, 2.0, 30.0])
def test_top_pairs_add_up_to_the_totals_in_closed_form(x64, ratio):
    mass = 172.5
    s = 4 * mass**2 * ratio
    exact = top_cross_sections(np.array(s), mass)
    for square, expected in zip((quarks_to_top, gluons_to_top), exact, strict=True):
        assert total(square, s, (mass, mass)) == pytest.approx(float(expected), rel=1e-8)


def test_top_pairs_are_symmetric_and_massless_limits_are_those_of_light_quarks(x64):
    """q q' -> q q' crossed: 4/9 (t^2 + u^2) / s^2; g g: (1/(6tu) - 3/(8 s^2)) (t^2 + u^2)."""
    s, c, mass = 1e6, np.linspace(-0.9, 0.9, 7), 1e-3
    t, u = -0.5 * s * (1 - c), -0.5 * s * (1 + c)
    coupling = (4 * np.pi * 0.118) ** 2
    expected = coupling * 4 / 9 * (t**2 + u**2) / s**2
    np.testing.assert_allclose(quarks_to_top(s, c, mass), expected, rtol=1e-8)
    expected = coupling * (1 / (6 * t * u) - 3 / (8 * s**2)) * (t**2 + u**2)
    np.testing.assert_allclose(gluons_to_top(s, c, mass), expected, rtol=1e-8)
    for square in (quarks_to_top, gluons_to_top):
        np.testing.assert_allclose(square(s, c), square(s, -c), rtol=1e-12)
    assert np.all(np.array(top_cross_sections(np.array(100.0))) == 0)


def test_toy_parton_density(x64):
    x = np.array([-0.1, 0.0, 0.04, 0.25, 1.0, 1.1])
    expected = [0, 0, 125 * 0.96**4, 8 * 0.75**4, 0, 0]
    np.testing.assert_allclose(toy_parton_density(x), expected, rtol=1e-12)
