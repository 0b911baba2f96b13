"""The members of an ensemble as one model, their mixture with equal weights."""

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from jgen.checks import check_whole
from jgen.generative_model import GenerativeModel, loss_at
from jgen.random import member_keys, stream


def mixture(model: GenerativeModel, members: int) -> GenerativeModel:
    """p(x | c) = sum_m p(x | c, params_m) / members, whose parameters are those of an ensemble.

    The parameters are stacked [members, ...], as `fit` with `TrainConfig(ensemble=members)` returns
    them: `draw(mixture(model, 5), fitted.params, key, num)`. Each event is one of a random member.
    The loss is the mean over the members, so that training the mixture trains each alone.

    Args:
      model: of one member.
      members: number of them.
    """
    check_whole(members=members)

    def init(key):
        return jax.vmap(model.init)(member_keys(stream(key, "members"), members))

    def loss(params, key, batch, progress=1.0):
        keys = jax.random.split(key, members)
        each = lambda params, key: loss_at(model, params, key, batch, progress)
        return jnp.mean(jax.vmap(each)(params, keys))

    def one(params, index):
        return jax.tree.map(lambda leaf: leaf[index], params)

    def sample(params, key, cond=None):
        key_member, key_event = jax.random.split(key)
        index = jax.random.randint(key_member, (), 0, members)
        return model.sample(one(params, index), key_event, cond)

    def log_prob(params, key, x, cond=None):
        each = lambda params: model.log_prob(params, key, x, cond)
        return logsumexp(jax.vmap(each)(params)) - jnp.log(members)

    def noise(key, cond=None):
        key_member, key_event = jax.random.split(key)
        index = jax.random.randint(key_member, (), 0, members)
        return {"member": index, "event": model.noise(key_event, cond)}

    def sample_from(params, noise, cond=None):
        return model.sample_from(one(params, noise["member"]), noise["event"], cond)

    mixed = GenerativeModel(init, loss, sample, log_prob if model.log_prob else None)
    return mixed._replace(noise=noise, sample_from=sample_from) if model.noise else mixed
