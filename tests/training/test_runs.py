import json
import re
import socket
import subprocess
import sys
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import Batch, Estimate, GenerativeModel, TrainConfig
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


def test_a_stage_is_computed_once(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"auc": Estimate(0.5, 0.1), "x": jnp.arange(3), "name": "flow"}

    with RunFolder(tmp_path / "run", Config()) as run:
        first = run.cached("moons/flow", compute)
        again = run.cached("moons/flow", compute)
        assert len(calls) == 1
        for found in (first, again, run.stage("moons/flow")):
            assert found["auc"] == Estimate(0.5, 0.1)
            assert found["name"] == "flow"
            np.testing.assert_array_equal(found["x"], np.arange(3))

        def fail():
            raise RuntimeError("interrupted")

        with pytest.raises(RuntimeError, match="interrupted"):
            run.cached("other", fail)
        assert run.cached("other", lambda: np.float32(2.0)) == 2.0


LINE = GenerativeModel(
    init=lambda key: {"slope": jnp.zeros(())},
    loss=lambda params, key, batch: jnp.mean((batch.x - params["slope"]) ** 2),
    sample=lambda params, key, cond=None: params["slope"],
)
DATA = Batch(np.linspace(0, 2, 64, dtype=np.float32))
TRAINING = TrainConfig(steps=20, batch_size=16, optimizer=OptimizerConfig(learning_rate=0.1))


def test_a_training_is_done_once(tmp_path):
    path = tmp_path / "run"
    with RunFolder(path, Config()) as run:
        fitted = run.fit("line", LINE, lambda: DATA, TRAINING, progress=False)
        assert fitted.one["slope"] > 0.5
    with RunFolder(path, Config()) as run:
        again = run.fit("line", LINE, lambda: DATA, TRAINING, progress=False)
        assert again.state is None
        assert again.one == fitted.one
        assert again.history == fitted.history == run.history("line")
        assert again.seconds == fitted.seconds > 0
        with pytest.raises(ValueError, match="data"):
            run.fit("line", LINE, DATA._replace(x=DATA.x + 1), TRAINING, progress=False)
        other = LINE._replace(init=lambda key: {"offset": jnp.zeros(())})
        with pytest.raises(ValueError, match="'offset'"):
            run.fit("line", other, DATA, TRAINING, progress=False)
    with RunFolder(path, Config(), read_only=True) as run:
        # Data are not needed to read.
        unused = lambda: pytest.fail("data were made")
        assert run.fit("line", LINE, unused, TRAINING).one == fitted.one


@pytest.mark.parametrize("kind", [np.float64, ">f4", list])
def test_a_finished_training_knows_its_data_in_any_precision(tmp_path, kind):
    x = np.asarray(DATA.x)
    data = DATA._replace(x=x.tolist() if kind is list else x.astype(kind))
    for _ in range(2):
        with RunFolder(tmp_path / "run", Config()) as run:
            fitted = run.fit("line", LINE, data, TRAINING, validation=data, progress=False)
    assert fitted.state is None


def test_reading_only_changes_nothing_and_misses_what_is_not_there(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(ValueError, match="holds no run to read"):
        RunFolder(path, Config(), read_only=True)
    assert not path.exists()
    with RunFolder(path, Config()) as run:
        run.cached("stage", lambda: np.arange(2))
        run.write_metrics({"auc": 0.5})
    with RunFolder(path, Config(), read_only=True) as run:
        np.testing.assert_array_equal(run.cached("stage", lambda: 1 / 0), np.arange(2))
        with pytest.raises(ValueError, match=r"other.npz is not there to plot"):
            run.cached("other", lambda: 1 / 0)
        with pytest.raises(ValueError, match="params.npz is not there to plot"):
            run.fit("line", LINE, DATA, TRAINING)
        run.write_metrics({"auc": 0.7})
        assert json.loads((path / "metrics.json").read_text()) == {"auc": 0.5}


# Holds a run folder, says so, and waits to be killed.
HOLD = """
import sys, time
from dataclasses import dataclass
from jgen.training import RunFolder

@dataclass(frozen=True)
class Config:
    seed: int = 0

run = RunFolder(sys.argv[1], Config())
print("open", flush=True)
time.sleep(60)
"""


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    @dataclass(frozen=True)
    class Same:
        seed: int = 0

    path = tmp_path / "run"
    other = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "open\n"
        owner = f"in use by process {other.pid} on {re.escape(socket.gethostname())}"
        with pytest.raises(ValueError, match=owner):
            RunFolder(path, Same())
        RunFolder(path, Same(), read_only=True).close()
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    with RunFolder(path, Same()) as run, RunFolder(path, Same()):  # this process may, twice
        assert run.key("a") != run.key("b")


def test_damaged_files_of_a_run_are_named_with_what_to_do(tmp_path):
    """Emptied, cut, or of other bytes."""
    model = GenerativeModel(
        lambda key: jnp.zeros(2),
        lambda params, key, batch: jnp.mean((params[None] - batch.x) ** 2),
        None,
    )
    config = TrainConfig(steps=2, batch_size=8, save_every=2)
    data = Batch(np.ones((8, 2), np.float32))

    def run():
        with RunFolder(tmp_path, Config()) as folder:
            folder.cached("stage", lambda: {"a": np.arange(3)})
            folder.fit("net", model, data, config, progress=False)
            folder.history("net")

    run()
    for name, advice in (
        ("config.json", "restore it, or choose another --out"),
        ("inputs.json", "restore it, or choose another --out"),
        ("stage.npz", "delete it, to compute it again"),
        ("net/training.json", "restore it, or choose another folder"),
        ("net/params.npz", "delete it, and the training ends again"),
        ("net/metrics.jsonl", r"restore it, or delete .*net to train again"),
    ):
        path = tmp_path / name
        whole = path.read_bytes()
        for content in (b"", whole[: len(whole) // 3], b"\xff\x00" * 20):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=rf"{name}.*; {advice}"):
                run()
        path.write_bytes(whole)
        run()
    for name in ("stage.npz", "net/params.npz"):
        whole = load(tmp_path / name)
        (tmp_path / name).unlink()
        run()
        jax.tree.map(np.testing.assert_array_equal, load(tmp_path / name), whole)


def test_damaged_lines_of_a_log_are_left_out_with_a_warning(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        log.append({"step": step})
    for bad in ("{", "[1]", '{"loss": 1}', '{"step": null}', "\x00"):
        lines = log.path.read_text().splitlines()
        log.path.write_text("\n".join([lines[0], bad, lines[2]]) + "\n")
        with pytest.warns(UserWarning, match=r"1 lines of .*metrics.jsonl are damaged.* line 2"):
            assert [row["step"] for row in log.read()] == [1, 3]
    log.path.write_bytes(log.path.read_bytes() + b'{"step": 4')
    log.path.write_text(log.path.read_text().replace("\x00\n", ""))
    assert [row["step"] for row in log.read()] == [1, 3]
