"""Students of flows: exact where they are their teachers, and told from them where they are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.bijectors import (
    affine,
    autoregressive_flow,
    inverse_autoregressive_flow,
    rational_quadratic,
)
from jgen.models.guided_flow import Layers, guided_loss, student_pass, teacher_pass
from jgen.nets import made
from tests.helpers import random_params

NUM, DEPTH, HIDDEN = 3, 2, (6,)


def flows(element):
    both = (autoregressive_flow, inverse_autoregressive_flow)
    teacher, student = (make(NUM, element, DEPTH, 1, hidden=HIDDEN) for make in both)
    network = made(NUM, element.num_params, 1, hidden=HIDDEN)
    return teacher, student, Layers(network, element, NUM)


def without_events(params):
    """The networks see the condition and not the event: shifts and scales are constants of it."""
    layers = dict(params[0])
    layers["layers_0"] = layers["layers_0"] | {"kernel": 0 * layers["layers_0"]["kernel"]}
    return [layers, *params[1:]]


@pytest.mark.parametrize("element", [affine(), rational_quadratic(4, 3.0)], ids=["affine", "rqs"])
def test_the_inverse_of_a_teacher_has_no_loss(element):
    teacher, student, layers = flows(element)
    params = without_events(random_params(teacher.init, 0.5))
    x, cond, key = jnp.array([0.3, -1.2, 0.8]), jnp.array([0.7]), jax.random.key(0)
    loss = jax.jit(lambda p: guided_loss(layers, params, p, key, x, (cond, cond)))
    assert float(loss(params)) == pytest.approx(0, abs=1e-9)
    z, _ = teacher.forward(params, x, cond)
    np.testing.assert_allclose(student.inverse(params, z, cond)[0], x, atol=1e-5)
    moved = jax.tree.map(lambda p: p + 0.1, params)
    assert float(loss(moved)) > 1e-3


def test_passes_are_the_flows():
    teacher, student, layers = flows(rational_quadratic(4, 3.0))
    params = random_params(teacher.init, 0.5)
    x, cond = jnp.array([0.3, -1.2, 0.8]), jnp.array([0.7])
    z, guides = teacher_pass(layers, params, x, cond)
    np.testing.assert_allclose(z, teacher.forward(params, x, cond)[0], atol=1e-6)
    np.testing.assert_array_equal(guides.states[0], x)
    made, guides = student_pass(layers, params, z, cond)
    np.testing.assert_allclose(made, student.inverse(params, z, cond)[0], atol=1e-6)
    np.testing.assert_array_equal(guides.states[0], made)
    # Its density takes a pass a component, and is that of the map.
    again, log_det = jax.jit(student.forward)(params, made, cond)
    np.testing.assert_allclose(again, z, atol=1e-5)
    matrix = jax.jacfwd(lambda z: student.inverse(params, z, cond)[0])(z)
    assert float(log_det) == pytest.approx(-float(jnp.linalg.slogdet(matrix)[1]), abs=1e-4)
    shapes = [jax.eval_shape(f.init, jax.random.key(0)) for f in (teacher, student)]
    assert jax.tree.structure(shapes[0]) == jax.tree.structure(shapes[1])
