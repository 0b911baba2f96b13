"""Stochastic sampling: one SDE for every Gaussian path."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.paths import Path, convert, on_unit_interval
from jgen.random import normal
from jgen.solvers.sampler import Predict, Stepwise, check_steps
from jgen.typing import Key, PyTree, Velocity


@dataclass(frozen=True)
class EulerMaruyama(Stepwise):
    """Solve dx = (u + w(t)^2 s / 2) dt + w(t) dW from t = 0 to t = 1 by the Euler-Maruyama method.

    u is the velocity of a path and s the score of its marginals p_t. By the Fokker-Planck equation
    p_t does not depend on w: w = 0 is the probability-flow ODE, and w is free (2011.13456, App. D;
    2303.08797, Cor. 2.10). Weak order one.

    Refining the grid draws new noise; for convergence studies hand in `noise`.

    Attributes:
      steps: number of equal steps.
      noise_level: w(t) >= 0. Where the score diverges, at the data end, w must go to zero; the end
        point t = 1 itself is never evaluated. Default: w = sqrt(1 - t).
    """

    steps: int
    noise_level: Callable[[Array], Array] = lambda t: jnp.sqrt(1 - t)

    def __post_init__(self):
        """Check the number of steps."""
        check_steps(self.steps)

    @property
    def n_eval(self) -> int:
        """Number of network evaluations of one solution."""
        return self.steps

    def step_noise(self, key: Key, shape: tuple[int, ...]) -> Array:
        """Standard normal increment."""
        return normal(key, shape)

    def __call__(
        self,
        velocity: Velocity,
        score: Callable[[Array, Array, Array], Array],
        x0: Float[Array, "*x"],
        noise: Float[Array, "steps ..."] | Key,
    ) -> Float[Array, "*x"]:
        """Return a sample of x(1).

        Args:
          velocity: (t, x) -> u.
          score: (t, x, u) -> s; it is handed u since the two are linear in one another.
          x0: x(0).
          noise: standard normal increments, or the key that they are drawn from step by step.
        """
        h = 1 / self.steps

        def step(x, i, increment):
            t = i * h
            u = velocity(t, x)
            w = self.noise_level(t)
            drift = u + 0.5 * w**2 * score(t, x, u)
            return x + h * drift + jnp.sqrt(h) * w * increment

        return self.scan(step, x0, jnp.arange(self.steps), noise)

    def sample(self, path: Path, predict: Predict, x0: Array, noise: PyTree) -> Array:
        """Sample of x(t_max) of a path."""
        velocity = on_unit_interval(path, lambda t, x: predict(t, x, "velocity"))
        span = path.t_max - path.t_min

        def score(tau, x, u):
            return convert(path, path.t_min + span * tau, x, u / span, "velocity", "score")

        return self(velocity, score, x0, noise)
