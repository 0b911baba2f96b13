"""Exported models: the same events and densities, without the code that made them."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import draw, log_densities, save
from jgen.bijectors import affine, coupling_flow, standardize
from jgen.export import export_model, load_exported
from jgen.generative_model import GenerativeModel
from jgen.models import flow, flow_matching, gan
from jgen.nets import critic_mlp, generator_mlp, velocity_mlp
from jgen.solvers import runge_kutta
from jgen.transforms import preprocessed
from tests.helpers import random_params

SOLVER = runge_kutta("midpoint", 2)


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """Flow matching given two numbers, in another space, and its file."""
    inner = flow_matching(velocity_mlp(2, 2, hidden=(8,)), (2,), solver=SOLVER)
    model = preprocessed(inner, standardize([1.0, -2.0], [2.0, 0.5]))
    params = random_params(model.init)
    path = tmp_path_factory.mktemp("exported") / "model.npz"
    options = {"batch_size": 16, "metadata": {"units": "GeV"}}
    export_model(path, model, params, np.zeros((1, 2)), **options)
    return model, params, path


def test_events_and_densities_are_those_of_the_model(conditional):
    model, params, path = conditional
    exported, key = load_exported(path), jax.random.key(3)
    assert exported.metadata == {"units": "GeV"}
    cond = np.random.default_rng(0).normal(size=(37, 2))
    expected = draw(model, params, key, 37, cond, batch_size=10)
    events = exported.draw(key, 37, cond)
    np.testing.assert_allclose(events, expected, rtol=1e-5, atol=1e-5)
    assert events.dtype == np.float32
    one = exported.draw(key, 5, cond[:1])
    np.testing.assert_allclose(one, draw(model, params, key, 5, cond[:1]), rtol=1e-5, atol=1e-5)
    found = exported.log_densities(key, expected, cond)
    np.testing.assert_allclose(
        found, log_densities(model, params, key, expected, cond), rtol=1e-4, atol=1e-5
    )


def test_a_process_without_the_model_runs_it(conditional, tmp_path):
    model, params, path = conditional
    out = tmp_path / "x.npy"
    code = (
        "import jax, numpy as np\nfrom jgen.export import load_exported\n"
        f"model = load_exported({str(path)!r})\n"
        f"np.save({str(out)!r}, model.draw(jax.random.key(1), 20, np.ones((1, 2))))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    expected = draw(model, params, jax.random.key(1), 20, np.ones((1, 2)))
    np.testing.assert_allclose(np.load(out), expected, rtol=1e-5, atol=1e-5)


def test_models_without_density_and_events_of_several_arrays(tmp_path):
    generator = gan(generator_mlp(2, hidden=(8,)), critic_mlp(2, hidden=(8,)))
    params = random_params(generator.init)
    export_model(tmp_path / "gan.npz", generator, params, platforms=("cpu",))
    exported = load_exported(tmp_path / "gan.npz")
    expected = draw(generator, params, jax.random.key(0), 7)
    np.testing.assert_allclose(exported.draw(jax.random.key(0), 7), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="without a density"):
        exported.log_densities(jax.random.key(0), expected)

    def sample(params, key, cond=None):
        return {"x": jax.random.normal(key, (2,)), "n": jax.random.randint(key, (), 0, 9)}

    two = GenerativeModel(lambda key: {"w": jnp.ones(3)}, lambda *_: jnp.zeros(()), sample)
    export_model(tmp_path / "two.npz", two, {"w": jnp.ones(3)}, batch_size=4)
    events = load_exported(tmp_path / "two.npz").draw(jax.random.key(2), 6)
    expected = draw(two, {"w": jnp.ones(3)}, jax.random.key(2), 6)
    jax.tree.map(np.testing.assert_array_equal, events, expected)


def test_flows_keep_their_densities(tmp_path):
    model = flow(coupling_flow(2, affine(), depth=2, hidden=(8,)), 2)
    params = random_params(model.init)
    export_model(tmp_path / "flow.npz", model, params, platforms=("cpu",))
    exported, key = load_exported(tmp_path / "flow.npz"), jax.random.key(0)
    x = exported.draw(key, 9)
    np.testing.assert_allclose(
        exported.log_densities(key, x), log_densities(model, params, key, x), rtol=1e-5, atol=1e-5
    )
    export_model(tmp_path / "bare.npz", model, params, density=False, platforms=("cpu",))
    assert list(load_exported(tmp_path / "bare.npz").programs) == ["sample"]


def test_labels_stay_whole_and_a_program_is_compiled_once(tmp_path):
    traced = []

    def sample(params, key, cond=None):
        traced.append(cond.dtype)
        return params["w"][cond] + jax.random.normal(key)

    model = GenerativeModel(lambda key: {"w": jnp.arange(3.0)}, lambda *_: jnp.zeros(()), sample)
    params = {"w": jnp.arange(3.0)}
    export_model(tmp_path / "labels.npz", model, params, np.array([0]), platforms=("cpu",))
    exported, labels = load_exported(tmp_path / "labels.npz"), np.array([2, 0, 1])
    expected = draw(model, params, jax.random.key(0), 3, labels)
    np.testing.assert_allclose(exported.draw(jax.random.key(0), 3, labels), expected, rtol=1e-6)
    assert {d.kind for d in traced} == {"i"}
    before = exported.programs["sample"]._cache_size()
    exported.draw(jax.random.key(1), 3, labels)
    assert exported.programs["sample"]._cache_size() == before == 1
    with pytest.raises(ValueError, match="whole numbers, such as labels"):
        exported.draw(jax.random.key(0), 3, labels + 0.7)


def test_what_does_not_fit_is_refused(conditional, tmp_path):
    model, params, path = conditional
    exported, key = load_exported(path), jax.random.key(0)
    wrong = {
        "cond must be one of the shapes": (key, 3, None),
        r"cond must have the shapes \[\(2,\)\]": (key, 3, np.zeros((3, 4))),
        "cond has 2 rows, but there are 3 events": (key, 3, np.zeros((2, 2))),
        "num must be": (key, 0, np.zeros((1, 2))),
        "cond": (key, 3, np.full((3, 2), np.nan)),
        "default kind": (jax.random.key(0, impl="rbg"), 3, np.zeros((1, 2))),
    }
    for message, arguments in wrong.items():
        with pytest.raises(ValueError, match=message):
            exported.draw(*arguments)
    with pytest.raises(ValueError, match=r"x must have the shapes"):
        exported.log_densities(key, np.zeros((3, 5)), np.zeros((1, 2)))
    stacked = jax.tree.map(lambda a: jnp.stack([a, a]), params)
    for message, arguments, options in (
        ("axis of ensemble members", (stacked, np.zeros((1, 2))), {}),
        ("platform", (params, np.zeros((1, 2))), {"platforms": ("abacus",)}),
        ("batch_size", (params, np.zeros((1, 2))), {"batch_size": 0}),
        ("conditions|cond", (params, np.zeros((1, 7))), {}),
    ):
        with pytest.raises(ValueError, match=message):
            export_model(tmp_path / "x.npz", model, *arguments, **options)
    assert not (tmp_path / "x.npz").exists()
    save(tmp_path / "params.npz", params)
    with pytest.raises(ValueError, match="no file of jgen.export"):
        load_exported(tmp_path / "params.npz")
    with pytest.raises(FileNotFoundError):
        load_exported(tmp_path / "none.npz")
