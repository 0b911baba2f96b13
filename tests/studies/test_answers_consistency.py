"""The study of consistency functions: its students, its summary and its options."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.showers import consistency
from experiments.showers.consistency import OBSERVABLES, SMOKE, distilled_parts
from jgen.showers import calodream

TEACHER = SMOKE.calodream
LATENT = ("--calodream.space", "latent", "--calodream.shape-network.patch", 5, 9, 3)


@pytest.mark.parametrize(
    ("part", "cond"), [("energy", jnp.float32(0.4)), ("shape", jnp.linspace(-1, 1, 46))]
)
def test_a_student_with_the_teachers_parameters_is_one_step_of_euler(part, cond):
    """From the same noise: on a linear path the consistency function starts as x + (1 - t) u."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(calodream.parts(TEACHER)[part].model.init, jax.random.key(0))
    params = jax.tree.map(lambda p: 0.1 * np.float32(rng.normal(size=p.shape)), shapes)
    trained = calodream.Trained(TEACHER, "nowhere", None, {part: params})
    teacher = trained.with_solvers(**{part: "euler-1"}).parts[part].model
    student = consistency._function(trained, part)
    found, expected = (
        jax.jit(model.sample)(params, jax.random.key(3), cond) for model in (student, teacher)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_an_autoregressive_energy_network_is_left_as_it_is():
    assert distilled_parts(dataclasses.replace(TEACHER, energies="autoregressive")) == ("shape",)
    assert distilled_parts(TEACHER) == ("energy", "shape")


@pytest.mark.study
def test_the_summary_is_of_the_teacher_and_its_students(smoke):
    metrics = json.loads((smoke("consistency") / "metrics.json").read_text())
    assert SMOKE.rows == ("euler/2", "consistency/1")
    ratios = [metrics[f"w1/consistency/1/{n}"] / metrics[f"w1/euler/2/{n}"] for n in OBSERVABLES]
    assert metrics["largest_w1_ratio"] == pytest.approx(max(ratios))
    times = [metrics[f"ms_per_shower/{row}"] for row in SMOKE.rows]
    assert metrics["speedup"] == pytest.approx(times[0] / times[1])
    assert all(metrics[f"w1/truth/{name}"] > 0 for name in OBSERVABLES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--teacher", "euler-3"), "the teacher 'euler-3' is none of the solvers"),
        (("--solvers", "euler-2", "eular-4"), "method must be one of .*'eular'"),
        (("--solvers", "euler-2", "midpoint-3"), "midpoint takes 2 evaluations a step"),
        (("--solvers", "euler-2", "bespoke-4"), "does not exist"),
        (("--trajectories", "heun-3"), "heun takes 2 evaluations a step"),
        (("--energy.trajectories", 0), "trajectories must be at least 1, got 0"),
        (("--cut", 1.0), "cut must be at least 0 and less than 1, got 1.0"),
        (("--num-showers", 10), "num_showers must be at least 40"),
        (LATENT, "distils models of voxels"),
        (("--model", "nowhere"), "nowhere holds no run"),
    ],
)
def test_bad_options(options, message, command):
    with pytest.raises(SystemExit, match=message):
        command("consistency", *options, "--dry-run")
