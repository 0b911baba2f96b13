"""Samplers of diffusion models: from the noise at t_min to the data at t_max of any Gaussian path.

A sampler is data and a step (path, denoiser, x_t, t, s, noise) -> x_s. The denoiser gives
E[x1 | x_t], from which all other predictions follow. Steps are equal in the time of the path, whose
schedule therefore sets the grid. Refining the grid draws new noise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.checks import check_literals, check_not_negative, check_open_fraction, check_whole
from jgen.paths import Path, check_ends, convert, time_of_noise
from jgen.random import normal
from jgen.solvers.sampler import Predict, Sampler, StepSampler, Stepwise, check_sampler, check_steps
from jgen.typing import Key, PyTree

Denoiser = Callable[[Array, Array], Array]
"""(t, x_t) -> E[x1 | x_t] for one event; parameters and condition are already bound."""


@dataclass(frozen=True)
class DDIM(StepSampler):
    """Denoising diffusion implicit model (2010.02502, Eqs. 12 and 16).

    With eta = 0 it is Euler's method for x / alpha in the noise level sigma / alpha, with eta = 1
    the ancestral sampling of DDPM.

    Attributes:
      steps: number of steps.
      eta: share of the noise of ancestral sampling, 0 to 1.
    """

    steps: int
    eta: float = 0.0

    def __post_init__(self):
        """Check the options."""
        check_steps(self.steps)
        check_not_negative(eta=self.eta)
        if self.eta > 1:
            raise ValueError(f"eta must be in [0, 1], got {self.eta}")

    @property
    def n_eval(self) -> int:
        """Number of network evaluations of one solution."""
        return self.steps

    def step_noise(self, key: Key, shape: tuple[int, ...]) -> Array | None:
        """Standard normal, None without eta."""
        return normal(key, shape) if self.eta else None

    def step(
        self, path: Path, denoiser: Denoiser, x: Array, t: Array, s: Array, noise: PyTree
    ) -> Array:
        """From x_t to x_s."""
        data = denoiser(t, x)
        old = convert(path, t, x, data, "data", "noise")
        sigma = path.sigma(s)
        if not self.eta:
            return path.alpha(s) * data + sigma * old
        fresh = self.eta * step_posterior(path, t, s, x, data)[1]
        kept = jnp.sqrt(jnp.maximum(sigma**2 - fresh**2, 0))
        return path.alpha(s) * data + kept * old + fresh * noise


@dataclass(frozen=True)
class Ancestral(StepSampler):
    """Ancestral sampling of DDPM (2006.11239, Eqs. 6, 7 and 11), on any path.

    Attributes:
      steps: number of steps.
      variance: of a step, "posterior", that of q(x_s | x_t, x1), which is right for data at one
        point, or "forward", that of q(x_t | x_s), right for normal data: DDPM's beta.
    """

    steps: int
    variance: Literal["posterior", "forward"] = "posterior"

    def __post_init__(self):
        """Check the options."""
        check_steps(self.steps)
        check_literals(self)

    @property
    def n_eval(self) -> int:
        """Number of network evaluations of one solution."""
        return self.steps

    def step_noise(self, key: Key, shape: tuple[int, ...]) -> Array:
        """Standard normal."""
        return normal(key, shape)

    def step(
        self, path: Path, denoiser: Denoiser, x: Array, t: Array, s: Array, noise: PyTree
    ) -> Array:
        """From x_t to x_s."""
        mean, std = step_posterior(path, t, s, x, denoiser(t, x))
        if self.variance == "forward":
            std = jnp.sqrt(forward_variance(path, t, s))
        return mean + std * noise


@dataclass(frozen=True)
class EDMHeun(StepSampler):
    """Heun's method in the noise level with churn (2206.00364, Algorithm 2), on any path.

    The paper's variable is sigma on a path with alpha = 1; here it is x / alpha at the noise level
    sigma / alpha, and so the path needs alpha > 0 and sigma > 0 at both ends. Noise is not raised
    above the level of t_min. The paper's last step, to noise zero, is `Denoised`.

    Attributes:
      steps: number of steps.
      churn: the paper's S_churn; 0 for the probability-flow ODE.
      churn_range: levels sigma / alpha between which noise is added, (S_tmin, S_tmax).
      churn_noise: factor on the noise that is added, S_noise.
    """

    steps: int
    churn: float = 0.0
    churn_range: tuple[float, float] = (0.0, float("inf"))
    churn_noise: float = 1.0

    def __post_init__(self):
        """Check the options."""
        check_steps(self.steps)
        check_not_negative(churn=self.churn, churn_noise=self.churn_noise)

    @property
    def n_eval(self) -> int:
        """Number of network evaluations of one solution."""
        return 2 * self.steps

    def step_noise(self, key: Key, shape: tuple[int, ...]) -> Array | None:
        """Standard normal, None without churn."""
        return normal(key, shape) if self.churn else None

    def step(
        self, path: Path, denoiser: Denoiser, x: Array, t: Array, s: Array, noise: PyTree
    ) -> Array:
        """From x_t to x_s; ValueError if alpha(t_min) or sigma(t_max) is zero."""
        check_ends(path, alpha=True, sigma=True)
        level = lambda t: path.sigma(t) / path.alpha(t)
        now, then, y = level(t), level(s), x / path.alpha(t)
        if self.churn:
            low, high = self.churn_range
            gamma = min(self.churn / self.steps, np.sqrt(2) - 1)
            raised = jnp.minimum((1 + gamma) * now, level(jnp.asarray(path.t_min, now.dtype)))
            raised = jnp.where((low <= now) & (now <= high), jnp.maximum(raised, now), now)
            # As a product, which rounding does not make negative where nothing is added.
            added = jnp.sqrt((raised - now) * (raised + now))
            y = y + self.churn_noise * added * noise
            now, t = raised, time_of_noise(path, raised)
        slope = (y - denoiser(t, path.alpha(t) * y)) / now
        euler = y + (then - now) * slope
        slope_then = (euler - denoiser(s, path.alpha(s) * euler)) / then
        return path.alpha(s) * (y + 0.5 * (then - now) * (slope + slope_then))


@dataclass(frozen=True)
class PredictorCorrector(StepSampler):
    """A predictor's step in time, then Langevin steps at the new time (2011.13456, Algorithm 1).

    Attributes:
      predictor: `Ancestral` (one of that paper's), `DDIM`, `EDMHeun` or your own.
      num_corrections: Langevin steps after each step of the predictor.
      snr: signal-to-noise ratio r of a Langevin step, see `langevin`.
    """

    predictor: StepSampler
    num_corrections: int = 1
    snr: float = 0.16

    def __post_init__(self):
        """Check the options."""
        if not isinstance(self.predictor, StepSampler):
            raise TypeError(
                "the predictor must be DDIM(...), Ancestral(...), EDMHeun(...) or another "
                "jgen.solvers.StepSampler, which steps from one time of the path to the next, got "
                f"{self.predictor!r}"
            )
        _check_langevin(self.num_corrections, self.snr)

    @property
    def steps(self) -> int:
        """Number of steps of the predictor."""
        return self.predictor.steps

    @property
    def n_eval(self) -> int:
        """Number of network evaluations of one solution."""
        return self.predictor.n_eval + self.steps * self.num_corrections

    def step_noise(self, key: Key, shape: tuple[int, ...]) -> PyTree:
        """Those of the predictor and of the corrections."""
        key_predictor, key_corrector = jax.random.split(key)
        of_predictor = self.predictor.step_noise(key_predictor, shape)
        return of_predictor, _normals(key_corrector, self.num_corrections, shape)

    def step(
        self, path: Path, denoiser: Denoiser, x: Array, t: Array, s: Array, noise: PyTree
    ) -> Array:
        """From x_t to x_s."""
        of_predictor, of_corrections = noise
        x = self.predictor.step(path, denoiser, x, t, s, of_predictor)
        return langevin(of_corrections, path, denoiser, x, s, self.snr)


@dataclass(frozen=True)
class AnnealedLangevin(StepSampler):
    """Langevin steps at one noise level after another (NCSN, 1907.05600, Algorithm 1).

    Between the levels x is left as it is, but for the factor alpha_s / alpha_t, which is one on the
    paper's path, `variance_exploding`. The paper's step size epsilon relates to `snr` by
    snr^2 = epsilon / (4 sigma_min^2).

    Attributes:
      steps: number of noise levels below that of t_min.
      num_corrections: Langevin steps at each.
      snr: signal-to-noise ratio r of a Langevin step, see `langevin`.
    """

    steps: int
    num_corrections: int
    snr: float = 0.16

    def __post_init__(self):
        """Check the options."""
        check_steps(self.steps)
        _check_langevin(self.num_corrections, self.snr)

    @property
    def n_eval(self) -> int:
        """Number of network evaluations of one solution."""
        return self.steps * self.num_corrections

    def step_noise(self, key: Key, shape: tuple[int, ...]) -> Array:
        """Standard normal [num_corrections, *shape]."""
        return _normals(key, self.num_corrections, shape)

    def step(
        self, path: Path, denoiser: Denoiser, x: Array, t: Array, s: Array, noise: PyTree
    ) -> Array:
        """From the level of t to that of s; ValueError if alpha(t_min) is zero."""
        check_ends(path, alpha=True)
        x = path.alpha(s) / path.alpha(t) * x
        return langevin(noise, path, denoiser, x, s, self.snr)


@dataclass(frozen=True)
class Denoised:
    """Another sampler, and E[x1 | x(t_max)] of what it gives: the step that leaves no noise.

    The last step of DDPM (2006.11239, Algorithm 2) and of EDM (2206.00364, Algorithm 2) is this
    one. `log_prob` is the density of the other sampler's events, which have the noise of t_max.

    Attributes:
      sampler: any sampler, solver of ordinary differential equations or `EulerMaruyama`.
    """

    sampler: Sampler

    def __post_init__(self):
        """Check the other sampler."""
        check_sampler(self.sampler)

    @property
    def n_eval(self) -> int:
        """Number of network evaluations of one solution."""
        return self.sampler.n_eval + 1

    def noise(self, key: Key, shape: tuple[int, ...]) -> PyTree:
        """That of the other sampler."""
        return self.sampler.noise(key, shape)

    def sample(self, path: Path, predict: Predict, x0: Array, noise: PyTree) -> Array:
        """E[x1 | x(t_max)] of the other sampler's x(t_max)."""
        x = self.sampler.sample(path, predict, x0, noise)
        return predict(jnp.asarray(path.t_max, x.dtype), x, "data")


def run_sampler(
    sampler: Sampler, key: Key, path: Path, predict: Predict, x0: Float[Array, "*x"]
) -> Float[Array, "*x"]:
    """A sample of x(t_max) with noise drawn from `key`; samplers in steps draw it as they go.

    Args:
      sampler: which.
      key: PRNG key; solvers of ordinary differential equations do not look at it.
      path: the path.
      predict: (t, x_t, kind) -> prediction of that kind, see `jgen.paths`.
      x0: x(t_min), normal with the path's `base_std`.
    """
    inner = sampler.sampler if isinstance(sampler, Denoised) else sampler
    noise = key if isinstance(inner, Stepwise) else sampler.noise(key, x0.shape)
    return sampler.sample(path, predict, x0, noise)


def step_posterior(
    path: Path,
    t: Float[Array, ""],
    s: Float[Array, ""],
    x: Float[Array, "*x"],
    data: Float[Array, "*x"],
) -> tuple[Float[Array, "*x"], Float[Array, ""]]:
    """Mean and standard deviation of q(x_s | x_t = x, x1 = data) for s nearer to the data than t.

    Normal, with the noise of x_t = (alpha_t / alpha_s) x_s + noise independent of x_s (2006.11239,
    Eqs. 6 and 7; on any path 2107.00630, Eqs. 25 and 26).
    """
    alpha_s, sigma_s, sigma_t = path.alpha(s), path.sigma(s), path.sigma(t)
    ratio, variance = path.alpha(t) / alpha_s, forward_variance(path, t, s)
    mean = (ratio * sigma_s**2 * x + alpha_s * variance * data) / sigma_t**2
    return mean, sigma_s / sigma_t * jnp.sqrt(variance)


def langevin(
    noise: Float[Array, "steps ..."],
    path: Path,
    denoiser: Denoiser,
    x: Float[Array, "*x"],
    t: Float[Array, ""],
    snr: float,
) -> Float[Array, "*x"]:
    """Unadjusted Langevin steps x + epsilon s + sqrt(2 epsilon) z at a fixed time, z the `noise`.

    epsilon = 2 (snr sigma)^2. In 2011.13456, Algorithm 4, it is 2 (snr |z| / |s|)^2 with norms that
    are means over a batch, which the norms of one event cannot replace: the step would depend on
    the noise in it. With the score at fixed data |s| is |z| / sigma, the step taken here; where the
    noise is narrower than the data the true |s| is smaller, and the paper's steps are longer.
    Algorithm 5, for paths that preserve the variance, multiplies by alpha_i = 1 - beta_i, which is
    one but for the width of the grid (0.98 to 1 there), and is left out.
    """
    sigma = path.sigma(t)

    def step(x, z):
        # sigma^2 s = alpha data - x, which needs no division where sigma vanishes.
        drift = 2 * snr**2 * (path.alpha(t) * denoiser(t, x) - x)
        return x + drift + 2 * snr * sigma * z, None

    return jax.lax.scan(step, x, noise)[0]


def _normals(key, num, shape):
    """Standard normal [num, *shape]."""
    return jax.vmap(lambda i: normal(jax.random.fold_in(key, i), shape))(jnp.arange(num))


def forward_variance(path, t, s):
    """Variance of x_t given x_s, for s nearer to the data."""
    ratio = path.alpha(t) / path.alpha(s)
    return jnp.maximum(path.sigma(t) ** 2 - (ratio * path.sigma(s)) ** 2, 0)


def _check_langevin(num_corrections, snr):
    check_whole(1, 10**6, num_corrections=num_corrections)
    check_open_fraction(snr=snr)
