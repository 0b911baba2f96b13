"""The study of integrals: its cross-sections by other quadratures, and a short run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from experiments.inference import integrands, integration
from jgen.physics import two_body_volume


def test_the_top_total_is_that_of_an_adaptive_quadrature(x64):
    """Of the differential cross-section in all three variables, in the cube of either mapping."""
    assert integrands.top_total(100) == pytest.approx(integrands.top_total(200), rel=1e-9)
    for mapping in (integrands.central(), integrands.forward()):
        value = jax.jit(jax.vmap(integrands._in_cube(integrands.top_integrand, mapping)))
        nodes, weights = np.polynomial.legendre.leggauss(48)
        half, step = (nodes + 1) / 2, weights / 2
        # The first variable squared, for the root at the threshold.
        u = np.stack(np.meshgrid(half**2, half, half, indexing="ij"), -1).reshape(-1, 3)
        measure = np.einsum("i,j,k->ijk", 2 * half * step, step, step).ravel()
        found = np.sum(np.asarray(value(u)) * measure)
        assert found == pytest.approx(integrands.top_total(), rel=1e-5)


@pytest.mark.parametrize("make", [integrands.central, integrands.forward])
def test_mappings_have_the_jacobian_s_determinant_and_an_inverse(x64, make):
    mapping = make()
    u = jax.random.uniform(jax.random.key(0), (50, 3))

    def both(u):
        x, log_det = mapping.inverse(u, None)
        back, inverse_log_det = mapping.forward(x, None)
        jacobian = jax.jacfwd(lambda u: mapping.inverse(u, None)[0])(u)
        return back, log_det, inverse_log_det, jnp.linalg.slogdet(jacobian)[1]

    back, log_det, inverse_log_det, exact = jax.jit(jax.vmap(both))(u)
    np.testing.assert_allclose(back, u, atol=1e-9)
    np.testing.assert_allclose(log_det, exact, atol=1e-9)
    np.testing.assert_allclose(inverse_log_det, -exact, atol=1e-9)


def test_the_muon_integrand_adds_up_to_the_total(x64):
    muons = integrands.target("muons")
    total = integrate.quad(lambda c: float(muons.integrand(jnp.array([c, 0.0]))), -1, 1)[0]
    assert 2 * np.pi * total == pytest.approx(muons.exact, rel=1e-8)
    assert two_body_volume(189.0) == pytest.approx(1 / (8 * np.pi))
    # The box of the mapping is 4 pi large.
    assert muons.in_cube(jnp.array([0.5, 0.5])) == pytest.approx(
        4 * np.pi * float(muons.integrand(jnp.array([0.0, 1.0])))
    )


def test_pulls_and_what_a_normal_distribution_says_of_them():
    rng = np.random.default_rng(0)
    weights = (rng.gamma(2, 1, 40_000), rng.gamma(2, 1, 20_000))
    pulls = integration.pulls_of(weights, 4.0, 200)
    found = integration.pull_metrics(pulls)
    assert abs(found["mean"].value) < 3 * found["mean"].error
    assert abs(found["width"].value - 1) < 3 * found["width"].error
    assert found["normal"] > 0.01
    assert found["tail"] == pytest.approx(1 - (1 - 2 * stats.norm.sf(np.abs(pulls).max())) ** 200)
    assert integration.pull_metrics(np.append(pulls, 7.0))["tail"] < 1e-6
    assert integration.pull_metrics(2 * pulls)["normal"] < 0.01


def test_bad_options_are_refused():
    for options, said in (
        ({"targets": ("camel-4", "camel-4")}, "targets must be different ones"),
        ({"repetitions": 2}, "repetitions must be at least 3"),
        ({"low": dataclasses.replace(integration.SMOKE.low, ensemble=2)}, "one flow"),
    ):
        with pytest.raises(ValueError, match=said):
            integration.check(dataclasses.replace(integration.SMOKE, **options))


@pytest.mark.study
def test_a_short_training_is_right_and_better_than_flat_points(command, tmp_path):
    metrics = command(
        "integration", "--out", tmp_path / "run", "--targets", "top-channels", "camel-2",
        "--low.steps", 300, "--low.batch-size", 256, "--num", 1000,
    )  # fmt: skip
    for name in ("top-channels", "camel-2"):
        value, error, exact = (metrics[f"{name}/integral{end}"] for end in ("", "_error", "_truth"))
        assert abs(value - exact) < 4 * error
        assert metrics[f"{name}/deviation/flow"] < 0.6 * metrics[f"{name}/deviation/flat"]
        assert metrics[f"{name}/ess"] > 0.4  # 300 steps are few
