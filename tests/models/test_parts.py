"""Parts that do not fit together are refused where the model is made; nothing is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import bijectors, models, nets, paths
from jgen.bijectors import affine, coupling_flow
from jgen.transforms import chain, latent

SMALL = {"hidden": (4,)}
HEAD = models.gaussian_mixture(2)
CAUSAL = nets.CausalConfig(8, 2, 1, 8)
TRANSFUSION = nets.TransfusionConfig(8, 2, 1, 8, 8, 3)
VELOCITY = nets.velocity_mlp(2, 3, **SMALL)
PLAIN = nets.velocity_mlp(2, **SMALL)
SWAPPED = nets.Network(PLAIN.init, lambda params, x, t, cond: PLAIN.apply(params, t, x, cond))
# Takes conditions, but does not say of which length.
OWN = nets.Network(VELOCITY.init, VELOCITY.apply)
WIDER = nets.mlp(3, 3, **SMALL)
ONE_TOO_MANY = (WIDER.init, lambda params, t, x, c: WIDER.apply(params, jnp.append(x, t)))


def autoencoder(shape=4, num_latent=2, decoded=4, decoder_latent=2, num_cond=0):
    return models.encoder_decoder(
        nets.encoder_mlp(shape, num_latent, num_cond, **SMALL),
        nets.decoder_mlp(decoder_latent, decoded, num_cond, **SMALL),
        models.gaussian(),
    )


PAIR = nets.pair_critic((4,), 0, **SMALL)
LATENT = nets.latent_critic(2, **SMALL)
VECTOR_CRITIC = nets.Network(WIDER.init, lambda params, x, cond, others: WIDER.apply(params, x))
GENERATOR = nets.generator_mlp(3, **SMALL)
MISFITS = {
    "flow of 6, base of 5": lambda: models.flow(coupling_flow(6, affine(), 2), 5),
    "flow of 6, base of 7": lambda: models.flow(coupling_flow(6, affine(), 2), 7),
    "conditional flow of 6": lambda: models.flow(coupling_flow(6, affine(), 2, 3), 5),
    "autoregressive flow": lambda: models.flow(bijectors.autoregressive_flow(6, affine(), 2), 5),
    "inverse autoregressive flow": lambda: models.flow(
        bijectors.inverted(bijectors.autoregressive_flow(6, affine(), 2)), 5
    ),
    "actnorm that is broadcast": lambda: models.flow(bijectors.actnorm(1), 5),
    "actnorm of more": lambda: models.flow(bijectors.actnorm(6), 1),
    "permutation that drops": lambda: models.flow(bijectors.permutation(np.arange(4)), 5),
    "permutation of more": lambda: models.flow(bijectors.permutation(np.arange(6)), 5),
    "radial that is broadcast": lambda: models.flow(bijectors.radial(1), 5),
    "planar": lambda: models.flow(bijectors.planar(6), 5),
    "plu": lambda: models.flow(bijectors.plu(6), 5),
    "residual": lambda: models.flow(bijectors.residual(1, 2), 5),
    "composed": lambda: models.flow(bijectors.compose(bijectors.log(), bijectors.plu(6)), 5),
    "continuous": lambda: models.flow(bijectors.continuous(VELOCITY), 5),
    "glow": lambda: models.flow(bijectors.glow((4, 4, 1), 1, 1, hidden=(4,)), 15),
    "flow_matching": lambda: models.flow_matching(PLAIN, (6,)),
    "flow_matching, one number": lambda: models.flow_matching(PLAIN, 6),
    "flow_matching with conditions": lambda: models.flow_matching(VELOCITY, (6,)),
    "flow_matching, swapped": lambda: models.flow_matching(SWAPPED, (2,)),
    "flow_matching, swapped tuple": lambda: models.flow_matching((SWAPPED.init, SWAPPED.apply), 2),
    "flow_matching, outputs": lambda: models.flow_matching(ONE_TOO_MANY, (2,)),
    "diffusion": lambda: models.diffusion(VELOCITY, (6,)),
    "diffusion, outputs": lambda: models.diffusion(ONE_TOO_MANY, (2,)),
    "preconditioned": lambda: models.diffusion(
        models.preconditioned(VELOCITY, paths.edm(), 1.0),
        (6,),
        path=paths.edm(),
        prediction="data",
    ),
    "consistency": lambda: models.consistency(VELOCITY, (6,)),
    "consistency, outputs": lambda: models.consistency(ONE_TOO_MANY, (2,)),
    "trajectory_ends": lambda: models.trajectory_ends(VELOCITY, (6,)),
    "autoregressive": lambda: models.autoregressive(
        nets.causal(3, HEAD.num_outputs, 2, CAUSAL), HEAD, 4
    ),
    "autoregressive, made": lambda: models.autoregressive(
        nets.made(3, HEAD.num_outputs, **SMALL), HEAD, 4
    ),
    "autoregressive, outputs": lambda: models.autoregressive(nets.made(3, 7, **SMALL), HEAD, 3),
    "transfusion": lambda: models.autoregressive_flow_matching(nets.transfusion(5, TRANSFUSION), 4),
    "gan": lambda: models.gan(GENERATOR, nets.critic_mlp(2, **SMALL)),
    "gan, conditions": lambda: models.gan(
        nets.generator_mlp(3, 2, **SMALL), nets.critic_mlp(3, **SMALL)
    ),
    "gan, vector": lambda: models.gan(GENERATOR, VECTOR_CRITIC),
    "vae, decoder": lambda: models.vae(autoencoder(decoder_latent=3), (2,)),
    "vae, encoder": lambda: models.vae(autoencoder(shape=5), (2,)),
    "vae, latents": lambda: models.vae(autoencoder(num_latent=3), (2,)),
    "vae, conditions": lambda: models.vae(autoencoder(shape=5, num_cond=2), (2,)),
    "vae, latent_shape": lambda: models.vae(autoencoder(), (3,)),
    "vae_gan": lambda: models.vae_gan(autoencoder(), nets.critic_mlp(3, **SMALL), (2,)),
    "bib_ae, pair": lambda: models.bib_ae(
        autoencoder(), nets.pair_critic((3,), 0, **SMALL), LATENT, (2,)
    ),
    "bib_ae, latent": lambda: models.bib_ae(
        autoencoder(), PAIR, nets.latent_critic(3, **SMALL), (2,)
    ),
    "latent": lambda: latent(
        models.flow(bijectors.plu(3), 3),
        autoencoder(),
        jax.eval_shape(autoencoder().init, jax.random.key(0)),
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_parts_that_do_not_fit_are_refused(misfit):
    with pytest.raises(ValueError, match=r"network|bijector|critic|encoder|decoder|model"):
        MISFITS[misfit]()


def test_parts_that_fit_are_taken_whatever_is_known_of_their_condition():
    models.flow(coupling_flow(6, affine(), 2, 3), 6)
    models.flow(bijectors.compose(bijectors.log(), coupling_flow(6, affine(), 2, 3)), 6)
    models.flow(bijectors.residual(5, 2), 5)
    models.flow(bijectors.continuous(OWN), 2)
    models.flow_matching(VELOCITY, 2)
    models.flow_matching(OWN, (2,))
    models.flow_matching((OWN.init, OWN.apply), (2,))
    models.flow_matching(models.guided(VELOCITY, jnp.zeros(3), 2.0), (2,))
    models.consistency(OWN, (2,))
    models.autoregressive(nets.causal(3, HEAD.num_outputs, 2, CAUSAL), HEAD, 3)
    models.autoregressive_flow_matching(nets.transfusion(5, TRANSFUSION), 5)
    models.gan(nets.generator_mlp(3, 2, **SMALL), nets.critic_mlp(3, 2, **SMALL))
    models.vae(autoencoder(num_cond=2), (2,))
    models.vae_gan(autoencoder(), nets.critic_mlp(4, **SMALL), (2,))
    models.bib_ae(autoencoder(), PAIR, LATENT, (2,))
    plain = models.flow(bijectors.plu(2), 2)
    latent(plain, autoencoder(), jax.eval_shape(autoencoder().init, jax.random.key(0)))


@pytest.mark.parametrize("likelihood", [models.bernoulli(), models.gaussian()])
def test_a_decoder_is_not_broadcast_to_the_event(likelihood):
    for shape in ((1,), (), (3, 3)):
        with pytest.raises(ValueError, match=r"the decoder returns an array of shape"):
            likelihood.log_prob(jnp.zeros(shape), jnp.zeros(3))
    with pytest.raises(ValueError, match=r"the decoder returns an array of shape"):
        models.gaussian(None).log_prob((jnp.zeros(3), jnp.zeros(1)), jnp.zeros(3))


def test_a_matrix_product_knows_its_inputs_without_values():
    dense = nets.mlp(3, 2, **SMALL)
    params = jax.eval_shape(dense.init, jax.random.key(0))
    with pytest.raises(Exception, match="shape"):
        jax.eval_shape(dense.apply, params, jnp.zeros(4))
    with pytest.raises(ValueError, match="a layer of 3 inputs does not take an array of shape"):
        jax.eval_shape(nets.dense.matmul, jnp.zeros((5, 4)), jnp.zeros((3, 2)))


def test_a_chain_with_names_of_its_own_has_noise_and_densities():
    part = models.flow(bijectors.actnorm(2), 2)
    model = chain(part, part, condition=lambda cond, a: None, names=("energies", "shapes"))
    params, key = model.init(jax.random.key(0)), jax.random.key(1)
    (a, b), log_p = model.sample_and_log_prob(params, key)
    assert a.shape == b.shape == (2,)
    assert jnp.isfinite(log_p)
    replayed = model.sample_from(params, model.noise(key))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, replayed, model.sample(params, key)))
