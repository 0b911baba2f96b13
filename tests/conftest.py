"""Eight fake devices and strict array programming, set before any backend starts."""

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Double precision for tests of orders and closed forms."""
    jax.clear_caches()  # jax 0.10 may answer from programs that were cached in single precision
    with jax.enable_x64(True):
        yield


@pytest.fixture
def key():
    return jax.random.key(0)
