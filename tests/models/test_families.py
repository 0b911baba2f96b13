"""Every family trains as an ensemble, resumes bitwise, and draws and scores events of a member."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from jgen.bijectors import (
    affine,
    autoregressive_flow,
    continuous,
    coupling_flow,
    rational_quadratic,
    residual,
    standardize,
)
from jgen.generative_model import Batch, draw
from jgen.models import (
    autoregressive,
    autoregressive_flow_matching,
    bib_ae,
    binned,
    consistency,
    diffusion,
    encoder_decoder,
    flow,
    flow_matching,
    gan,
    gaussian,
    gaussian_mixture,
    geodesic_flow_matching,
    mean_flow,
    mixed_events,
    mixed_flow_matching,
    standard_normal,
    vae,
    vae_gan,
)
from jgen.nets import (
    decoder_mlp,
    encoder_mlp,
    latent_critic,
    pair_critic,
    velocity_mlp,
)
from jgen.nets.adversarial import critic_mlp, generator_mlp
from jgen.nets.transformers.causal import CausalConfig, causal
from jgen.nets.transformers.transfusion import TransfusionConfig, transfusion
from jgen.paths import cosine
from jgen.solvers import runge_kutta
from jgen.training import OptimizerConfig, TrainConfig, fit, make_optimizer, member, per_player
from jgen.transforms import bayesian, chain, latent, preprocessed

STEPS, MEMBERS = 6, 4
FEW = runge_kutta("euler", 1)
VELOCITY = velocity_mlp(2, hidden=(8,))
TRANSFORMER = CausalConfig(width=8, heads=2, blocks=1, feed_forward=8)
EDGES = np.tile(np.linspace(-5, 5, 9), (2, 1))


# One latent number of an event of two.
CODER = encoder_mlp(2, 1, hidden=(8,)), decoder_mlp(1, 2, hidden=(8,))
AUTOENCODER = encoder_decoder(*CODER, gaussian())


FAMILIES = {
    "gan": lambda: gan(
        generator_mlp(2, hidden=(8,)),
        critic_mlp(2, hidden=(8,)),
        objective="wasserstein",
        gradient_penalty=10.0,
    ),
    "vae": lambda: vae(encoder_decoder(*CODER, gaussian(0.1)), (1,), num_importance=4),
    "vae-gan": lambda: vae_gan(
        AUTOENCODER, critic_mlp(2, hidden=(8,)), (1,), gradient_penalty=10.0
    ),
    "bib-ae": lambda: bib_ae(
        AUTOENCODER, pair_critic((2,), 0, hidden=(8,)), latent_critic(1, hidden=(8,)), (1,)
    ),
    "coupling flow": lambda: flow(
        coupling_flow(2, rational_quadratic(num_bins=4), depth=2, hidden=(8,)), 2
    ),
    "continuous flow": lambda: flow(continuous(VELOCITY, solver=FEW), 2),
    "flow matching": lambda: flow_matching(VELOCITY, (2,), solver=FEW),
    "geodesic flow matching": lambda: geodesic_flow_matching(
        VELOCITY, standard_normal(2), np.array([True, False]), solver=FEW
    ),
    "diffusion": lambda: diffusion(
        VELOCITY, (2,), path=cosine(), prediction="noise", likelihood_solver=FEW
    ),
    "consistency": lambda: consistency(VELOCITY, (2,)),
    "mean flow": lambda: mean_flow(velocity_mlp(2, 1, hidden=(8,)), (2,)),
    "mixed flow matching": lambda: mixed_flow_matching(
        velocity_mlp(5, hidden=(8,)), (2,), 3, steps=2
    ),
    "autoregressive": lambda: autoregressive(causal(2, 8, config=TRANSFORMER), binned(EDGES), 2),
    "autoregressive flow matching": lambda: autoregressive_flow_matching(
        transfusion(2, TransfusionConfig(8, 2, 1, 8, 8, 2)), 2, solver=FEW
    ),
}


PLAYERS = {
    "gan": ("generator", "critic"),
    "vae-gan": ("encoder", "decoder", "critic"),
    "bib-ae": ("encoder", "decoder", "critic", "latent_critic"),
}


def players(name):
    if name not in PLAYERS:
        return None
    adam = make_optimizer(OptimizerConfig(1e-3, beta1=0.5), STEPS)
    slow = {part: 2 for part in PLAYERS[name] if "critic" not in part}
    return per_player(dict.fromkeys(PLAYERS[name], adam), every=slow)


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """A resumed training finds the program of the first one instead of compiling it again."""
    options = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("programs")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in options}
    for values in (options, before):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        if values is options:
            yield


NORMAL = flow(coupling_flow(2, affine(), depth=1, hidden=(8,)), 2)
GIVEN = flow(coupling_flow(2, affine(), depth=1, num_cond=2, hidden=(8,)), 2)
SCALE = standardize(np.array([0.5, -1.0]), np.array([2.0, 3.0]))
CODES = flow(autoregressive_flow(1, affine(), depth=1, hidden=(8,)), 1)
TRANSFORMED = {
    "vae of levels": lambda: vae(encoder_decoder(*CODER), (1,), num_importance=2),
    "vae of means": lambda: vae(AUTOENCODER, (1,)),
    "mixture": lambda: autoregressive(causal(2, 9, config=TRANSFORMER), gaussian_mixture(3), 2),
    "consistency in three": lambda: consistency(VELOCITY, (2,), steps=3),
    "hutchinson": lambda: flow(continuous(VELOCITY, solver=FEW, divergence="hutchinson"), 2),
    "roulette": lambda: flow(residual(2, hidden=(8,), log_det="russian_roulette"), 2),
    "preprocessed": lambda: preprocessed(NORMAL, SCALE),
    "chain": lambda: chain(NORMAL, GIVEN, lambda cond, a: a),
    "bayesian": lambda: bayesian(NORMAL, num_train=10),
    "latent": lambda: latent(CODES, AUTOENCODER, AUTOENCODER.init(jax.random.key(3))),
}


def moved(model):
    """Parameters off their start, where some networks are zero."""
    rng = np.random.default_rng(1)
    noisy = lambda p: (p + 0.1 * rng.normal(size=p.shape)).astype(p.dtype)
    return jax.tree.map(noisy, jax.device_get(jax.jit(model.init)(jax.random.key(0))))


@pytest.mark.parametrize("name", FAMILIES | TRANSFORMED)
def test_a_sample_is_a_function_of_declared_noise(name):
    """With a key it is what it is with the noise of that key, which leaves nothing to chance."""
    model = (FAMILIES | TRANSFORMED)[name]()
    params, key, other_key = moved(model), *map(jax.random.key, (2, 3))
    cond = jnp.ones(1) if name == "autoregressive flow matching" else None
    noise = model.noise(key, cond)

    @jax.jit
    def everything(params, key):
        drawn = [model.sample_from(params, model.noise(k, cond), cond) for k in (key, other_key)]
        return *drawn, model.sample(params, key, cond)

    found, other, expected = everything(params, key)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert not np.array_equal(*map(jax.tree.leaves, (found, other)))
    program = str(jax.make_jaxpr(model.sample_from)(params, noise, cond))
    assert "random" not in program
    assert "threefry" not in program


@pytest.mark.parametrize(
    "name",
    ["coupling flow", "continuous flow", "autoregressive", "mixture", "preprocessed", "chain",
     "bayesian"],
)  # fmt: skip
def test_a_sample_comes_with_its_density(name):
    model = (FAMILIES | TRANSFORMED)[name]()
    params, key = moved(model), jax.random.key(2)

    @jax.jit
    def everything(params, key):
        x, log_q = model.sample_and_log_prob(params, key, None)
        # Of the Bayesian one, both draw their weights with the same half of the key.
        return x, log_q, model.sample(params, key, None), model.log_prob(params, key, x, None)

    x, log_q, alone, expected = everything(params, key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), x, alone)
    tolerance = 5e-2 if name == "continuous flow" else 1e-4  # one step of Euler's method
    np.testing.assert_allclose(log_q, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", FAMILIES)
def test_ensemble_resumes_bitwise_and_a_member_draws(name, tmp_path):
    model = FAMILIES[name]()
    x = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    # The transformer of showers has one source token, the incident energy.
    cond = x[:, :1] if name == "autoregressive flow matching" else None
    events = mixed_events(x, np.arange(64) % 3, 3) if name == "mixed flow matching" else x
    config = TrainConfig(STEPS, 8, ensemble=MEMBERS, ema_decay=0.5, save_every=3, log_every=1)
    run = lambda: fit(
        model,
        Batch(events, cond),
        jax.random.key(0),
        config,
        optimizer=players(name),
        folder=tmp_path,
        devices=jax.devices()[:1],
        progress=False,
    )
    first = run()
    # As if it had been killed half-way.
    shutil.rmtree(tmp_path / "checkpoints" / str(STEPS))
    again = run()
    jax.tree.map(np.testing.assert_array_equal, (again.state, again.params), first[1::-1])
    losses = np.array([row["loss"] for row in again.history])
    assert losses.shape == (STEPS, MEMBERS)
    assert len(set(losses[-1])) == MEMBERS
    params = member(first.params, 1)
    cond = cond if cond is None else cond[:3]
    events = draw(model, params, jax.random.key(1), 3, cond)
    assert jax.tree.leaves(events)[0].shape == (3, 2)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(events))
    if model.log_prob is not None:
        score = lambda x, cond: model.log_prob(params, jax.random.key(2), x, cond)
        assert np.isfinite(jax.jit(jax.vmap(score))(events, cond)).all()
