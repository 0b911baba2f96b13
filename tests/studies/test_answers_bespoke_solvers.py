"""The study of bespoke solvers: what it keeps, and errors that are known."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.showers.bespoke_solvers import study, training
from jgen import load
from jgen.showers import calodream
from jgen.showers.calodream import Flow
from jgen.solvers import NonStationary, SolverConfig, runge_kutta


def test_learned_solvers_beat_the_best_runge_kutta_method():
    velocity = lambda params, t, x, cond: jnp.sin(5 * t + cond) - params * x
    k0, k1 = jax.random.split(jax.random.key(0))
    x0, cond = jax.random.normal(k0, (64,)), jax.random.uniform(k1, (64,))
    flow = Flow(velocity, jnp.float32(3.0), x0, cond, per_shower=4)
    config = training.SolverTraining(
        (8,), SolverConfig("rk4", 32), local_steps=300, global_evaluations=2400, batch_size=8
    )
    pool = training.trajectories(flow, config)
    methods = runge_kutta("midpoint", 4), runge_kutta("kutta38", 2)
    known = [pool.error(NonStationary.from_runge_kutta(method)) for method in methods]
    assert pool.error(pool.start(8)) == min(known)
    solvers = training.learn(pool, config, 8, jax.random.key(1))
    errors = {objective: pool.error(solver) for objective, solver in solvers.items()}
    assert max(errors.values()) < 0.7 * min(known)


def test_root_mean_squares_by_hand():
    found = study.root_mean_square(np.array([[3.0, 4.0], [0.0, 0.0]]))
    assert found.value == pytest.approx((25 / 4) ** 0.5)
    # d sqrt(m) = d m / (2 sqrt(m)), where the mean m of 12.5 and 0 has the error 6.25 / sqrt(2).
    assert found.error == pytest.approx(6.25 / 2**0.5 / (2 * 2.5))
    assert study.root_mean_square(np.zeros((3, 2))) == (0, 0)


@pytest.mark.study
def test_the_better_solver_is_stored_with_the_model_and_found_by_name(smoke):
    out = Path(smoke("bespoke_solvers"))
    trained = calodream.load(out / "calodream")
    metrics = json.loads((out / "metrics.json").read_text())
    for part in ("energy", "shape"):
        path = calodream.solver_path(trained.folder, part, 8)
        record = json.loads(path.with_suffix(".json").read_text())
        errors = record["held_out_rmse"]
        assert set(errors) == {"global", "local"}
        assert record["objective"] == min(errors, key=errors.get)
        stored = trained.solver(part, "bespoke-8")
        mine = load(out / "solvers" / f"{part}-8.npz")[record["objective"]]
        np.testing.assert_array_equal(stored.b, mine["b"])
        np.testing.assert_array_equal(stored.log_dt, mine["log_dt"])
    errors = {name: metrics[f"energy/rmse/{name}/8"] for name in study.SOLVERS}
    learned = [errors.pop(name) for name in study.BESPOKE]
    assert max(learned) < min(errors.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shape.n-evals", 4, 6), r"n_evals must be multiples of 4, got \[6\]"),
        (("--energy.num-pool", 3), "num_pool must be at least 4"),
        (("--num-showers", 10), "too few for the classifiers"),
        (("--model", "nowhere"), "nowhere holds no run"),
    ],
)
def test_bad_options(options, message, command):
    with pytest.raises(SystemExit, match=message):
        command("bespoke_solvers", *options, "--dry-run")


def test_more_showers_than_there_are_leave_no_folder(command, tmp_path):
    with pytest.raises(SystemExit, match="num_showers is 151, but the model's sample"):
        command("bespoke_solvers", "--num-showers", 151, "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()
