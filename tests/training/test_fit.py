import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgen.generative_model import Batch, GenerativeModel, mean_loss
from jgen.models import flow_matching
from jgen.nets import velocity_mlp
from jgen.random import member_keys, stream
from jgen.training import OptimizerConfig, TrainConfig, fit, make_optimizer, make_step, member

X = np.random.default_rng(0).normal(size=(256, 2)).astype(np.float32)
MODEL = flow_matching(velocity_mlp(2, hidden=(16, 16)), (2,))
CONFIG = TrainConfig(steps=12, batch_size=32, ensemble=4, log_every=1)


def losses(fitted):
    return np.array([row["loss"] for row in fitted.history if "loss" in row])


def run(config=CONFIG, devices=1, **kwargs):
    kwargs = {"progress": False, "devices": jax.devices()[:devices]} | kwargs
    return fit(MODEL, Batch(X), jax.random.key(1), config, **kwargs)


def replace(config, **changes):
    import dataclasses

    return dataclasses.replace(config, **changes)


@pytest.mark.parametrize("axis", ["scan", "vmap"])
def test_each_member_is_its_solo_run(axis):
    """Member i against a plain loop over the step with its own key."""
    found = losses(run(replace(CONFIG, axis=axis)))
    step = make_step(MODEL, make_optimizer(CONFIG.optimizer, CONFIG.steps), CONFIG.batch_size)
    root, init, update = jax.random.key(1), jax.jit(step.init), jax.jit(step.update)
    for i in range(CONFIG.ensemble):
        state = init(member_keys(stream(root, "init"), 1, first=i)[0])
        key = member_keys(stream(root, "train"), 1, first=i)[0]
        for n in range(CONFIG.steps):
            state, metrics = update(state, key, Batch(X))
            np.testing.assert_allclose(found[n, i], metrics["loss"], rtol=1e-4)
    assert np.std(found[0]) > 0


def test_members_stay_when_the_ensemble_grows():
    small, large = (losses(run(replace(CONFIG, ensemble=n))) for n in (2, 4))
    np.testing.assert_allclose(large[:, :2], small, rtol=1e-4)


def test_a_training_goes_on_from_its_state_as_if_it_had_not_stopped():
    options = {"optimizer": optax.adam(1e-3)}
    whole = run(replace(CONFIG, ema_decay=0.9), **options)
    half = run(replace(CONFIG, ema_decay=0.9, steps=6), **options)
    before = jax.tree.map(np.copy, half.state)
    rest = run(replace(CONFIG, ema_decay=0.9), initial=half.state, **options)
    jax.tree.map(np.testing.assert_array_equal, rest.state, whole.state)
    jax.tree.map(np.testing.assert_array_equal, half.state, before)
    np.testing.assert_array_equal(np.concatenate([losses(half), losses(rest)]), losses(whole))


def test_a_training_starts_from_given_parameters():
    """Of one member for all of them, or of each; and a folder knows what it started from."""
    trained = run(replace(CONFIG, steps=3)).params
    still = {"optimizer": optax.sgd(0.0)}
    for initial, expected in (
        (trained, trained),
        (member(trained, 2), jax.tree.map(lambda a: np.stack([a[2]] * 4), trained)),
    ):
        found = run(replace(CONFIG, steps=1), initial=initial, **still)
        jax.tree.map(np.testing.assert_array_equal, found.params, expected)
    for bad in ({"other": np.zeros(2)}, jax.tree.map(lambda a: a[:3], trained)):
        with pytest.raises(ValueError, match="initial must be parameters of one member"):
            run(initial=bad)
    with pytest.raises(ValueError, match="state of another training"):
        run(replace(CONFIG, ensemble=2), initial=run(replace(CONFIG, steps=1)).state)


def test_a_folder_knows_what_its_training_started_from(tmp_path):
    trained = run(replace(CONFIG, steps=1)).params
    run(replace(CONFIG, steps=1), initial=trained, folder=tmp_path)
    with pytest.raises(ValueError, match="initial"):
        run(replace(CONFIG, steps=1), folder=tmp_path)


@pytest.mark.parametrize("ensemble", [1, 4, 8])
def test_eight_devices_agree_with_one(ensemble):
    """Meshes (1, 8), (4, 2) and (8, 1)."""
    config = replace(CONFIG, ensemble=ensemble)
    one, eight = run(config, devices=1), run(config, devices=8)
    np.testing.assert_allclose(losses(eight), losses(one), rtol=1e-4)


def test_the_batch_is_shared_out_over_the_data_axis():
    """Two devices a member: each computes half of the floating-point operations."""
    from jgen.training.mesh import make_layout, put
    from jgen.training.step import over_members

    flops = {}
    for devices in (4, 8):
        layout = make_layout(4, 32, jax.devices()[:devices])
        step = make_step(MODEL, optax.adam(1e-3), 32, place_batch=layout.place_batch)
        keys = put(member_keys(jax.random.key(0), 4), layout.members)
        state = jax.jit(jax.vmap(step.init), out_shardings=layout.members)(keys)
        update = jax.jit(over_members(step.update, "vmap"))
        compiled = update.lower(state, keys, put(Batch(X), layout.shared)).compile()
        flops[devices] = compiled.cost_analysis()["flops"]
    assert flops[8] < 0.65 * flops[4]


def test_average_and_validation_and_best():
    config = replace(CONFIG, steps=40, ema_decay=0.9, keep="best", validate_every=5, ensemble=2)
    fitted = run(config, validation=Batch(X[:100]))
    rows = [row for row in fitted.history if "validation_loss" in row]
    assert [row["step"] for row in rows] == list(range(5, 41, 5))
    batches = Batch(X[:100].reshape(4, 25, 2))
    keys = jax.random.split(stream(jax.random.key(1), "validation"), 4)
    losses = jax.jit(jax.vmap(MODEL.loss, (None, 0, 0)))
    for i in range(2):
        found = np.mean(losses(member(fitted.params, i), keys, batches))
        np.testing.assert_allclose(found, min(r["validation_loss"][i] for r in rows), rtol=1e-4)


@pytest.mark.parametrize(("decay", "average"), [(0.9999, 0.9 * 300), (0.8, 300 - 4)])
def test_the_average_of_a_short_training_does_not_hold_its_start(decay, average):
    """Of parameters that grow by one a step: 0.9 of the step, at last d / (1 - d) steps behind."""
    model = GenerativeModel(lambda key: jnp.zeros(()), lambda p, key, batch: -p, None)
    step = make_step(model, optax.sgd(1.0), 4, ema_decay=decay)
    state, key, data = step.init(jax.random.key(0)), jax.random.key(1), Batch(jnp.asarray(X))
    learn = lambda state, _: (step.update(state, key, data)[0], None)
    state, _ = jax.jit(lambda state: jax.lax.scan(learn, state, None, 300))(state)
    np.testing.assert_allclose(state.average, average, rtol=1e-5)


@pytest.mark.parametrize(("num", "sizes"), [(96, [32]), (100, [25]), (101, [26, 25]), (7, [7])])
def test_each_event_is_validated_on_once_in_batches_of_almost_one_size(num, sizes):
    from jgen.training.validation import stacks_of

    weight = np.arange(num)
    stacks = stacks_of(Batch(X[:num], weight=weight), 32)
    assert [stack.x.shape[1] for stack in stacks] == sizes
    np.testing.assert_array_equal(np.concatenate([s.weight.ravel() for s in stacks]), weight)
    np.testing.assert_array_equal(np.concatenate([s.x.reshape(-1, 2) for s in stacks]), X[:num])


def test_a_loss_that_takes_no_weights_is_validated_on_any_number_of_events():
    """As those with a coupling and of adversarial games; the mean is exact with two sizes."""

    def loss(params, key, batch):
        if batch.weight is not None:
            raise ValueError("no weights")
        return jnp.mean(batch.x) + 0 * params

    model = GenerativeModel(lambda key: jnp.zeros(()), loss, None)
    config = TrainConfig(steps=1, batch_size=32, optimizer=OptimizerConfig(schedule="constant"))
    options = {"progress": False, "devices": jax.devices()[:1]}
    held_out = Batch(X[:101])
    fitted = fit(model, Batch(X), jax.random.key(0), config, validation=held_out, **options)
    found = fitted.history[-1]["validation_loss"]
    np.testing.assert_allclose(found, [X[:101].mean()], rtol=1e-5)


def test_weights_change_what_is_learned():
    """A mean fitted by least squares moves to the weighted mean, whatever the weights' scale."""
    model = GenerativeModel(
        lambda key: jnp.zeros(()),
        lambda p, key, batch: mean_loss(lambda k, x, c: (x - p) ** 2, key, batch),
        None,
    )
    x, weight = np.array([0.0, 1.0], np.float32), np.array([1e3, 3e3])
    config = TrainConfig(steps=800, batch_size=256, optimizer=OptimizerConfig(learning_rate=0.05))
    fitted = fit(
        model, Batch(x, weight=weight), jax.random.key(0), config,
        devices=jax.devices()[:1], progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(fitted.params, [0.75], atol=0.02)


def test_nan_loss_names_step_and_member():
    def loss(params, key, batch):
        # Member 1 starts at a negative value; its square root is not a number.
        return jnp.sqrt(params["p"] - 0.1 * params["n"] ** 2) + 0 * jnp.sum(batch.x)

    keys = member_keys(stream(jax.random.key(1), "init"), 3)
    first = float(jax.random.uniform(keys[1]))
    model = GenerativeModel(
        lambda key: {
            "p": jnp.where(jax.random.uniform(key) == first, -1.0, 5.0),
            "n": jnp.zeros(()),
        },
        loss,
        None,
    )
    with pytest.raises(FloatingPointError, match="loss of member 1 is not finite at step 1"):
        fit(
            model, Batch(X), jax.random.key(1), replace(CONFIG, ensemble=3),
            devices=jax.devices()[:1], progress=False,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be a whole number from 1 .*got 0"),
        ({"keep": "best"}, 'keep="best" needs validation data'),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\)"),
        ({"optimizer": OptimizerConfig(warmup=1.5)}, "warmup must be in"),
        ({"batch_size": 31, "ensemble": 3}, "multiple of 8"),
    ],
)
def test_bad_options(changes, message):
    with pytest.raises(ValueError, match=message):
        run(replace(CONFIG, **changes), devices=8)


def test_bad_data():
    bad = X.copy()
    bad[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"data\.x holds values that are not finite"):
        fit(MODEL, Batch(bad), jax.random.key(0), CONFIG)
    with pytest.raises(ValueError, match="positive sum"):
        fit(MODEL, Batch(X, weight=np.zeros(len(X))), jax.random.key(0), CONFIG)
    with pytest.raises(ValueError, match=r"got lengths \[3, 256\]"):
        fit(MODEL, Batch(X, cond=np.ones(3)), jax.random.key(0), CONFIG)


def hyperparameters(config, steps):
    """Learning rate and beta1 that the optimiser uses in each step."""
    optimizer = make_optimizer(config, steps)
    state, out = optimizer.init(jnp.ones(2)), []
    update = jax.jit(optimizer.update)
    for _ in range(steps):
        _, state = update(jnp.ones(2), state, jnp.ones(2))
        out.append([state[1].hyperparams["learning_rate"], state[1].hyperparams["b1"]])
    return np.array(out).T


def test_onecycle_is_that_of_pytorch():
    """Half cosines through lr 8e-5, 2e-3, 8e-9 and beta1 0.95, 0.85, 0.95 at 30 % of the steps."""
    steps, up, last = 100, 29, 99  # PyTorch peaks in step 0.3 * 100 - 1 and ends in the last one
    config = OptimizerConfig(learning_rate=2e-3, schedule="onecycle", warmup=0.3)
    rate, b1 = hyperparameters(config, steps)
    half = lambda a, b, s: b + (a - b) * (1 + np.cos(np.pi * s)) / 2
    n = np.arange(steps)
    for found, ends in ((rate, (8e-5, 2e-3, 8e-9)), (b1, (0.95, 0.85, 0.95))):
        rise, fall = half(*ends[:2], n / up), half(*ends[1:], (n - up) / (last - up))
        np.testing.assert_allclose(found, np.where(n < up, rise, fall), rtol=1e-4)


def test_cosine_ends_at_zero_after_its_warm_up():
    rate, b1 = hyperparameters(OptimizerConfig(learning_rate=1e-3, warmup=0.1), 100)
    np.testing.assert_allclose(rate[[0, 5, 10]], [0, 5e-4, 1e-3], rtol=1e-5)
    np.testing.assert_allclose(rate[55], 5e-4, rtol=1e-5)
    assert rate[-1] < 1e-6
    np.testing.assert_allclose(b1, 0.9)


def test_a_score_takes_the_place_of_the_validation_loss():
    """Of all validation events at once; the step that it is smallest at is kept."""
    model = GenerativeModel(
        lambda key: jnp.zeros(()),
        lambda x, key, batch: -x + 0 * jnp.mean(batch.x),  # grows for ever
        lambda x, key, cond: x,
    )
    config = TrainConfig(
        30, 8, keep="best", validate_every=5,
        optimizer=OptimizerConfig(0.1, schedule="constant"),
    )  # fmt: skip
    events = Batch(jnp.full(9, 1.5))
    score = lambda x, key, batch: jnp.abs(x - jnp.sum(batch.x) / 9)
    fitted = fit(model, events, jax.random.key(0), config, validation=events, score=score)
    assert fitted.one == pytest.approx(1.5, abs=0.01)
    with pytest.raises(ValueError, match="score judges validation data"):
        fit(model, events, jax.random.key(0), TrainConfig(1, 8), score=score)
