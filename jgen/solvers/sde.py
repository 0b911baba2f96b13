"""Stochastic sampling: one SDE for every Gaussian path."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.random import normal
from jgen.typing import Key, Velocity


@dataclass(frozen=True)
class EulerMaruyama:
    """Solve dx = (u + w(t)^2 s / 2) dt + w(t) dW from t = 0 to t = 1 by the Euler-Maruyama method.

    u is the velocity of a path and s the score of its marginals p_t. By the Fokker-Planck equation
    p_t does not depend on w: w = 0 is the probability-flow ODE, and w is free (2011.13456, App. D;
    2303.08797, Cor. 2.10). Weak order one.

    Refining the grid draws new noise; for convergence studies hand in `noise`.

    Attributes:
      num_steps: number of equal steps.
      noise_level: w(t) >= 0. Where the score diverges, at the data end, w must go to zero; the end
        point t = 1 itself is never evaluated. Default: w = sqrt(1 - t).
    """

    num_steps: int
    noise_level: Callable[[Array], Array] = lambda t: jnp.sqrt(1 - t)

    def __post_init__(self):
        """Check the number of steps."""
        if self.num_steps < 1:
            raise ValueError(f"Euler-Maruyama needs at least one step, got {self.num_steps}")

    @property
    def n_eval(self) -> int:
        """Number of network evaluations of one solution."""
        return self.num_steps

    def __call__(
        self,
        key: Key,
        velocity: Velocity,
        score: Callable[[Array, Array, Array], Array],
        x0: Float[Array, "*x"],
        noise: Float[Array, "num_steps ..."] | None = None,
    ) -> Float[Array, "*x"]:
        """Return a sample of x(1).

        Args:
          key: PRNG key of the Brownian path.
          velocity: (t, x) -> u.
          score: (t, x, u) -> s; it is handed u since the two are linear in one another.
          x0: x(0).
          noise: standard normal increments to use instead of those drawn from `key`.
        """
        h = 1 / self.num_steps

        def step(x, inputs):
            i, increment = inputs
            t = i * h
            if increment is None:
                increment = normal(jax.random.fold_in(key, i), x.shape, x.dtype)
            u = velocity(t, x)
            w = self.noise_level(t)
            drift = u + 0.5 * w**2 * score(t, x, u)
            return x + h * drift + jnp.sqrt(h) * w * increment, None

        return jax.lax.scan(step, x0, (jnp.arange(self.num_steps), noise))[0]
