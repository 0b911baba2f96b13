"""Names for the kinds of values that cross room boundaries."""

from collections.abc import Callable
from typing import Any

import jax
import jaxtyping

Key = jaxtyping.Key[jax.Array, ""]
"""One typed PRNG key, made by `jax.random.key`."""
PyTree = Any
Params = PyTree
Cond = PyTree
Velocity = Callable[[PyTree, PyTree], PyTree]
"""(t, x) -> dx/dt for one event; parameters and condition are already bound."""
Energy = Callable[[PyTree, Cond], jax.Array]
"""(x, cond) -> U in units of kT for one event: the density is exp(-U) / Z."""
Schedule = Callable[[jax.Array], jax.Array]
"""The fraction of the training that is done, in [0, 1] -> a number."""
