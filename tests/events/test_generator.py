"""Generators of events: sizes, symmetry, and a density that is known through the whole map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jaxtyping import TypeCheckError

from jgen.events import (
    UNIT,
    event_base,
    event_map,
    event_model,
    event_observables,
    event_velocity,
    fit_coordinates,
    read_events,
    to_coordinates,
    to_events,
)
from jgen.events.generator import turned_towards
from jgen.events.known import _pulls, known_of
from jgen.export import export_model, load_exported
from jgen.generative_model import Batch, draw, log_densities
from jgen.models import Base, geodesic_flow_matching
from jgen.nets import LGATrConfig, LLoCaConfig, Network, num_parameters
from jgen.physics import wrapped
from jgen.solvers import runge_kutta
from jgen.transforms import preprocessed
from tests.helpers import random_params

EVENTS = read_events()[:300]
COORDINATES = fit_coordinates(EVENTS)
Z = to_coordinates(COORDINATES, EVENTS)
SMALL = {
    "transformer": LLoCaConfig(2, 3, 1, 1, 2, "identity"),
    "lloca": LLoCaConfig(2, 3, 1, 1, 2, "so13", (8, 8)),
    "lgatr": LGATrConfig(2, 4, 2, 1),
}


@pytest.mark.parametrize(
    ("config", "size"),
    [(LLoCaConfig(symmetry="identity"), 526_142), (LLoCaConfig(), 546_881),
     (LGATrConfig(), 539_044)],
)  # fmt: skip
def test_published_networks_have_their_sizes(config, size):
    assert num_parameters(event_velocity(config, COORDINATES).init) == size


@pytest.mark.parametrize("informed", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_velocities_do_not_know_where_phi_is_zero_but_the_plain_ones(name, informed):
    """The spurions leave rotations about the beam, and they leave these alone."""
    network = event_velocity(SMALL[name], COORDINATES, informed=informed)
    # Velocities of events; those of single precision lose the masses of what they head for.
    params = random_params(network.init, 0.1 if informed else 0.3)
    apply = jax.jit(lambda z: network.apply(params, 0.3, z))
    z = jnp.asarray(Z[0])
    turned = z.at[:, 1].set((z[:, 1] + 1.3 + np.pi) % (2 * np.pi) - np.pi)
    v, w = apply(z), apply(turned)
    assert v.shape == (6, 4)
    assert v.dtype == np.float32
    difference = float(jnp.abs(v - w).max() / jnp.abs(v).max())
    plain = name == "transformer" and not informed
    assert difference > 1e-3 if plain else difference < 1e-3
    # Reflections of the beam are broken by nothing but the time of LLoCa's frames, boosts are.
    boosted = z.at[:, 2].add(0.5)
    assert float(jnp.abs(apply(boosted) - v).max() / jnp.abs(v).max()) > 1e-3


@pytest.mark.parametrize("name", ["lloca", "lgatr"])
def test_angular_velocities_are_those_of_momenta_that_move(name):
    """The vector as a velocity in momentum space, by finite differences of the angles."""
    from jgen.events.generator import _angular

    with jax.enable_x64(True):
        p = jnp.asarray(EVENTS[0].astype(float) / UNIT)
        velocity = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)))
        found = _angular(p, velocity)
        angles = lambda p: np.stack(
            [np.arctan2(p[:, 2], p[:, 1]), np.arcsinh(p[:, 3] / np.hypot(p[:, 1], p[:, 2]))], -1
        )
        step = 1e-6
        ahead, behind = (angles(np.asarray(p) + s * np.asarray(velocity)) for s in (step, -step))
        np.testing.assert_allclose(found, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-7)


def test_the_likelihood_of_a_gaussian_through_the_whole_map(x64, key):
    """Flow matching that is exact, events in GeV: the normal density and the map's determinant."""
    mean, std = 0.3, 0.8

    def exact(params, t, z, cond=None):
        variance = (t * std) ** 2 + (1 - t) ** 2
        velocity = mean + (t * std**2 - (1 - t)) / variance * (z - t * mean)
        return velocity.at[:, 1].set(0.0)

    lines = ~COORDINATES.periodic
    base = Base(
        lambda key: jnp.zeros((6, 4)),
        lambda z: jnp.sum(jnp.where(lines, jax.scipy.stats.norm.logpdf(z), -np.log(2 * np.pi))),
    )
    inner = geodesic_flow_matching(
        Network(lambda key: {}, exact), base, COORDINATES.periodic, solver=runge_kutta("rk4", 60)
    )
    model = preprocessed(inner, event_map(COORDINATES))
    x = jnp.asarray(EVENTS[:5], jnp.float64)
    found = jax.jit(jax.vmap(lambda x: model.log_prob({}, key, x)))(x)
    z, log_det = jax.vmap(lambda x: event_map(COORDINATES).forward(x, None))(x)
    flat = np.where(lines, scipy.stats.norm.logpdf(np.asarray(z), mean, std), -np.log(2 * np.pi))
    np.testing.assert_allclose(found, flat.sum(axis=(1, 2)) + np.asarray(log_det), atol=1e-5)


def test_without_a_velocity_the_model_is_its_base(key):
    still = Network(lambda key: {}, lambda params, t, z, cond: jnp.zeros((6, 4)))
    base = event_base(COORDINATES)
    model = geodesic_flow_matching(still, base, COORDINATES.periodic)
    z = jnp.asarray(Z[:10])
    found = jax.vmap(lambda z: model.log_prob({}, key, z))(z)
    np.testing.assert_allclose(found, jax.vmap(base.log_prob)(z), atol=1e-5)
    np.testing.assert_allclose(model.sample({}, key, None), base.sample(key), atol=1e-6)


def test_gradients_are_finite_and_hutchinson_is_unbiased(key):
    options = {"time_width": 1.0, "solver": runge_kutta("euler", 2)}
    exact = event_model(SMALL["lloca"], COORDINATES, **options)
    noisy = event_model(
        SMALL["lloca"], COORDINATES, divergence="hutchinson", num_probes=200, **options
    )
    params = random_params(exact.init, 0.1)
    z = jnp.asarray(Z[0])
    found = jax.jit(noisy.log_prob)(params, key, z)
    expected = jax.jit(exact.log_prob)(params, key, z)
    assert np.isfinite(expected)
    assert float(found) == pytest.approx(float(expected), abs=2.0)


def test_generators_run_without_their_code(tmp_path, key):
    """Loops, double precision inside and all: for other platforms than this one, too."""
    inner = event_model(SMALL["lloca"], COORDINATES, time_width=1.0, solver=runge_kutta("euler", 2))
    model = preprocessed(inner, event_map(COORDINATES))
    params = random_params(model.init, 0.05)
    path = tmp_path / "events.npz"
    export_model(path, model, params, batch_size=8, density=False, metadata={"units": "GeV"})
    found = load_exported(path).draw(key, 11)
    np.testing.assert_allclose(found, draw(model, params, key, 11), rtol=1e-4)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="time_width"):
        event_model(SMALL["lloca"], COORDINATES, time_width=0.0)
    with pytest.raises(ValueError, match="blocks"):
        event_model(LGATrConfig(blocks=0), COORDINATES)
    for config, coordinates, said in (
        (None, COORDINATES, "LLoCaConfig or an LGATrConfig"),
        (SMALL["lloca"], None, "those of `fit_coordinates`, got NoneType"),
        (SMALL["lloca"], COORDINATES._replace(std=-COORDINATES.std), "must be positive"),
    ):
        with pytest.raises((ValueError, TypeCheckError), match=f"{said}|Type-check"):
            event_velocity(config, coordinates)
    network = event_velocity(SMALL["transformer"], COORDINATES)
    with pytest.raises(ValueError, match="take no condition"):
        network.apply(random_params(network.init), 0.5, jnp.asarray(Z[0]), jnp.zeros(2))


def test_what_is_known_turns_with_the_event_and_is_what_its_formula_says():
    _, features, _, num, _ = known_of(COORDINATES, 0.5)
    found = jax.jit(features)(jnp.float32(0.9), jnp.asarray(Z[0]))
    assert found.shape == (6, num)
    turned = jnp.asarray(Z[0]).at[:, 1].add(0.7)
    np.testing.assert_allclose(features(0.9, turned), found, atol=1e-4)
    # An event that has all of it right is pulled nowhere: here the top whose mass is the median.
    masses = event_observables(EVENTS)
    off = np.abs(masses["m_t"] - COORDINATES.peaks[0, 0])
    pulls = lambda i: np.abs(features(0.95, jnp.asarray(Z[i]))[:, 4:8]).max()
    assert pulls(int(off.argmin())) < 0.03 < pulls(int(np.argsort(off)[200]))
    # Along its pull an event comes closer to balance: by the finite difference of a step.
    i = int(np.argsort(masses["pt_tt"])[-5])
    pull = np.asarray(features(0.97, jnp.asarray(Z[i])))[:, :4]
    moved = to_events(COORDINATES, Z[i : i + 1] + 0.01 * pull)
    assert event_observables(moved)["pt_tt"][0] < masses["pt_tt"][i] - 0.5
    # Jets that are nearer than they may be are pushed apart.
    z = jnp.asarray(Z[0]).at[1, 1:3].set(Z[0][0, 1:3] + np.array([0.2, -0.2], np.float32))
    push = np.asarray(features(0.98, z))[:, 21:23]
    assert push[1, 0] > 1 > -1 > push[0, 0]
    assert push[1, 1] < -1 < 1 < push[0, 1]


def test_the_mean_of_the_path_is_known():
    """Of pT and mass, whose base is far from the data: what is seen has none, velocities get it."""
    known = known_of(COORDINATES, 0.5)
    x0 = np.asarray(
        jax.vmap(event_base(COORDINATES).sample)(jax.random.split(jax.random.key(4), len(Z)))
    )
    mean = lambda z: np.asarray(z)[..., ::3].mean(axis=0)
    assert np.abs(mean(x0)).min() > 1
    # Distances move means by up to a tenth, and 300 events know them to a tenth.
    for t in (0.1, 0.9):
        seen = jax.vmap(known.centred, (None, 0))(t, jnp.asarray((1 - t) * x0 + t * Z))
        np.testing.assert_allclose(mean(seen), 0, atol=0.2)
    nothing = jnp.zeros((6, known.num_gains))
    made = known.corrected(0.5, jnp.asarray(Z[0]), jnp.zeros((6, 4)), nothing)
    np.testing.assert_allclose(made[:, ::3], mean(Z - x0), atol=0.2)
    np.testing.assert_array_equal(made[:, 1:3], 0)


@pytest.mark.parametrize("name", ["transformer", "lgatr"])  # frames are never made of nothing
def test_networks_that_know_see_events_without_the_mean_of_the_path(name):
    """One that makes nothing leaves the mean path's velocity and pulls of gain one."""
    network = event_velocity(SMALL[name], COORDINATES, informed=True)
    known = known_of(COORDINATES, 0.5)
    params = jax.tree.map(jnp.zeros_like, network.init(jax.random.key(0)))
    z, t, nothing = jnp.asarray(Z[1]), jnp.float32(0.3), jnp.zeros((6, 4))
    made = jax.jit(network.apply)(params, t, z)
    gains = jnp.ones((6, known.num_gains))
    expected = jax.jit(known.corrected)(t, known.centred(t, z), nothing, gains)
    np.testing.assert_allclose(made, expected, rtol=1e-3, atol=1e-3)
    assert np.abs(made - jax.jit(known.corrected)(t, z, nothing, gains)).max() > 0.1


def test_pulls_are_expected_velocities_of_a_linear_normal_case():
    """E[x1 - x0 | c(x_t)] where c(x) = J x is normal in the data and x0 - x1 has variances v."""
    rng = np.random.default_rng(0)
    left, variances = 0.3, rng.uniform(0.5, 3, size=(6, 4))
    values, slopes = rng.normal(size=(2, 2)), rng.normal(size=(2, 2, 6, 4))
    found = _pulls(left, *(jnp.asarray(a, jnp.float32) for a in (values, slopes)), variances)
    expected = []
    for c, jacobian in zip(values, slopes.reshape(2, 2, 24), strict=True):
        moves = jacobian * variances.ravel()
        weights = np.linalg.solve(np.eye(2) + left**2 * jacobian @ moves.T, c)
        expected.append((-left * weights[:, None] * moves).reshape(2, 6, 4))
    expected = [expected[0].sum(axis=0), *expected[1]]
    np.testing.assert_allclose(found, np.stack(expected, axis=1), rtol=1e-4, atol=1e-5)


def test_events_of_the_base_are_turned_towards_data():
    base = event_base(COORDINATES)
    x0 = jax.vmap(base.sample)(jax.random.split(jax.random.key(3), 200))
    turned = jax.vmap(turned_towards)(x0, jnp.asarray(Z[:200]))
    kinds = lambda z: event_observables(to_events(COORDINATES, np.asarray(z)))
    before, after = kinds(x0), kinds(turned)
    for name in ("m_tt", "pt_tt", "dr_b1_q3"):
        np.testing.assert_allclose(after[name], before[name], rtol=2e-3, atol=0.05)
    distance = lambda z: np.mean(np.square(np.asarray(wrapped(z[..., 1] - Z[:200, :, 1]))))
    assert distance(turned) < 0.7 * distance(x0)


@pytest.mark.parametrize("name", ["transformer", "lloca"])
def test_events_are_drawn_and_scored_where_all_is_in_double_precision(x64, key, name):
    """Of a program that has switched it on for itself; parameters stay float32."""
    model = event_model(SMALL[name], COORDINATES, solver=runge_kutta("euler", 2))
    params = jax.tree.map(lambda a: a.astype(np.float32), random_params(model.init, 0.1))
    assert draw(model, params, key, 4).shape == (4, 6, 4)
    assert np.isfinite(log_densities(model, params, key, Z[:4])).all()
    assert np.isfinite(jax.jit(model.loss)(params, key, Batch(jnp.asarray(Z[:8]))))


@pytest.mark.parametrize(
    ("name", "informed"),
    [("lloca", 0), ("lloca", 1), ("lgatr", 0), ("lgatr", 1), ("transformer", 1)],
)
def test_velocities_and_their_gradients_are_finite_far_beyond_any_event(name, informed):
    """Where a trajectory may pass that was learned badly, and where two particles meet."""
    network = event_velocity(SMALL[name], COORDINATES, informed=bool(informed))
    params = random_params(network.init)
    z = jnp.asarray(Z[0])
    met = [z.at[3, 1:3].set(z[2, 1:3] + off) for off in (2e-4, 0.0)]
    far = jnp.stack([z.at[1, 2].set(-22.0), z.at[0, 0].set(40.0), z.at[3, 3].set(-30.0), *met])

    def one(params, z):
        v = network.apply(params, 0.5, z)
        return jnp.mean(jnp.tanh(v)), v

    made = jax.jit(jax.vmap(jax.grad(one, (0, 1), has_aux=True), (None, 0)))(params, far)
    for leaf in jax.tree.leaves(made):
        finite = np.isfinite(leaf).reshape(len(far), -1).all(axis=1)
        assert finite.all(), finite
