"""Eight fake devices, strict array programming and quick compilation, before any backend starts."""

import os

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Compilation is most of the time here, and half of it is LLVM's work on programs that run once. In
# the environment, too, for the processes and notebooks that tests start.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
jax.config.update(
    "jax_disable_most_optimizations", os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1"
)


@pytest.fixture
def x64():
    """Double precision for tests of orders and closed forms."""
    jax.clear_caches()  # jax 0.10 may answer from programs that were cached in single precision
    with jax.enable_x64(True):
        yield


@pytest.fixture
def key():
    return jax.random.key(0)
