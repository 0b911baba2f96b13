"""Generative adversarial networks (1406.2661) with the usual objectives.

Both players live in one model: `loss` is the sum of the critic's and the generator's objective,
each with the gradient stopped at the other's parameters, so that one gradient trains both. Give
each its optimiser with `jgen.training.per_player`, where a player may also move less often.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.checks import check_known, check_not_negative
from jgen.generative_model import Batch, GenerativeModel, from_noise, num_events
from jgen.models.parts import check_players, check_verdict
from jgen.nets.network import Generator, NetworkLike, as_network
from jgen.sets import SetCondition, masked
from jgen.typing import Cond, Key, PyTree

Objective = Literal["saturating", "non_saturating", "least_squares", "wasserstein"]


class Game(NamedTuple):
    """What each player minimises, as functions of the critic's output c."""

    real: Callable[[Array], Array]
    fake: Callable[[Array], Array]
    generator: Callable[[Array], Array]


# c is a logit for the first two, D = sigmoid(c): -log D(x), -log(1 - D(G)) and log(1 - D(G)) or
# -log D(G); least squares is 1611.04076 with labels 1 and 0; Wasserstein is 1701.07875.
GAMES = {
    "saturating": Game(
        lambda c: jax.nn.softplus(-c), jax.nn.softplus, lambda c: -jax.nn.softplus(c)
    ),
    "non_saturating": Game(
        lambda c: jax.nn.softplus(-c), jax.nn.softplus, lambda c: jax.nn.softplus(-c)
    ),
    "least_squares": Game(lambda c: (c - 1) ** 2, jnp.square, lambda c: (c - 1) ** 2),
    "wasserstein": Game(jnp.negative, lambda c: c, jnp.negative),
}


def gan(
    generator: Generator,
    critic: NetworkLike,
    *,
    objective: Objective = "non_saturating",
    gradient_penalty: float = 0.0,
) -> GenerativeModel:
    """Generator and critic as one model, with parameters {"generator", "critic"}; no `log_prob`.

    The value of `loss` is the sum of both objectives, which says nothing about convergence: judge
    samples. Event weights multiply the terms of real events. Events that are sets are zero in rows
    that are no points, real and generated ones; the critic sees which those are in the condition.

    Args:
      generator: apply(params, noise, cond) -> x, one event; noise(key) is all that is random in it.
      critic: apply(params, x, cond, others) -> scalar, for one event x of a minibatch and all
        events `others` of the same kind (real or generated) in it, x among them; what needs no
        batch statistics ignores them.
      objective: saturating (the original game), non_saturating (the generator maximises log D),
        least_squares, or wasserstein, which needs a bounded slope of the critic: give it a
        gradient penalty.
      gradient_penalty: weight of (|grad_x critic| - 1)^2 on random segments between real and
        generated events (1704.00028, Eq. 3; there 10). Conditions are those of the real events;
        `others` are held fixed, the generated ones.

    Raises:
      ValueError: for an unknown objective or a negative penalty, or if the critic does not make
        one number of what the generator makes.
    """
    check_known(GAMES, objective=objective)
    check_not_negative(gradient_penalty=gradient_penalty)
    game, critic = GAMES[objective], as_network(critic)
    check_players(generator, critic)

    def init(key):
        key_generator, key_critic = jax.random.split(key)
        return {"generator": generator.init(key_generator), "critic": critic.init(key_critic)}

    def judge(params, x, cond):
        one = lambda params, *event: check_verdict(critic.apply(params, *event))
        return jax.vmap(one, in_axes=(None, 0, 0, None))(params, x, cond, x)

    def loss(params, key, batch: Batch) -> Float[Array, ""]:
        key_fake, key_penalty = jax.random.split(key)
        batch = batch._replace(x=jax.vmap(_points)(batch.x, batch.cond))
        keys = jax.random.split(key_fake, num_events(batch))
        make = lambda key, cond: sample_from(params, generator.noise(key), cond)
        fake = jax.vmap(make)(keys, batch.cond)
        fixed = jax.lax.stop_gradient(fake)
        real_terms = game.real(judge(params["critic"], batch.x, batch.cond))
        if batch.weight is not None:
            real_terms = real_terms * batch.weight
        fake_terms = game.fake(judge(params["critic"], fixed, batch.cond))
        watcher = jax.lax.stop_gradient(params["critic"])
        own_terms = game.generator(judge(watcher, fake, batch.cond))
        total = jnp.mean(real_terms) + jnp.mean(fake_terms) + jnp.mean(own_terms)
        if gradient_penalty:
            total += gradient_penalty * penalty(params["critic"], key_penalty, batch, fixed)
        return total

    def penalty(params, key, batch, fake):
        def one(key, x, y, cond):
            return slope_penalty(lambda z: critic.apply(params, z, cond, fake), key, x, y)

        keys = jax.random.split(key, num_events(batch))
        return jnp.mean(jax.vmap(one)(keys, batch.x, fake, batch.cond))

    def sample_from(params, noise, cond=None):
        return _points(generator.apply(params["generator"], noise, cond), cond)

    return from_noise(init, loss, lambda key, cond: generator.noise(key), sample_from)


def _points(x: PyTree, cond: Cond) -> PyTree:
    """An event, of a set its points alone."""
    return masked(x, cond) if isinstance(cond, SetCondition) else x


def slope_penalty(
    critic: Callable[[PyTree], Array], key: Key, x: PyTree, y: PyTree
) -> Float[Array, ""]:
    """(|grad critic| - 1)^2 at a random point of the segment from x to y (1704.00028, Eq. 3).

    For one event; `critic` is a function of it alone.
    """
    share = jax.random.uniform(key)
    between = jax.tree.map(lambda a, b: a + share * (b - a), x, y)
    slope = jax.grad(critic)(between)
    square = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(slope))
    # The root has no gradient at zero, where a critic that is dead on a segment is.
    return (jnp.sqrt(square + 1e-12) - 1) ** 2
