"""What every bijector has to hold, from data to base and back."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.bijectors import (
    actnorm,
    additive,
    affine,
    autoregressive,
    autoregressive_flow,
    compose,
    conditioned,
    continuous,
    coupling,
    coupling_flow,
    cubic,
    glow,
    householder,
    inverse_autoregressive_flow,
    inverted,
    masked_coupling,
    permutation,
    planar,
    plu,
    qr,
    quadratic,
    radial,
    rational_quadratic,
    repeated,
    residual,
    squeeze,
    stacked,
    standardize,
)
from jgen.bijectors.trainable import lifted
from jgen.nets import Network, num_parameters
from jgen.nets.conditioners import conditioner
from jgen.nets.transformers.causal import CausalConfig, causal
from jgen.solvers import runge_kutta

# Programs run once: most of the time is their compilation.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SMALL = (6,)
TINY = CausalConfig(width=4, heads=1, blocks=1, feed_forward=4)


def checkerboard():
    network = conditioner(2, 2 * rational_quadratic(4).num_params, 1, hidden=SMALL)
    masks = np.array([[True, False], [False, True]])
    return stacked(lambda m: masked_coupling(network, rational_quadratic(4), m), masks)


def free_edges():
    element = rational_quadratic(4, free_edges=True)
    network = conditioner(1, element.num_params, 1, hidden=SMALL)
    return repeated(compose(coupling(network, element, 1), permutation(np.array([1, 0]))), 2)


def conditional_planar():
    layers = repeated(planar(2), 2)
    return conditioned(layers, conditioner(1, num_parameters(layers.init), hidden=SMALL))


def flow_velocity():
    network = conditioner(3, 2, 1, hidden=SMALL)
    velocity = lambda p, t, x, cond: network.apply(p, jnp.append(x, t), cond)
    return continuous(Network(network.init, velocity), solver=runge_kutta("rk4", 60))


# Factories, of events [2] but for the images, and of conditions [1].
BIJECTORS = {
    "NICE": lambda: coupling_flow(2, additive(), 2, 1, hidden=SMALL),
    "RealNVP": lambda: coupling_flow(2, affine(), 2, 1, hidden=SMALL),
    "rational-quadratic coupling": lambda: coupling_flow(
        2, rational_quadratic(4), 2, 1, hidden=SMALL
    ),
    "quadratic coupling": lambda: coupling_flow(2, quadratic(4), 2, 1, hidden=SMALL),
    "cubic coupling": lambda: coupling_flow(2, cubic(4), 2, 1, hidden=SMALL),
    "free edges": free_edges,
    "masked coupling": checkerboard,
    "MAF": lambda: autoregressive_flow(2, affine(), 2, 1, hidden=SMALL),
    "MAF-RQS": lambda: autoregressive_flow(2, rational_quadratic(4), 2, 1, hidden=SMALL),
    "IAF": lambda: inverted(autoregressive_flow(2, affine(), 2, 1, hidden=SMALL)),
    "student of MAF": lambda: inverse_autoregressive_flow(2, affine(), 2, 1, hidden=SMALL),
    "transformer": lambda: autoregressive(causal(2, 2, 1, TINY), affine(), 2),
    "actnorm": lambda: actnorm(2),
    "PLU": lambda: plu(2, np.array([1, 0])),
    "Householder": lambda: householder(2),
    "QR": lambda: qr(2),
    "planar": lambda: repeated(planar(2), 2),
    "conditional planar": conditional_planar,
    "radial": lambda: repeated(radial(2), 2),
    "residual": lambda: residual(2, 1, hidden=SMALL),
    "continuous": flow_velocity,
    "standardize": lambda: lifted(standardize(np.array([0.5, -1]), np.array([0.5, 2]))),
    "Glow": lambda: glow((4, 4, 1), 2, 1, 1, hidden=(4,)),
    "squeeze": lambda: squeeze(2),
}
IMAGES = ("Glow", "squeeze")
EDGES = np.array([-1e4, -7.0, -3.0, -1.5, 0.0, 1.5, np.nextafter(3, 4), 3.0, 50.0, 1e4])


def parameters(bijector, lead=(), scale=0.2):
    """Random parameters, away from the start, where most layers are the identity."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(bijector.init, jax.random.key(0))
    draw = lambda p: jnp.asarray(scale * rng.normal(size=(*lead, *p.shape)), p.dtype)
    return jax.tree.map(draw, shapes)


def events(name, num=40):
    shape = (num, 4, 4, 1) if name in IMAGES else (num, 2)
    return jnp.asarray(1.5 * np.random.default_rng(1).normal(size=shape))


@pytest.mark.parametrize("name", BIJECTORS)
def test_round_trip_log_det_and_unit_integral_in_double_precision(x64, name):
    bijector = BIJECTORS[name]()
    params, cond = parameters(bijector), jnp.array([0.7])
    # The sum over a grid is that exact for all but the roughest density.
    x, step = events(name), 0.1 if name == "MAF-RQS" else 0.2
    if name not in IMAGES:
        axis = np.arange(-9, 9 + step, step)
        x = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)

    def everything(x):
        def flat(x):
            z, log_det = bijector.forward(params, x, cond)
            return z.ravel(), (z, log_det)

        jacobian, (z, log_det) = jax.jacfwd(flat, has_aux=True)(x)
        back, inverse_log_det = bijector.inverse(params, z, cond)
        return jacobian.reshape(x.size, x.size), z, log_det, back, inverse_log_det

    jacobian, z, log_det, back, inverse_log_det = jit(jax.vmap(everything))(x)
    assert log_det.dtype == z.dtype == jnp.float64
    np.testing.assert_allclose(back, x, atol=1e-10)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], atol=1e-9)
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=1e-9)
    if name not in IMAGES:
        density = np.exp(log_det - 0.5 * (z**2).sum(1)) / (2 * np.pi)
        np.testing.assert_allclose(density.sum() * step**2, 1, atol=4e-3)
        assert np.abs(z - x).max() > 0.05


@pytest.mark.parametrize("name", BIJECTORS)
def test_single_precision_members_conditions_and_gradients_at_edges(name):
    bijector = BIJECTORS[name]()
    members = parameters(bijector, (2,))
    x, cond = events(name), jnp.linspace(-1, 1, 40)[:, None]

    def there_and_back(params, x, cond):
        z, log_det = bijector.forward(params, x, cond)
        back, inverse_log_det = bijector.inverse(params, z, cond)
        return z, log_det, back, inverse_log_det

    everyone = jax.vmap(jax.vmap(there_and_back, (None, 0, 0)), (0, None, None), axis_size=2)
    z, log_det, back, inverse_log_det = jit(everyone)(members, x, cond)
    assert log_det.dtype == z.dtype == jnp.float32
    np.testing.assert_allclose(back, jnp.stack([x, x]), atol=1e-4)
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=1e-4)

    def total(params, x, cond):
        z, log_det = bijector.forward(params, x, cond)
        return jnp.sum(z) + log_det, (z, log_det)

    second, num = jax.tree.map(lambda p: p[1], members), len(EDGES)
    edges = np.resize(np.stack([EDGES, EDGES[::-1]], -1), (num, *x.shape[1:]))
    gradients = jax.vmap(jax.grad(total, (0, 1, 2), has_aux=True), (None, 0, 0))
    points = np.concatenate([edges, x[:num]]).astype(np.float32)
    found, alone = jit(gradients)(second, points, np.tile(cond[:num], (2, 1)))
    for leaf in jax.tree.leaves(found):
        assert np.isfinite(leaf).all()
    np.testing.assert_allclose(alone[0][num:], z[1, :num], atol=1e-5)
    np.testing.assert_allclose(alone[1][num:], log_det[1, :num], atol=1e-5)


@pytest.mark.parametrize("name", ["cubic coupling", "planar", "radial", "residual"])
def test_inverses_that_are_roots_have_the_derivatives_of_implicit_functions(x64, name):
    """x(z, p) with z(x, p) = z has dx/dz = (dz/dx)^-1 and dx/dp = -(dz/dx)^-1 dz/dp."""
    bijector = BIJECTORS[name]()
    params, cond, x = parameters(bijector), jnp.array([0.7]), events(name)[0]

    def both(x):
        forward = lambda p, x: bijector.forward(p, x, cond)[0]
        inverse = lambda p, z: bijector.inverse(p, z, cond)[0]
        z = forward(params, x)
        return jax.jacrev(forward, (0, 1))(params, x), jax.jacrev(inverse, (0, 1))(params, z)

    (dz_dp, dz_dx), (dx_dp, dx_dz) = jit(both)(x)
    np.testing.assert_allclose(dx_dz, np.linalg.inv(dz_dx), atol=1e-8)
    for found, one in zip(jax.tree.leaves(dx_dp), jax.tree.leaves(dz_dp), strict=True):
        expected = -np.linalg.solve(dz_dx, one.reshape(2, -1)).reshape(one.shape)
        np.testing.assert_allclose(found, expected, atol=1e-7)


def test_compile_time_is_flat_in_depth(key):
    def size(make, x, depth):
        bijector = make(depth)
        params = jax.eval_shape(bijector.init, key)
        z = jax.eval_shape(bijector.forward, params, x)[0]
        programs = [(bijector.forward, x), (bijector.inverse, z)]
        return sum(str(jax.make_jaxpr(f)(params, y)).count(" = ") for f, y in programs)

    orders = lambda depth: np.stack([np.roll(np.arange(3), i) for i in range(depth)])
    x, image = jnp.ones(3), jnp.ones((4, 4, 1))
    for make, event in (
        (lambda depth: coupling_flow(3, rational_quadratic(4), depth, hidden=SMALL), x),
        (lambda depth: autoregressive_flow(3, affine(), depth, hidden=SMALL), x),
        (lambda depth: repeated(residual(3, hidden=SMALL), depth), x),
        (lambda depth: stacked(lambda o: compose(planar(3), permutation(o)), orders(depth)), x),
        (lambda depth: glow((4, 4, 1), 2, depth, hidden=(4,)), image),
    ):
        assert size(make, event, 2) == size(make, event, 16)
    unrolled = lambda depth: compose(*[planar(3)] * depth)
    assert size(unrolled, x, 16) > 4 * size(unrolled, x, 2)
