"""A folder gives back its own training, and no other one's."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from jgen.generative_model import Batch
from jgen.models import flow_matching
from jgen.nets import velocity_mlp
from jgen.training import OptimizerConfig, RunFolder, TrainConfig, fit

X = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
MODEL = flow_matching(velocity_mlp(2, hidden=(8,)), (2,))
CONFIG = TrainConfig(
    steps=20, batch_size=8, save_every=5, optimizer=OptimizerConfig(schedule="constant")
)


def train(folder, x=X, key=0, model=MODEL, extend=False, **changes):
    config = dataclasses.replace(CONFIG, **changes)
    options = {"folder": folder, "extend": extend, "devices": jax.devices()[:1]}
    return fit(model, Batch(x), jax.random.key(key), config, progress=False, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training") / "one"
    return folder, train(folder).params


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": X + 1}, "other data;"),
        ({"x": X[::-1]}, "other data;"),
        ({"key": 1}, "other key;"),
        (
            {"optimizer": OptimizerConfig(0.01, "constant")},
            r"optimizer.learning_rate \(0.001 -> 0.01",
        ),
        ({"batch_size": 16}, r"batch_size \(8 -> 16\)"),
        ({"members": "bootstrap"}, r"members \('plain' -> 'bootstrap'\)"),
        ({"steps": 40}, r"steps \(20 -> 40\).*extend=True"),
    ],
)
def test_another_training_is_not_given_back(finished, changes, message):
    with pytest.raises(ValueError, match=message):
        train(finished[0], **changes)


def test_the_same_training_is_given_back_and_may_be_extended(finished, tmp_path):
    assert_equal(train(finished[0], log_every=7, save_every=3).params, finished[1])
    folder = shutil.copytree(finished[0], tmp_path / "longer")
    assert_equal(train(folder, steps=40, extend=True).params, train(None, steps=40).params)


def test_the_momentum_of_muon_is_resumed(tmp_path):
    changes = {
        "optimizer": OptimizerConfig(schedule="constant", method="muon"),
        "ensemble": 2, "ema_decay": 0.9,
    }  # fmt: skip
    train(tmp_path / "one", **changes)
    longer = train(tmp_path / "one", steps=40, extend=True, **changes)
    assert_equal(longer.params, train(None, steps=40, **changes).params)


def test_a_folder_of_a_version_with_fewer_options_is_resumed(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "older")
    record = json.loads((folder / "training.json").read_text())
    for name in ("patience", "optimizer.plateau_window"):
        del record[name]
    (folder / "training.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"patience \(0 -> 2\)"):
        fit(
            MODEL,
            Batch(X),
            jax.random.key(0),
            dataclasses.replace(CONFIG, patience=2),
            validation=Batch(X),
            folder=folder,
        )
    assert_equal(train(folder).params, finished[1])


def test_a_damaged_checkpoint_is_left_for_the_one_before(finished, tmp_path):
    for name, damage in (
        ("cut", lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])),
        ("emptied", lambda path: path.unlink()),
    ):
        folder = shutil.copytree(finished[0], tmp_path / name)
        for path in (folder / "checkpoints" / "20").rglob("*"):
            if path.is_file():
                damage(path)
        with pytest.warns(UserWarning, match="checkpoint of step 20.*damaged"):
            resumed = train(folder)
        assert_equal(resumed.params, finished[1])
        assert_equal(train(folder).params, finished[1])  # and the folder is whole again
    folder = shutil.copytree(finished[0], tmp_path / "empty")
    (folder / "checkpoints" / "99").mkdir()
    with pytest.warns(UserWarning, match="checkpoint of step 99.*damaged"):
        assert_equal(train(folder).params, finished[1])
    folder = shutil.copytree(finished[0], tmp_path / "all")
    for path in (folder / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(ValueError, match="all checkpoints.*delete the folder"),
    ):
        train(folder)


def test_checkpoints_of_another_model_are_named_as_such(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "other")
    wider = flow_matching(velocity_mlp(2, hidden=(9,)), (2,))
    with pytest.raises(ValueError, match="another model, ensemble or optimiser"):
        train(folder, model=wider)
    assert_equal(train(folder).params, finished[1])  # nothing was deleted


def test_parameters_that_are_not_finite_are_no_result():
    """The loss of the only step is that before its update."""
    rate = OptimizerConfig(learning_rate=1e38, schedule="constant", weight_decay=1e38)
    with pytest.raises(
        FloatingPointError, match="parameters of member 0 are not finite after step 1"
    ):
        train(None, steps=1, optimizer=rate)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep": "first"}, "keep must be one of last, best, got 'first'"),
        ({"axis": "pmap"}, "axis must be one of auto, vmap, scan, got 'pmap'"),
        ({"optimizer": OptimizerConfig(-1e-3)}, "learning_rate must be positive"),
        ({"optimizer": OptimizerConfig(float("nan"))}, "learning_rate must be positive"),
        (
            {"optimizer": OptimizerConfig(weight_decay=-1.0)},
            "weight_decay must be zero or positive",
        ),
        ({"optimizer": OptimizerConfig(epsilon=-1.0)}, "epsilon must be positive"),
        ({"optimizer": OptimizerConfig(clip_norm=-1.0)}, "clip_norm must be zero"),
        (
            {"optimizer": OptimizerConfig(schedule="linear")},
            "schedule must be one of constant, cosine, onecycle, plateau, got 'linear'",
        ),
        ({"steps": float("nan")}, "steps must be a whole number from 1"),
    ],
)
def test_options_are_checked_in_python_too(changes, message):
    with pytest.raises(ValueError, match=message):
        train(None, **changes)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.tile([1.0, -1.0], 32) + 1e-17, "no tiny fraction"),
        (np.r_[np.tile([1.0, -1.0], 31), 1.0, -1.0 + 1e-15], "no tiny fraction"),
        (np.ones((64, 1)), r"weight must have the shape \(64,\).*got \(64, 1\)"),
    ],
)
def test_weights_without_a_sum_and_of_another_shape(weight, message):
    with pytest.raises(ValueError, match=message):
        fit(MODEL, Batch(X, weight=weight), jax.random.key(0), CONFIG, progress=False)


@dataclasses.dataclass(frozen=True)
class Config:
    data: tuple[str, ...] = ()
    model: str = ""
    seed: int = 0


def test_a_run_of_files_that_changed_is_refused(tmp_path):
    file, out = tmp_path / "showers.h5", tmp_path / "run"
    file.write_bytes(b"one")
    with RunFolder(tmp_path / "trained", Config()) as trained:
        first = trained.fit("net", MODEL, Batch(X), CONFIG, progress=False)
        again = trained.fit("net", MODEL, Batch(X), CONFIG, progress=False)
        assert_equal(again.params, first.params)
        with pytest.raises(ValueError, match="other data;"):
            trained.fit("net", MODEL, Batch(X + 1), CONFIG, progress=False)
    config = Config((str(file),), str(tmp_path / "trained"))
    RunFolder(out, config).close()
    RunFolder(out, config).close()
    file.write_bytes(b"two")
    with pytest.raises(ValueError, match=r"data \(.*showers.h5\) of .* has changed since"):
        RunFolder(out, config)
    file.write_bytes(b"one")
    (tmp_path / "trained" / "net" / "params.npz").write_bytes(b"trained anew")
    with pytest.raises(ValueError, match=r"model \(.*trained\) of .* has changed since"):
        RunFolder(out, config, read_only=True)


def test_a_damaged_configuration_is_named(tmp_path):
    RunFolder(tmp_path, Config()).close()
    for text, message in (
        ('{"seed": ', "is damaged"),
        (json.dumps([1]), "is damaged .it holds a list, no object.; restore it, or choose"),
        ("", "is damaged .it is empty."),
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=rf"config.json.*{message}"):
            RunFolder(tmp_path, Config())
