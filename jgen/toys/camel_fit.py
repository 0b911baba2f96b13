"""The benchmark of GANplification: a fit that knows the camel back but for its five parameters.

Of `camel_back(4, 1)` and its quantiles (2008.06545, Sec. 2).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from scipy import stats

from jgen.amplification import fit_quantile_mse, quantile_mse
from jgen.toys.toy import normal_probability

PARAMETERS = ("mean 1", "mean 2", "width 1", "width 2", "fraction")
# A share `fraction` of N(mean 1, width 1), the rest of N(mean 2, width 2).
TRUTH = np.array([-4.0, 4.0, 1.0, 1.0, 0.5])
_ITERATIONS = 20


@jax.jit
def fit_camel_backs(
    data_sets: Float[Array, "sets n 1"],
) -> tuple[Float[Array, "sets 5"], Float[Array, " sets"]]:
    """Maximum-likelihood fits by L-BFGS from the true parameters, all data sets side by side.

    Returns:
      `PARAMETERS` of each fit, and the length of the gradient of the mean log-likelihood where it
      ended, by means in units of the width, logarithms of widths and the logit of the fraction.
    """

    def one(x):
        loss = partial(_loss, x[:, 0])
        solver = optax.lbfgs()
        value_and_grad = optax.value_and_grad_from_state(loss)

        def step(carry, _):
            theta, state = carry
            value, grad = value_and_grad(theta, state=state)
            updates, state = solver.update(
                grad, state, theta, value=value, grad=grad, value_fn=loss
            )
            return (optax.apply_updates(theta, updates), state), None

        start = jnp.array([*TRUTH[:2], 0.0, 0.0, 0.0])
        (theta, _), _ = jax.lax.scan(step, (start, solver.init(start)), length=_ITERATIONS)
        return _physical(theta), jnp.linalg.norm(jax.grad(loss)(theta))

    return jax.vmap(one)(data_sets)


def fitted_quantile_errors(
    parameters: Float[np.ndarray, "sets 5"], edges: Float[np.ndarray, " edges"]
) -> Float[np.ndarray, " sets"]:
    """Quantile errors of fitted camel backs themselves, as of infinitely many events."""
    mean_1, mean_2, width_1, width_2, fraction = np.asarray(parameters, np.float64).T[..., None]
    low, high = edges[None, :-1], edges[None, 1:]
    first = normal_probability(low, high, mean_1, width_1)
    second = normal_probability(low, high, mean_2, width_2)
    return quantile_mse(fraction * first + (1 - fraction) * second)


def exact_fit_error(edges: Float[np.ndarray, " edges"], num_train: int) -> float:
    """Expected quantile error of the fit, from the Fisher information (first order in 1/n)."""
    x = np.linspace(-14.0, 14.0, 20_001)
    density, slopes = _density(x)
    # Beyond ten widths nothing is left, so that the trapezoidal rule is exact to rounding.
    information = (slopes / density) @ slopes.T * (x[1] - x[0])
    covariance = np.linalg.inv(information) / num_train
    return fit_quantile_mse(covariance, _jacobian(edges))


def _loss(x, theta):
    mean_1, mean_2, width_1, width_2, fraction = _physical(theta)
    log_normal = lambda mean, width: -0.5 * ((x - mean) / width) ** 2 - jnp.log(width)
    first = jnp.log(fraction) + log_normal(mean_1, width_1)
    return -jnp.mean(jnp.logaddexp(first, jnp.log1p(-fraction) + log_normal(mean_2, width_2)))


def _physical(theta):
    """Means, widths and fraction from free parameters."""
    return jnp.concatenate([theta[:2], jnp.exp(theta[2:4]), jax.nn.sigmoid(theta[4:])])


def _density(x):
    """Density [n] at the truth, and its derivatives by the parameters [5, n]."""
    mean_1, mean_2, width_1, width_2, fraction = TRUTH
    first, second = stats.norm.pdf(x, mean_1, width_1), stats.norm.pdf(x, mean_2, width_2)
    z_1, z_2 = (x - mean_1) / width_1, (x - mean_2) / width_2
    slopes = [
        fraction * first * z_1 / width_1,
        (1 - fraction) * second * z_2 / width_2,
        fraction * first * (z_1**2 - 1) / width_1,
        (1 - fraction) * second * (z_2**2 - 1) / width_2,
        first - second,
    ]
    return fraction * first + (1 - fraction) * second, np.stack(slopes)


def _jacobian(edges):
    """Derivatives [bins, 5] of the bins' probabilities, in closed form."""
    mean_1, mean_2, width_1, width_2, fraction = TRUTH

    def parts(mean, width):
        z = (np.clip(edges, -1e3, 1e3) - mean) / width  # beyond, the density is zero
        pdf = stats.norm.pdf(z) / width
        probability = normal_probability(edges[:-1], edges[1:], mean, width)
        return -np.diff(pdf), -np.diff(z * pdf), probability

    by_mean_1, by_width_1, first = parts(mean_1, width_1)
    by_mean_2, by_width_2, second = parts(mean_2, width_2)
    return np.stack(
        [
            fraction * by_mean_1,
            (1 - fraction) * by_mean_2,
            fraction * by_width_1,
            (1 - fraction) * by_width_2,
            first - second,
        ],
        axis=1,
    )
