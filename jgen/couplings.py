"""Couplings: which noise x0 goes with which event x1 of a minibatch.

A path model is trained on lines between pairs (x0, x1). Whatever their joint distribution, the
flow ends in that of the data if the x0 are normal, so that pairs may be chosen whose lines do not
cross (2302.00482, 2304.14772): the velocity is then less of an average, trajectories are straighter
and fewer solver steps do. Without a coupling, models pair independently.

With a condition c the x0 have to be normal for every c on its own, p(x0 | c) = N(0, 1), since that
is what sampling under c starts from. A transport that ignores conditions breaks it: data of one c
lie in one region and get the noise that is near to it, so that the network never sees c with the
rest of the noise (2503.10636). The cure is to move noise between equal conditions only. Given c,
the noise of a class is then an unordered set of normal draws that its events share out among
themselves, each place being as likely for each, and p(x0 | c) is exactly normal.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from jgen.generative_model import Batch, num_events
from jgen.random import normal
from jgen.typing import Cond, Key

Coupling = Callable[[Key, Float[Array, "n ..."], Float[Array, "n ..."], Cond], Int[Array, " n"]]
"""(key, x0 [n, *x], x1 [n, *x], cond) -> the row of x0 that each event of x1 is paired with: a
permutation, so that a minibatch keeps its noise. The key is for couplings that draw."""


def optimal_transport(condition_weight: float = math.inf) -> Coupling:
    """Pairs of least total |x0 - x1|^2 + w |c0 - c1|^2 in the minibatch (2302.00482).

    c1 is the condition of an event and c0 that of the event which its noise was drawn for, as in
    2503.10636 (there with a cosine distance and a weight adapted in each batch). Without
    conditions this is minibatch optimal transport, whose plan is a permutation.

    The assignment is the exact one, by the Hungarian algorithm of optax: it runs on the device and
    under vmap, where scipy's would call the host in every step. It takes up to n^2 steps, one after
    another, for n events: minibatches of hundreds, not of thousands.

    Args:
      condition_weight: w. Infinite, as it is unless given, noise moves between events of equal
        conditions only: right for discrete ones, while continuous conditions all differ and leave
        the pairs independent. With a finite w noise moves over distances |c0 - c1| of about
        |x0 - x1| / sqrt(w): the smaller w, the straighter the paths and the larger the bias. 0
        ignores conditions, which is wrong for a conditional model.

    Raises:
      ValueError: if the weight is negative.
    """
    if not isinstance(condition_weight, int | float) or not condition_weight >= 0:
        raise ValueError(f"condition_weight must not be negative, got {condition_weight}")

    def coupling(key, x0, x1, cond):
        del key
        # Half of |x0 - x1|^2 but for sums of each row and column, which all assignments share.
        cost = -x0.reshape(len(x0), -1) @ x1.reshape(len(x1), -1).T
        if cond is not None and condition_weight > 0:
            cost += _penalty(cost, _squared_distances(cond), condition_weight)
        rows, columns = optax.assignment.hungarian_algorithm(cost)
        return jnp.zeros_like(rows).at[columns].set(rows)

    return coupling


def _squared_distances(cond: Cond) -> Float[Array, "batch batch"]:
    """|c_i - c_j|^2, exactly zero for equal conditions."""
    c = jax.vmap(lambda c: ravel_pytree(c)[0])(cond).astype(jnp.result_type(float))
    return jax.vmap(lambda a: jax.vmap(lambda b: jnp.sum((a - b) ** 2))(c))(c)


def _penalty(cost, distances, weight):
    if math.isfinite(weight):
        return 0.5 * weight * distances
    # To leave every event its own noise breaks no condition, and no assignment saves more on it
    # than this: beyond it, one pair of different conditions is never worth it.
    saving = jnp.sum(jnp.diagonal(cost) - jnp.min(cost, axis=1))
    return jnp.where(distances > 0, 1 + 2 * saving, 0)


def paired(coupling: Coupling, key: Key, batch: Batch) -> Batch:
    """The batch with its events x1 replaced by pairs (x0, x1) of normal noise and an event.

    Raises:
      ValueError: for a batch with weights. They weight the noise, too, which a coupling has made
        depend on the events: it would not be normal any more.
    """
    if batch.weight is not None:
        raise ValueError(
            "a coupling takes no event weights, under which the paired noise is not normal; leave "
            "out the coupling or the weights"
        )
    key_noise, key_pairs = jax.random.split(key)
    keys = jax.random.split(key_noise, num_events(batch.x))
    x0 = jax.vmap(lambda key, x1: normal(key, x1.shape, x1.dtype))(keys, batch.x)
    return batch._replace(x=(x0[coupling(key_pairs, x0, batch.x, batch.cond)], batch.x))
