"""Eight fake devices, strict array programming and quick compilation, before any backend starts."""

import os

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Compilation is most of the time here, and half of it is LLVM's work on programs that run once. In
# the environment, too, for the processes and notebooks that tests start. Run the tests with
# JAX_DISABLE_MOST_OPTIMIZATIONS=0 to compile as users do.
QUICK = os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") == "1"
jax.config.update("jax_disable_most_optimizations", QUICK)


@pytest.fixture(scope="module")
def optimized():
    """Compilation as users have it, for a module whose programs run for long."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", QUICK)


@pytest.fixture
def x64():
    """Double precision for tests of orders and closed forms."""
    jax.clear_caches()  # jax 0.10 may answer from programs that were cached in single precision
    with jax.enable_x64(True):
        yield


@pytest.fixture
def key():
    return jax.random.key(0)
