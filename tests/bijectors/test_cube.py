"""Maps of the unit cube: what they do to events, and what is refused on a bounded base."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.bijectors import (
    Element,
    additive,
    affine,
    autoregressive_flow,
    compose,
    coupling,
    coupling_flow,
    cube_flow,
    flip,
    grid,
    inverted,
    rational_quadratic,
    repeated,
)
from jgen.bijectors.recipes import _halves
from jgen.models import flow, uniform
from jgen.nets.conditioners import conditioner
from tests.helpers import random_params


@pytest.mark.parametrize(("num", "num_cond"), [(2, 0), (5, 1)])
def test_a_cube_flow_stays_inside_and_has_the_jacobian_s_determinant(num, num_cond):
    bijector = cube_flow(num, num_cond, num_bins=4, hidden=(8,))
    params = random_params(bijector.init, 0.3)
    cond = jnp.full(num_cond, 0.7) if num_cond else None
    x = jax.random.uniform(jax.random.key(1), (300, num))
    corners = np.random.default_rng(0).choice([0.0, 1.0, np.nextafter(np.float32(1), 0)], (50, num))
    x = jnp.concatenate([x, corners.astype(np.float32)])

    def everything(x):
        z, log_det = bijector.forward(params, x, cond)
        made, _ = bijector.inverse(params, x, cond)
        back, inverse_log_det = bijector.inverse(params, z, cond)
        jacobian = jax.jacfwd(lambda x: bijector.forward(params, x, cond)[0])(x)
        return z, made, back, log_det, inverse_log_det, jnp.linalg.slogdet(jacobian)

    z, made, back, log_det, inverse_log_det, (sign, exact) = jax.jit(jax.vmap(everything))(x)
    for image in (z, made):
        assert np.min(image) >= 0
        assert np.max(image) <= 1
    assert np.abs(z - x).max() > 0.1
    np.testing.assert_allclose(back, x, atol=1e-4)
    np.testing.assert_allclose(log_det[:300], exact[:300], atol=1e-3)
    np.testing.assert_allclose(inverse_log_det[:300], -log_det[:300], atol=1e-3)
    assert np.all(sign[:300] == 1)
    # Outside it is the identity, so that a density is zero there and not NaN.
    outside, log_det = bijector.forward(params, jnp.full(num, 1.5), cond)
    np.testing.assert_allclose(outside, 1.5)
    assert log_det == 0
    model = flow(bijector, uniform(num))
    keys = jax.random.split(jax.random.key(2), 300)
    both = jax.vmap(model.sample_and_log_prob, (None, 0, None))
    sample, log_q = jax.jit(both)(params, keys, cond)
    assert np.min(sample) >= 0
    assert np.max(sample) <= 1
    assert np.isfinite(log_q).all()


@pytest.mark.parametrize("num", [2, 3, 4, 7, 16])
def test_every_component_moves_given_every_other_one(num):
    orders = _halves(num, 1)
    assert len(orders) == 2 * int(np.ceil(np.log2(num)))
    given = np.zeros((num, num), bool)
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(num))
        given[np.ix_(order[num // 2 :], order[: num // 2])] = True
    if num % 2 == 0:
        np.testing.assert_array_equal(given, ~np.eye(num, dtype=bool))
    assert np.all(given.sum(axis=1) >= num // 2)


def test_bounded_bases_are_refused_where_events_leave():
    """With plu in between training goes on with densities of zero, and says nothing."""
    splines = rational_quadratic(4, 1.0, free_edges=True)
    halves = coupling(conditioner(1, splines.num_params, hidden=(4,)), splines, 1)
    inside = repeated(compose(halves, flip()), 2)
    for bijector in (
        coupling_flow(2, splines, 2, hidden=(4,)),
        coupling_flow(2, affine(), 2, hidden=(4,)),
        inverted(autoregressive_flow(2, additive(), 2, hidden=(4,))),
        compose(grid(np.array([[0.0, 1.0]] * 2)), coupling_flow(2, splines, 1, hidden=(4,))),
    ):
        with pytest.raises(ValueError, match=r"zero outside of \[0.0, 1.0\].*take `cube_flow`"):
            flow(bijector, uniform(2))
    with pytest.raises(ValueError, match=r"maps events to \[-1.0, 1.0\]"):
        flow(inside, uniform(2))
    flow(inside, uniform(2, -1.0, 1.0))
    flow(inside, uniform(2, -3.0, 2.0))
    flow(cube_flow(2, hidden=(4,)), uniform(2))
    flow(coupling_flow(2, splines, 2, hidden=(4,)), 2)
    # Of an element of one's own nothing is known.
    own = Element(1, lambda raw, x: (x, 0 * x), lambda raw, y: (y, 0 * y))
    flow(autoregressive_flow(2, own, 1, hidden=(4,)), uniform(2))
    with pytest.raises(ValueError, match="num must be a whole number from 2"):
        cube_flow(1)


def test_a_grid_maps_its_bins_to_equal_ones(x64):
    edges = np.array([[-1.0, 0.0, 3.0], [0.0, 0.1, 0.5]])
    box = grid(edges)
    for x, u in (((-0.5, 0.05), (0.25, 0.25)), ((1.5, 0.5), (0.75, 1.0)), ((-1, 0.3), (0, 0.75))):
        x, u = (jnp.asarray(v, float) for v in (x, u))
        z, log_det = box.forward(x, None)
        np.testing.assert_allclose(z, u, atol=1e-12)
        slopes = jnp.diag(jax.jacfwd(lambda x: box.forward(x, None)[0])(x))
        np.testing.assert_allclose(log_det, jnp.log(slopes).sum(), rtol=1e-12)
        back, inverse_log_det = box.inverse(u, None)
        np.testing.assert_allclose(back, x, atol=1e-12)
        np.testing.assert_allclose(inverse_log_det, -log_det, rtol=1e-12)
    with pytest.raises(ValueError, match="increasing numbers for each component"):
        grid(np.array([[0.0, 0.5, 0.5]]))
    with pytest.raises(ValueError, match="too close to differ in single precision"):
        grid(np.array([[0.0, 0.5, 0.5 + 1e-12, 1.0]]))
