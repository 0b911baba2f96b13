"""What flows are compared with: a grid of our own, flat points, and the package vegas."""

import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.inference.integrands import target
from experiments.study import Run
from jgen.inference import adapted_grid


def has_vegas() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec("vegas") is not None


def grid_weights(config: Any, run: Run, name: str) -> dict[str, np.ndarray]:
    """Weights of as many points of an adapted grid, and of flat ones."""
    what, num = target(name), config.repetitions * config.num
    adapted = adapted_grid(what.in_cube, what.dim, run.key(f"{name} grid"), sizes=config.grid_sizes)
    u = jax.random.uniform(run.key(f"{name} flat"), (num, what.dim))

    def weigh(u):
        x, log_det = adapted.inverse(u)
        return what.in_cube(x) * jnp.exp(log_det), what.in_cube(u)

    both = jax.jit(lambda u: jax.lax.map(weigh, u, batch_size=10_000))(u)
    return dict(zip(("grid", "flat"), (np.asarray(w, np.float64) for w in both), strict=True))


def vegas_result(config: Any, name: str) -> dict[str, float]:
    """Integral, error and deviation a point of ten iterations after fifteen that adapt."""
    import gvar
    import vegas

    what = target(name)
    value = jax.jit(jax.vmap(what.in_cube))

    @vegas.lbatchintegrand
    def integrand(x):
        # Of few lengths, so that few programs are compiled.
        rows = 1 << (len(x) - 1).bit_length()
        padded = np.concatenate([x, np.full((rows - len(x), what.dim), 0.5)])
        return np.asarray(value(padded.astype(np.float32)), np.float64)[: len(x)]

    gvar.ranseed(config.seed + 1)
    neval = config.grid_sizes[0]
    integrator = vegas.Integrator([[0, 1]] * what.dim, min_neval_batch=2 * neval)
    integrator(integrand, nitn=15, neval=neval)
    result = integrator(integrand, nitn=10, neval=neval, adapt=False)
    each = np.array([r.sdev for r in result.itn_results])
    deviation = np.sqrt(np.mean(each**2) * result.sum_neval / 10) / abs(result.mean)
    return {"value": result.mean, "error": result.sdev, "deviation": float(deviation)}
