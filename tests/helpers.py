"""What tests of several rooms share."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jgen.typing import Params


def random_params(init: Callable[..., Params], scale: float = 0.3, seed: int = 0) -> Params:
    """Normal numbers in the shapes and types of the parameters that `init` makes.

    Networks whose last layer starts at zero say little before they are trained; and nothing is
    compiled to draw these.
    """
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(init, jax.random.key(0))
    return jax.tree.map(lambda p: jnp.asarray(scale * rng.normal(size=p.shape), p.dtype), shapes)
