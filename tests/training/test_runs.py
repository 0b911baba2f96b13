import json
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.files import atomic_path, load, save
from jgen.training import MetricsLog, OptimizerConfig, RunFolder


@dataclass(frozen=True)
class Config:
    seed: int = 0
    sizes: tuple[int, ...] = (1, 2)
    optimizer: OptimizerConfig = OptimizerConfig()


def test_same_config_resumes_and_a_changed_one_is_refused(tmp_path):
    folder = tmp_path / "run"
    RunFolder(folder, Config())
    RunFolder(folder, Config())
    stored = json.loads((folder / "config.json").read_text())
    assert stored["optimizer"]["learning_rate"] == 1e-3
    assert json.loads((folder / "env.json").read_text())["packages"]["jax"]
    changed = Config(sizes=(1, 3), optimizer=OptimizerConfig(learning_rate=0.1))
    with pytest.raises(
        ValueError, match=r"optimizer.learning_rate: 0.001 -> 0.1; sizes: \[1, 2\] -> \[1, 3\]"
    ):
        RunFolder(folder, changed)


def test_an_option_that_is_new_was_at_its_default(tmp_path):
    folder = tmp_path / "run"
    RunFolder(folder, Config())
    stored = json.loads((folder / "config.json").read_text())
    del stored["optimizer"]["clip_norm"], stored["sizes"]
    (folder / "config.json").write_text(json.dumps(stored))
    RunFolder(folder, Config())
    changed = Config(optimizer=OptimizerConfig(clip_norm=1.0))
    with pytest.raises(ValueError, match=r"\(optimizer.clip_norm: 0.0 -> 1.0\)"):
        RunFolder(folder, changed)
    del stored["seed"]
    (folder / "config.json").write_text(json.dumps(stored | {"old": 1}))
    with pytest.raises(ValueError, match=r"\(old: 1 -> None\)"):
        RunFolder(folder, Config())


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(ValueError, match="not empty and holds no config.json"):
        RunFolder(tmp_path, Config())


def test_metrics_must_be_finite(tmp_path):
    run = RunFolder(tmp_path / "run", Config())
    with pytest.raises(ValueError, match="'auc': nan"):
        run.write_metrics({"auc": float("nan"), "loss": 1.0})
    run.write_metrics({"auc": 0.5})
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == {"auc": 0.5}


def test_log_survives_half_a_line_and_forgets_the_future(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        log.append({"step": step})
    with log.path.open("a") as file:
        file.write('{"step": 4, "lo')
    assert [row["step"] for row in log.read()] == [1, 2, 3]
    log.truncate(2)
    assert log.path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail():
        with atomic_path(path) as partial:
            partial.write_text("new")
            raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_parameters_are_restored_and_those_of_another_model_refused(tmp_path):
    init = lambda key: {"a": {"kernel": jnp.zeros((2, 3))}, "b": [jnp.zeros(4), jnp.zeros(())]}
    params = jax.tree.map(
        lambda a: np.random.default_rng(0).normal(size=a.shape).astype(np.float32), init(None)
    )
    save(tmp_path / "params.npz", params)
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "params.npz", init), params)
    other = lambda key: {"a": {"kernel": jnp.zeros((3, 2))}, "b": [jnp.zeros(4), jnp.zeros(())]}
    with pytest.raises(ValueError, match="is of another model"):
        load(tmp_path / "params.npz", other)
