"""The study of bespoke solvers, on small untrained networks of both kinds."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import _bespoke_training as training
from experiments import _calodream as study
from experiments import bespoke_solvers
from experiments._bespoke_quality import compare_layers, root_mean_square, timed_draw
from experiments._bespoke_report import BESPOKE, RUNGE_KUTTA, TITLES
from experiments._calodream_presets import SMOKE, SMOKE_LATENT
from jgen.generative_model import Batch, GenerativeModel
from jgen.metrics import ClassifierConfig
from jgen.nets.sequence import SequenceConfig
from jgen.nets.transfusion import TransfusionConfig
from jgen.nets.vit import ViTConfig
from jgen.showers import (
    ShowerPreprocessing,
    Showers,
    fit_statistics,
    get_geometry,
    read_showers,
    sample_path,
)
from jgen.solvers import (
    NonStationary,
    RungeKutta,
    SolverConfig,
    load_solver,
    runge_kutta,
    save_solver,
)

GEOMETRY = get_geometry("ds2")
SMALL = {
    "energy_network": TransfusionConfig(48, 2, 1, 16, 16, 3),
    "parallel_network": SequenceConfig(width=8, heads=2, blocks=1, mlp_width=8),
    "shape_network": ViTConfig(patch=(9, 16, 3), width=12, heads=2, blocks=1, mlp_width=16),
    "sample_batch": 40,
}


@pytest.fixture(scope="module")
def showers():
    return read_showers(sample_path(), GEOMETRY, 0, 120)


def untrained(showers, folder, config):
    """Networks with random weights: those at their initialisation have no velocity."""
    statistics = fit_statistics([showers], GEOMETRY)
    preprocessing = ShowerPreprocessing(GEOMETRY, statistics, 1e3, 3e4)
    inits = {"energy": study.make_energy_model(config).init}
    inits["shape"] = study.velocity_network(config).init
    params = {}
    for i, (name, init) in enumerate(inits.items()):
        leaves, tree = jax.tree.flatten(jax.jit(init)(jax.random.key(i)))
        rng = np.random.default_rng(i)
        noisy = [jnp.float32(0.2 * rng.normal(size=p.shape)) + p for p in leaves]
        params[name] = jax.tree.unflatten(tree, noisy)
    return study.Trained(config, folder, preprocessing, params)


def test_teacher_forcing_on_a_sample_gives_it_back(showers, tmp_path, monkeypatch):
    """Flows at the contexts of a sample, from its noise, end at the sample: the same flows."""
    trained = untrained(showers, tmp_path, dataclasses.replace(SMOKE, **SMALL))
    solver, cond, key = runge_kutta("midpoint", 2), jnp.array([0.2, 0.7]), jax.random.key(5)
    keys = jax.random.split(key, 2)
    u = jax.vmap(trained.energy(solver).sample, (None, 0, 0))(trained.params["energy"], keys, cond)
    monkeypatch.setattr(training, "training_data", lambda *_: (Batch(u, cond), None))
    flow = training.energy_flow(trained, showers, key)
    assert flow.x0.shape == (2 * 45,)
    assert flow.per_shower == 45
    x0 = jax.vmap(lambda k: jax.random.normal(k, (45,)))(keys).reshape(-1)
    end = jax.vmap(
        lambda x, c: solver(lambda t, y: flow.velocity(flow.params, t, y, c), x), (0, 0)
    )(x0, flow.cond)
    np.testing.assert_allclose(end.reshape(2, 45), u, rtol=1e-4, atol=1e-4)
    assert np.std(u - x0.reshape(2, 45)) > 0.01


def test_flows_of_a_parallel_energy_and_a_latent_shape_network(showers, tmp_path):
    config = dataclasses.replace(SMOKE_LATENT, parallel_network=SMALL["parallel_network"])
    trained = untrained(showers, tmp_path, config)
    few = Showers(showers.energies[:3], showers.voxels[:3])
    flow = training.energy_flow(trained, few, jax.random.key(0))
    assert flow.x0.shape == (3, 45)
    assert flow.cond.shape == (3,)
    assert flow.per_shower == 1
    solver, key = runge_kutta("midpoint", 2), jax.random.key(7)
    u = trained.energy(solver).sample(trained.params["energy"], key, flow.cond[0])
    x0 = jax.random.normal(jax.random.split(key)[0], (45,))
    velocity = lambda t, x: flow.velocity(flow.params, t, x, flow.cond[0])
    np.testing.assert_allclose(solver(velocity, x0), u, rtol=1e-4, atol=1e-4)
    shape = training.shape_flow(trained, np.zeros((2, 46), np.float32), key)
    found = jax.eval_shape(shape.velocity, shape.params, jnp.zeros(()), shape.x0[0], shape.cond[0])
    assert found.shape == shape.x0.shape[1:]
    assert shape.x0.shape[1:] != GEOMETRY.shape


def test_the_best_solver_on_held_out_flows_is_stored_and_stays(tmp_path):
    """The exponential, where the errors of all solvers are known."""
    velocity = lambda params, t, x, cond: params * x
    x0 = jax.random.normal(jax.random.key(0), (20,))
    flow = training.Flow(velocity, jnp.float32(1.0), x0, jnp.zeros(20))
    options = training.SolverTraining(reference=SolverConfig("rk4", 20))
    pool = training.make_pool(flow, options)
    np.testing.assert_allclose(pool.states[:, -1], x0 * np.e, rtol=1e-5)
    solvers = {
        "euler": NonStationary.euler(4),
        "midpoint": NonStationary.from_runge_kutta(runge_kutta("midpoint", 2)),
    }
    judge = training.make_judge(flow, pool)
    store = lambda **s: training.store_best(tmp_path, "energy", s, judge)
    path = study.solver_path(tmp_path, "energy", 4)
    assert store(euler=solvers["euler"])["objective"] == "euler"
    found = store(**solvers)
    assert found["objective"] == "midpoint"
    held = np.sqrt(np.mean(np.asarray(x0[15:]) ** 2))
    expected = {"euler": np.e - 1.25**4, "midpoint": np.e - 1.625**2}
    for name, value in expected.items():
        assert found["held_out_rmse"][name] == pytest.approx(value * held, rel=1e-3)
    np.testing.assert_array_equal(load_solver(path).b, solvers["midpoint"].b)
    # A later study with worse solvers leaves it and its record alone.
    assert store(euler=solvers["euler"]) == found
    np.testing.assert_array_equal(load_solver(path).b, solvers["midpoint"].b)
    assert json.loads(path.with_suffix(".json").read_text()) == found


def test_learned_solvers_beat_their_start_on_a_flow():
    velocity = lambda params, t, x, cond: jnp.sin(5 * t + cond) - params * x
    k0, k1 = jax.random.split(jax.random.key(0))
    x0, cond = jax.random.normal(k0, (64,)), jax.random.uniform(k1, (64,))
    flow = training.Flow(velocity, jnp.float32(3.0), x0, cond, per_shower=4)
    options = training.SolverTraining(
        (8,), SolverConfig("rk4", 32), local_steps=300, global_evaluations=2400, batch_size=8
    )
    pool = training.make_pool(flow, options)
    judge = training.make_judge(flow, pool)
    known = [
        judge(NonStationary.from_runge_kutta(runge_kutta(name, 8 // stages)))
        for name, stages in (("midpoint", 2), ("kutta38", 4))
    ]
    start = training.best_start(judge, 8)
    assert judge(start) == min(known)
    for objective in training.OBJECTIVES:
        solver = training.train_solver(flow, pool, options, objective, start, jax.random.key(1))
        assert judge(solver) < 0.7 * min(known)


def test_distances_of_layers_and_errors_by_hand():
    rng = np.random.default_rng(0)
    layers = rng.exponential(100, size=(50, 45))
    assert compare_layers(GEOMETRY, layers, layers) == {"separation": 0, "wasserstein": 0}
    found = compare_layers(GEOMETRY, layers, layers + 7)
    assert found["wasserstein"] == pytest.approx(7)
    assert found["separation"] > 0
    difference = np.array([[3.0, 4.0], [0.0, 0.0]])
    found = root_mean_square(difference)
    assert found["rmse"] == pytest.approx((25 / 4) ** 0.5)
    # d sqrt(m) = d m / (2 sqrt(m)), where the mean m of 12.5 and 0 has the error 6.25 / sqrt(2).
    assert found["rmse_error"] == pytest.approx(6.25 / 2**0.5 / (2 * 2.5))


def test_a_timed_draw_is_the_draw():
    sample = lambda params, key, cond: params * cond + jax.random.normal(key)
    model, cond = GenerativeModel(None, None, sample), np.arange(10.0, dtype=np.float32)
    x, ms = timed_draw(model, jnp.float32(2.0), jax.random.key(0), 10, cond, 100)
    key = jax.random.fold_in(jax.random.key(0), 9)
    assert x[9] == pytest.approx(18 + float(jax.random.normal(key)))
    assert x.shape == (10,)
    assert ms > 0


@pytest.fixture(scope="module")
def small_study(showers, tmp_path_factory):
    """A run of the whole study, on an untrained model."""
    folder = tmp_path_factory.mktemp("bespoke")
    trained = untrained(showers, folder / "model", dataclasses.replace(SMOKE, **SMALL))
    learn = training.SolverTraining((4,), SolverConfig("rk4", 8), 8, 30, 120, 2)
    config = bespoke_solvers.Config(
        calodream=trained.config,
        energy=learn,
        shape=learn,
        num_energies=30,
        num_error=8,
        num_showers=40,
        fpd_batches=1,
        classifier=ClassifierConfig(hidden=(8,), batch_size=20, epochs=1, num_seeds=2),
    )
    reference = Showers(*[a[60:] for a in showers])
    both = Showers(*[a[:60] for a in showers]), reference
    patch = pytest.MonkeyPatch()
    patch.setattr(study, "load_showers", lambda config: both)
    patch.setattr(study, "train", lambda *args: trained)
    run = lambda **options: bespoke_solvers.main(config, folder / "out", **options)
    yield trained, folder / "out", run(), run
    patch.undo()


def test_the_study_measures_every_solver_of_both_networks(small_study):
    _, out, metrics, _ = small_study
    assert json.loads((out / "metrics.json").read_text()) == metrics
    solvers = (*RUNGE_KUTTA, *BESPOKE)
    for part, titles in TITLES.items():
        for metric in (*titles, "ms"):
            for name in solvers:
                assert metrics[f"{part}/{metric}/{name}/4"] >= 0
        for name in solvers:
            assert metrics[f"{part}/rmse/{name}/4"] > 0
        for metric in titles:
            for suffix in ("", "_time"):
                for kind in (".png", ".pdf"):
                    path = out / "figures" / f"{part}_{metric}{suffix}{kind}"
                    assert path.stat().st_size > 1000
    assert metrics["energy/separation_truth"] > metrics["energy/separation/midpoint/4"]
    assert 0 <= metrics["shape/auc_high_truth"] <= 1


def test_the_better_solver_is_stored_with_the_model_and_found_by_name(small_study):
    trained, out, _, _ = small_study
    for part in ("energy", "shape"):
        record = json.loads(
            study.solver_path(trained.folder, part, 4).with_suffix(".json").read_text()
        )
        errors = record["held_out_rmse"]
        assert set(errors) == {"global", "local"}
        assert record["objective"] == min(errors, key=errors.get)
        stored = trained.solver(part, "bespoke-4")
        mine = load_solver(out / "solvers" / f"{part}-{record['objective']}-4.npz")
        np.testing.assert_array_equal(stored.b, mine.b)
        np.testing.assert_array_equal(stored.log_dt, mine.log_dt)


def test_a_finished_study_is_not_done_again_and_plots_again(small_study, monkeypatch):
    _, out, metrics, run = small_study

    monkeypatch.setattr(bespoke_solvers, "_measure_all", None)
    figure = out / "figures" / "shape_fpd_time.png"
    figure.unlink()
    assert run() == metrics
    assert figure.exists()


def test_solvers_have_names(showers, tmp_path):
    trained = study.Trained(SMOKE, tmp_path, None, {})
    assert trained.solver("shape", "kutta38-8") == SolverConfig("kutta38", 2).make()
    assert isinstance(trained.solver("energy", "euler-7"), RungeKutta)
    save_solver(study.solver_path(tmp_path, "shape", 6), NonStationary.euler(6))
    assert trained.solver("shape", "bespoke-6").n_eval == 6
    for name, message in (
        ("rk4-6", "rk4 takes 4 evaluations a step"),
        ("bespoke", "METHOD-EVALUATIONS"),
        ("bespoke-8", r"there are \['shape-bespoke-6.npz'\].*bespoke_solvers --model"),
        ("leapfrog-4", "unknown Runge-Kutta method 'leapfrog'"),
    ):
        with pytest.raises(ValueError, match=message):
            trained.solver("shape", name)


def test_bad_options(tmp_path):
    config = bespoke_solvers.Config()
    odd = dataclasses.replace(config.shape, n_evals=(4, 6))
    for changed, message in (
        ({"shape": odd}, r"shape: n_evals must be multiples of 4, got \[6\]"),
        ({"num_showers": 10}, "too few for the classifiers"),
        ({"model": str(tmp_path)}, "holds no run"),
    ):
        with pytest.raises(ValueError, match=message):
            bespoke_solvers.main(dataclasses.replace(config, **changed), tmp_path / "out")
    assert not (tmp_path / "out").exists()
