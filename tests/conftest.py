"""Eight fake devices, strict array programming and quick compilation, before any backend starts."""

import os

import jax
import pytest

from tests import annotations

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Compilation is most of the time here, and half of it is LLVM's work on programs that run once. In
# the environment, too, for the processes and notebooks that tests start. Run the tests with
# JAX_DISABLE_MOST_OPTIMIZATIONS=0 to compile as users do.
QUICK = os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") == "1"
jax.config.update("jax_disable_most_optimizations", QUICK)
# Fused kernels without MLIR take two thirds of the time to compile. Another jaxlib may not know
# the flag and would end the process.
if QUICK and jax.version.__version_info__ < (0, 11):
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_cpu_use_fusion_emitters=false"
    )


def pytest_configure(config):
    """Check annotations, but where studies run for long: their time is spent on numbers."""
    if config.option.markexpr != "study":
        annotations.check("jgen")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Notebooks are studies; tests in double precision come last in their file."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker("study")
    files = list(dict.fromkeys(item.path for item in items))
    place = {path: i for i, path in enumerate(files)}
    double = lambda item: "x64" in getattr(item, "fixturenames", ())
    items.sort(key=lambda item: (place[item.path], double(item)))


@pytest.fixture(scope="module")
def optimized():
    """Compilation as users have it, for a module whose programs run for long."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", QUICK)


@pytest.fixture(scope="module")
def no_programs():
    """An empty cache: jax 0.10 may answer in double precision from programs in single precision."""
    jax.clear_caches()


@pytest.fixture
def x64(no_programs):
    """Double precision for tests of orders and closed forms, which come last in their file."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def key():
    return jax.random.key(0)
