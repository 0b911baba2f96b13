"""Trainings that end early, schedules that look at the loss, and who is told about it."""

import dataclasses
import os
import signal
import struct
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgen import Batch, GenerativeModel, OptimizerConfig, TrainConfig, fit
from jgen.training import game_optimizer, make_optimizer, tensorboard, weights_and_biases
from jgen.training.checkpoint import Checkpoints

KEY = jax.random.key(0)
DATA = Batch(np.zeros((8, 1), np.float32))
# Each step takes `at` one further; it is best at `goal`.
MODEL = GenerativeModel(
    lambda key: {"at": jnp.zeros(()), "goal": jnp.zeros(())},
    lambda params, key, batch: -params["at"] + 0 * params["goal"],
    None,
)
GOALS = {"at": np.zeros(2, np.float32), "goal": np.array([4.0, 10.0], np.float32)}
CONFIG = TrainConfig(
    steps=40, batch_size=2, ensemble=2, keep="best", validate_every=2, patience=3, save_every=3
)


def distance(params, key, validation):
    return (params["at"] - params["goal"]) ** 2


def train(folder=None, callbacks=(), optimizer=optax.sgd(1.0), **changes):  # noqa: B008
    config = dataclasses.replace(CONFIG, **changes)
    options = {"devices": jax.devices()[:1], "progress": False, "initial": GOALS}
    options |= {"validation": DATA, "score": distance, "optimizer": optimizer}
    return fit(MODEL, DATA, KEY, config, folder=folder, callbacks=callbacks, **options)


@pytest.mark.parametrize(("patience", "last"), [(1, 12), (3, 16), (0, 40)])
def test_a_training_ends_when_the_last_member_has_run_out_of_patience(patience, last):
    fitted = train(patience=patience)
    assert fitted.state.step.tolist() == [last, last]
    assert fitted.history[-1]["step"] == last
    np.testing.assert_array_equal(fitted.params["at"], GOALS["goal"])


def test_the_last_parameters_can_be_kept_too():
    np.testing.assert_array_equal(train(keep="last").params["at"], [16, 16])


@pytest.mark.parametrize(("crash", "schedule"), [(9, "plateau"), (3, None), (13, None)])
def test_an_interrupted_one_ends_where_it_would_have_ended(tmp_path, crash, schedule):
    options = {"log_every": 1}
    if schedule:
        config = OptimizerConfig(1.0, schedule, plateau_window=2, plateau_patience=1)
        options |= {"optimizer": make_optimizer(config, 40), "keep": "last"}
    whole, seen = train(**options), []

    def stop(step, metrics):
        if step == crash:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, [stop], **options)
    # Nothing is written or deleted any more, with which this process's next training would collide.
    saved = {p.name for p in (tmp_path / "checkpoints").iterdir()}
    assert saved == {str(step) for step in (3, 6, 9, 12) if crash - 6 <= step < crash}
    for repeat in range(2):
        before = len(seen)
        resumed = train(tmp_path, [lambda step, metrics: seen.append(step)], **options)
        jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
        jax.tree.map(np.testing.assert_array_equal, resumed.state, whole.state)
        assert [r["step"] for r in resumed.history] == [r["step"] for r in whole.history]
        assert seen == [r["step"] for r in whole.history][-len(seen) :]
        assert (len(seen) > before) == (repeat == 0)  # a finished one has nothing to do


@pytest.mark.parametrize("shift", [0.0, -100.0])
def test_a_plateau_lowers_the_rate(shift):
    """Windows of two losses: the means fall twice and then no more, also below zero."""
    config = OptimizerConfig(
        1.0, "plateau", plateau_window=2, plateau_patience=2, plateau_factor=0.25
    )
    optimizer = make_optimizer(config, 100)
    losses = [3, 3, 2, 2, 1, 3, 2.5, 2.5, 2, 2, 9, 9, 1, 1, 0, 0]
    state, moves = optimizer.init(jnp.zeros(1)), []
    update = jax.jit(optimizer.update)
    for loss in losses:
        move, state = update(jnp.ones(1), state, jnp.zeros(1), value=jnp.float32(loss + shift))
        moves.append(-float(move[0]))
    # Minima in the windows 1 and 2; two without until 4, two more until 6, and one in each after.
    expected = [1.0] * 7 + [0.25] * 4 + [0.0625] * 5
    np.testing.assert_allclose(moves, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patience": -1}, "patience must be a whole number from 0"),
        ({"optimizer": OptimizerConfig(plateau_factor=1.0)}, "plateau_factor must be between 0"),
        ({"optimizer": OptimizerConfig(plateau_window=0)}, "plateau_window must be a whole"),
    ],
)
def test_options_out_of_range_are_refused(changes, message):
    config = dataclasses.replace(CONFIG, **changes)
    with pytest.raises(ValueError, match=message):
        fit(MODEL, DATA, KEY, config, validation=DATA)


def test_what_cannot_be_watched_is_refused():
    plain = dataclasses.replace(CONFIG, keep="last")
    with pytest.raises(ValueError, match="patience=3 counts validations; give validation data"):
        fit(MODEL, DATA, KEY, plain)
    with pytest.raises(ValueError, match="without data nothing says when to stop early"):
        fit(MODEL, None, KEY, plain)
    with pytest.raises(ValueError, match="do not say how good critic is"):
        game_optimizer({"critic": OptimizerConfig(schedule="plateau")}, 10)
    with pytest.raises(ValueError, match="callbacks must be functions .step, metrics., got _Gen"):
        train(callbacks=[tensorboard("somewhere")])
    with pytest.raises(ValueError, match="callbacks must be a list of functions"):
        train(callbacks=print)


@pytest.mark.parametrize("when", ["last step", "closing", "nothing left"])
def test_a_sigterm_that_no_step_is_left_to_see_ends_the_process(tmp_path, when, monkeypatch):
    """Swallowed, it would let the next training of a study begin."""
    end = lambda: os.kill(os.getpid(), signal.SIGTERM)
    handler, callbacks = signal.getsignal(signal.SIGTERM), []
    if when == "last step":
        callbacks = [lambda step, metrics: end() if step == 16 else None]
    else:
        name, call = {
            "closing": ("__exit__", Checkpoints.__exit__),
            "nothing left": ("newest", Checkpoints.newest),
        }[when]
        if when == "nothing left":
            train(tmp_path)
        monkeypatch.setattr(Checkpoints, name, lambda *args: (end(), call(*args))[1])
    with pytest.raises(SystemExit, match="143"):
        train(tmp_path, callbacks)
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGTERM) is handler
    np.testing.assert_array_equal(train(tmp_path).params["at"], GOALS["goal"])


def test_a_failed_write_is_told_and_leaves_nothing_open(tmp_path, monkeypatch):
    import orbax.checkpoint as ocp

    closed, close = [], ocp.CheckpointManager.close

    def fail(manager):
        monkeypatch.undo()
        monkeypatch.setattr(ocp.CheckpointManager, "close", lambda m: (closed.append(1), close(m)))
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), Checkpoints(tmp_path):
        monkeypatch.setattr(ocp.CheckpointManager, "wait_until_finished", fail)
    assert closed == [1]


def test_callbacks_are_told_what_the_log_has():
    told = []
    fitted = train(callbacks=[lambda step, metrics: told.append({"step": step} | metrics)])
    assert told == fitted.history
    assert {"loss", "validation_loss"} <= {name for row in told for name in row}


def test_tensorboard_has_the_numbers_of_each_member(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    with tensorboard(tmp_path) as log:
        fitted = train(callbacks=[log])
    [file] = tmp_path.iterdir()
    content, found = file.read_bytes(), {}
    while content:  # records: length, its check sum, an event, its check sum
        [length] = struct.unpack("<Q", content[:8])
        event = Event.FromString(content[12 : 12 + length])
        for value in event.summary.value:
            found[value.tag, event.step] = value.simple_value
        content = content[16 + length :]
    for row in fitted.history:
        if "validation_loss" in row:
            for i, loss in enumerate(row["validation_loss"]):
                assert found["validation_loss/" + str(i), row["step"]] == pytest.approx(loss)
    assert ("seconds", 10) in found


def test_weights_and_biases_is_told_in_its_way(monkeypatch):
    logged, finished = [], []

    class Run:
        __enter__ = lambda self: self
        __exit__ = lambda self, *_: finished.append(True) and None
        log = lambda self, values, step: logged.append((step, values))

    fake = types.SimpleNamespace(init=lambda **options: Run() if options["mode"] else None)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with weights_and_biases(mode="offline") as log:
        fitted = train(callbacks=[log])
        assert not finished
    assert finished
    assert [step for step, _ in logged] == [row["step"] for row in fitted.history]
    assert logged[-1][1] == {
        f"validation_loss/{i}": loss for i, loss in enumerate(fitted.history[-1]["validation_loss"])
    }


@pytest.mark.parametrize(
    ("package", "make"),
    [("tensorboardX", lambda: tensorboard("x")), ("wandb", lambda: weights_and_biases())],
)
def test_a_missing_package_is_named(monkeypatch, package, make):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=f"pip install {package}"), make():
        pass
