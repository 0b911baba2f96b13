import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.generative_model import (
    Batch,
    GenerativeModel,
    draw,
    draw_chunks,
    log_densities,
    mean_loss,
)
from jgen.random import member_keys, stream

NORMAL = GenerativeModel(
    init=lambda key: jnp.float32(3.0),
    loss=lambda params, key, batch: mean_loss(lambda k, x, c: (x - params) ** 2, key, batch),
    sample=lambda params, key, cond=None: {
        "x": params + jax.random.normal(key, (2,)) + (0 if cond is None else cond)
    },
)


def test_draw_does_not_depend_on_the_chunks(key):
    whole = draw(NORMAL, jnp.float32(1.0), key, 103, batch_size=103)["x"]
    for batch_size in (10, 50, 1000):
        chunked = draw(NORMAL, jnp.float32(1.0), key, 103, batch_size=batch_size)["x"]
        np.testing.assert_array_equal(chunked, whole)
    np.testing.assert_array_equal(draw(NORMAL, jnp.float32(1.0), key, 7)["x"], whole[:7])


def test_conditions_go_with_their_events(key):
    cond = np.arange(25.0)
    plain = draw(NORMAL, jnp.float32(0.0), key, 25, batch_size=10)["x"]
    shifted = draw(NORMAL, jnp.float32(0.0), key, 25, cond, batch_size=10)["x"]
    np.testing.assert_allclose(shifted - plain, np.repeat(cond[:, None], 2, 1), atol=1e-5)


def test_chunks_compile_once(key):
    traces = []

    def sample(params, key, cond=None):
        traces.append(1)
        return jax.random.normal(key)

    model = NORMAL._replace(sample=sample)
    sizes = [len(chunk) for chunk in draw_chunks(model, None, key, 95, batch_size=10)]
    assert sizes == [10] * 9 + [5]
    assert len(traces) == 1


def test_weights_of_mean_one_are_unbiased(key):
    x, weight = jnp.array([1.0, 2.0, 4.0, 8.0]), jnp.array([0.0, 2.0, -1.0, 3.0])
    loss = NORMAL.loss(jnp.float32(0.0), key, Batch(x, weight=weight))
    np.testing.assert_allclose(loss, np.mean(np.array(weight) * np.array(x) ** 2))


def test_streams_are_independent_and_members_stay(key):
    assert not np.array_equal(*[jax.random.key_data(stream(key, n)) for n in ("train", "init")])
    few, many = (jax.random.key_data(member_keys(key, n)) for n in (2, 5))
    np.testing.assert_array_equal(few, many[:2])
    with pytest.raises(ValueError, match=r"jax.random.key\(seed\)"):
        stream(jax.random.PRNGKey(0), "train")


def test_bad_input(key):
    with pytest.raises(ValueError, match="num must be a whole number from 1 .*got 0"):
        draw(NORMAL, jnp.float32(0.0), key, 0)
    with pytest.raises(ValueError, match="cond has 3 rows, but there are 5 events"):
        draw(NORMAL, jnp.float32(0.0), key, 5, np.zeros(3))
    with pytest.raises(ValueError, match=r"take one of them with jgen.training.member"):
        draw(NORMAL, jnp.zeros(4), key, 5)
    with pytest.raises(ValueError, match=r"got lengths \[2, 3\]"):
        draw(NORMAL, jnp.float32(0.0), key, 2, (np.zeros(3), np.zeros(2)))
    dense = NORMAL._replace(log_prob=lambda params, key, x, cond=None: -((x - params) ** 2))
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="cond holds values that are not finite .* 1 of 2"):
            draw(NORMAL, jnp.float32(0.0), key, 2, np.array([1.0, bad]))
        with pytest.raises(ValueError, match="x holds values that are not finite .* 1 of 2"):
            log_densities(dense, jnp.float32(0.0), key, np.array([1.0, bad]))
