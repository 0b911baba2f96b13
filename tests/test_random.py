"""Keys: of one kind, typed, one at a time; refused by name at every door."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.generative_model import Batch, GenerativeModel, draw, log_densities, mean_loss
from jgen.inference import hamiltonian, independence_metropolis, log_weights, random_walk
from jgen.models import bernoulli, elbo_of_events, encoder_decoder
from jgen.nets import Network
from jgen.random import check_key, stream
from jgen.toys import gaussian, true_events
from jgen.training import TrainConfig, bootstrap_rows, fit

X = np.zeros((4, 2), np.float32)
NORMAL = GenerativeModel(
    lambda key: jnp.zeros(2),
    lambda params, key, batch: mean_loss(lambda k, x, c: jnp.sum((x - params) ** 2), key, batch),
    lambda params, key, cond: params + jax.random.normal(key, (2,)),
    lambda params, key, x, cond: -jnp.sum((x - params) ** 2),
)
CODER = encoder_decoder(
    Network(lambda key: {}, lambda params, x, cond: (x, x)),
    Network(lambda key: {}, lambda params, r, cond: r),
    bernoulli(),
)
ENERGY = lambda x, cond=None: jnp.sum(x**2)
DOORS = {
    "draw": lambda key: draw(NORMAL, jnp.zeros(2), key, 3),
    "log_densities": lambda key: log_densities(NORMAL, jnp.zeros(2), key, X),
    "fit": lambda key: fit(NORMAL, Batch(X), key, TrainConfig(1, 8), progress=False),
    "bootstrap_rows": lambda key: bootstrap_rows(key, 0, 10),
    "elbo_of_events": lambda key: elbo_of_events(CODER, {}, key, Batch(X)),
    "random_walk": lambda key: random_walk(key, ENERGY, np.zeros((2, 1)), 1, width=1.0),
    "hamiltonian": lambda key: hamiltonian(
        key, ENERGY, np.zeros((2, 1)), 1, step_size=0.1, max_steps=1
    ),
    "independence_metropolis": lambda key: independence_metropolis(key, np.zeros((2, 3))),
    "log_weights": lambda key: log_weights(NORMAL, jnp.zeros(2), key, X, ENERGY),
    "true_events": lambda key: true_events(gaussian(), key, 3),
    "stream": lambda key: stream(key, "name"),
}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS.keys())
@pytest.mark.parametrize(
    ("key", "message"),
    [
        (
            lambda: jax.random.key(0, impl="rbg"),
            "of the kind 'rbg' depend on their neighbours",
        ),
        (lambda: jax.random.key(0, impl="unsafe_rbg"), "keys of the kind 'unsafe_rbg'"),
        (lambda: jax.random.PRNGKey(0), "an array of uint32.*jax.random.key"),
        (lambda: 0, "got int 0"),
        (lambda: jax.random.split(jax.random.key(0), 3), r"array of keys of shape \(3,\)"),
    ],
    ids=["rbg", "unsafe", "raw", "int", "many"],
)
def test_other_keys_are_refused_by_name(door, key, message):
    with pytest.raises(ValueError, match=message):
        door(key())


def test_the_refused_kind_does_depend_on_its_neighbours():
    """What the refusal is for: numbers of a key within a batch are others than alone."""
    for kind, same in (("threefry2x32", True), ("rbg", False)):
        keys = jax.random.split(jax.random.key(0, impl=kind), 4)
        together = jax.vmap(lambda k: jax.random.normal(k, (3,)))(keys)
        alone = jnp.stack([jax.random.normal(k, (3,)) for k in keys])
        assert np.allclose(together, alone) == same
    check_key(jax.random.key(0))
