import jax
import numpy as np
import pytest
from jaxtyping import Array, Float, TypeCheckError

from jgen.lattice import magnetization
from jgen.random import stream
from tests.annotations import checked


@pytest.mark.parametrize(
    ("field", "said"),
    [(np.ones(3), "'l l'"), (np.ones((2, 3)), "'l l'"), (np.ones((2, 2), complex), "'l l'")],
)
def test_wrong_arguments_of_the_package_are_seen(field, said):
    with pytest.raises(TypeCheckError, match=f"parameters of jgen.*magnetization(.|\n)*{said}"):
        magnetization(field)


@pytest.mark.parametrize("field", [np.ones((2, 2)), np.ones((2, 2), int), jax.numpy.ones((2, 2))])
def test_arrays_of_numpy_and_of_integers_are_as_good(field):
    assert magnetization(field) == 1


def test_what_a_function_refuses_stays_its_sentence():
    with pytest.raises(ValueError, match="a typed key is needed, got int 0"):
        stream(0, "name")


def test_wrong_results_are_seen():
    @checked
    def first(x: Float[Array, " n"]) -> Float[Array, " n"]:
        return x[:1]

    with pytest.raises(TypeCheckError, match="return value of .*first"):
        first(jax.numpy.ones(2))
    assert first(jax.numpy.ones(1)) == 1
