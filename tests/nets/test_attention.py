import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.nets.primitives import chunks
from jgen.nets.transformers.attention import attend


def plain(q, k, v, mask=None):
    scores = jnp.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1])
    scores = scores if mask is None else jnp.where(mask, scores, -jnp.inf)
    return jnp.einsum("hqk,khd->qhd", jax.nn.softmax(scores), v)


def mapped_functions(f):
    """Every way in which jgen differentiates and maps attention, of events (q, k, v) [3, ...]."""
    some = lambda a: jnp.sum(jnp.sin(f(*a)))
    batch = lambda a: jnp.mean(jax.vmap(some)(a))
    tangent = lambda a: jax.jvp(batch, (a,), (jax.tree.map(jnp.cos, a),))[1]
    shared = lambda a: jnp.sum(jax.vmap(lambda q: some((q, a[1][0], a[2][0])))(a[0]))
    grid = jax.vmap(jax.vmap(lambda q, k, v: f(q, k, v), (None, 0, None)), (0, None, 0))
    return {
        "event": lambda a: some(jax.tree.map(lambda x: x[0], a)),
        "batch": lambda a: jax.vmap(f)(*a),
        "second axis": lambda a: jax.vmap(f, (1, 1, 1), 1)(*(jnp.swapaxes(x, 0, 1) for x in a)),
        "gradient": jax.grad(batch),
        "per event": jax.vmap(jax.grad(some)),
        "tangent": tangent,
        "gradient of a tangent": jax.grad(tangent),
        "hessian": lambda a: jax.hessian(lambda q: batch((q, *a[1:])))(a[0]),
        "shared keys": jax.grad(shared),
        "every query with every key": jax.grad(lambda a: jnp.sum(jnp.sin(grid(*a)))),
        "members": lambda a: jax.vmap(lambda b: jax.grad(batch)((b * a[0], *a[1:])))(jnp.ones(2)),
        "rematerialised": jax.grad(jax.checkpoint(batch)),
    }


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", mapped_functions(plain))
def test_equals_the_plain_formula_under_every_transformation(x64, monkeypatch, name, masked):
    """A few events at a time, of which the last are fewer."""
    monkeypatch.setattr(chunks, "_LARGE", 1)
    monkeypatch.setattr(chunks, "_CHUNK", 2 * 2 * 4 * 5)
    rng = np.random.default_rng(0)
    args = tuple(jnp.asarray(rng.normal(size=(3, n, 2, 3))) for n in (4, 5, 5))
    mask = jnp.array([True, False, True, True, False]) if masked else None
    run = lambda f: jax.jit(mapped_functions(lambda *a: f(*a, mask))[name])(args)
    found, expected = (jax.tree.leaves(run(f)) for f in (attend, plain))
    assert max(float(jnp.abs(a).max()) for a in expected) > 1e-3
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_scores_of_all_events_are_never_held(monkeypatch):
    q = jnp.ones((6, 7, 2, 3))
    batch = lambda q: jnp.sum(jax.vmap(attend)(q, q, q))
    lowered = lambda: jax.jit(jax.grad(batch)).lower(q).as_text()
    assert "tensor<6x2x7x7xf32>" in lowered()
    monkeypatch.setattr(chunks, "_LARGE", 1)
    monkeypatch.setattr(chunks, "_CHUNK", 2 * 2 * 7 * 7)
    text = lowered()
    assert "tensor<2x2x7x7xf32>" in text
    assert "tensor<6x2x7x7xf32>" not in text


def test_large_scores_and_nothing_to_see():
    q = jnp.full((2, 1, 4), 1e3)
    v = jnp.array([[[1.0]], [[3.0]]])
    np.testing.assert_allclose(attend(q, q, v), [[[2.0]], [[2.0]]])
    seen = jnp.array([True, False])
    np.testing.assert_allclose(attend(q, q, v, seen), [[[1.0]], [[1.0]]])
    assert np.isfinite(attend(q, q, v, ~seen & seen)).all()


def test_outside_of_programs_it_is_compiled_once():
    q = jnp.ones((5, 2, 3))
    attend(q, q, q)
    before = chunks._compiled.cache_info().misses
    attend(2 * q, q, q)
    assert chunks._compiled.cache_info().misses == before
