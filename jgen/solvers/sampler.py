"""What every sampler has, from solvers of ordinary differential equations to Langevin chains."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.checks import check_whole
from jgen.paths import Path
from jgen.typing import Key, PyTree

Predict = Callable[[Array, Array, str], Array]
"""(t, x_t, kind) -> prediction of that kind, see `jgen.paths`; for one event."""


@runtime_checkable
class Sampler(Protocol):
    """What leads from the noise at t_min of a path to data at t_max; your own class does as well.

    `noise` and `sample` are pure functions: a sample is a function of x0 and of this noise alone.
    Three bases have them already: `StepSampler`, of which a class makes one step between two times
    of the path, `jgen.solvers.OdeSolver`, of which it solves dx/dt = u(t, x), and `Protocol`, where
    it does as it likes.
    """

    @property
    def n_eval(self) -> int:
        """Number of network evaluations of one sample."""

    def noise(self, key: Key, shape: tuple[int, ...]) -> PyTree:
        """All random numbers of one sample of this shape but x0; None if there are none."""

    def sample(self, path: Path, predict: Predict, x0: Array, noise: PyTree) -> Array:
        """Sample of x(t_max) from x0 = x(t_min), normal with the path's `base_std`."""


def check_sampler(sampler: Sampler) -> None:
    """Refuse what is no sampler.

    Raises:
      TypeError: naming what came.
    """
    if isinstance(sampler, type) or not isinstance(sampler, Sampler):
        raise TypeError(
            "the sampler must be one of jgen.solvers, such as DDIM(50), EulerMaruyama(100) or "
            'runge_kutta("midpoint", 20), or have n_eval, noise and sample as '
            f"jgen.solvers.Sampler has them, got {sampler!r}"
        )


def check_steps(steps: int) -> None:
    """Refuse what is no number of steps: times of all of them are an array of the host."""
    check_whole(1, 10**7, steps=steps)


class Stepwise:
    """Samplers with noise in each of their `steps`.

    Their `sample` takes a key in the place of noise and then draws the numbers of a step in that
    step, so that memory does not grow with the number of steps. They are the same numbers, and the
    sample is the same up to rounding.
    """

    steps: int

    def step_noise(self, key: Key, shape: tuple[int, ...]) -> PyTree:
        """Random numbers of one step, None without."""
        return None

    def noise(self, key: Key, shape: tuple[int, ...]) -> PyTree:
        """Those of all steps, [steps, ...]."""
        one = lambda i: self.step_noise(jax.random.fold_in(key, i), shape)
        return jax.vmap(one)(jnp.arange(self.steps))

    def scan(
        self, step: Callable[[Array, PyTree, PyTree], Array], x0: Array, inputs: PyTree, noise
    ) -> Array:
        """Scan x = step(x, inputs[i], noise[i])."""
        key = noise if _is_key(noise) else None

        def body(x, slices):
            i, here, z = slices
            if key is not None:
                z = self.step_noise(jax.random.fold_in(key, i), x.shape)
            return step(x, here, z), None

        slices = (jnp.arange(self.steps), inputs, None if key is not None else noise)
        return jax.lax.scan(body, x0, slices)[0]


class StepSampler(Stepwise):
    """A sampler that is a step from x_t to x_s, made at `steps` equal steps of the path's time.

    A class has `steps` and `n_eval`, `step`, and `step_noise` if there is chance in it.
    """

    def step(
        self,
        path: Path,
        denoiser: Callable[[Array, Array], Array],
        x: Float[Array, "*x"],
        t: Float[Array, ""],
        s: Float[Array, ""],
        noise: PyTree,
    ) -> Float[Array, "*x"]:
        """From x_t to x_s; denoiser(t, x_t) is E[x1 | x_t], `noise` is that of `step_noise`."""
        raise NotImplementedError

    def sample(self, path: Path, predict: Predict, x0: Array, noise: PyTree) -> Array:
        """Sample of x(t_max)."""
        denoiser = lambda t, x: predict(t, x, "data")
        times = time_grid(path, self.steps)
        step = lambda x, ends, z: self.step(path, denoiser, x, *ends, z)
        return self.scan(step, x0, (times[:-1], times[1:]), noise)


def time_grid(path: Path, steps: int) -> Float[Array, " steps_plus_1"]:
    """Nodes of equal steps from t_min to t_max."""
    return jnp.asarray(np.linspace(path.t_min, path.t_max, steps + 1), jnp.result_type(float))


def _is_key(noise: PyTree) -> bool:
    return isinstance(noise, jax.Array) and jnp.issubdtype(noise.dtype, jax.dtypes.prng_key)
