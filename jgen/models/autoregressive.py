"""Autoregressive models with exact densities: p(x) = prod_i p(x_i | x_<i), 2509.08048 Eqs. 6-8.

A causal network turns the components before x_i into a few numbers, a head makes a
one-dimensional density of them: a mixture of Gaussians or a histogram.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgen.arrays import cast_array, finite_array, real_array
from jgen.checks import check_finite, check_sizes
from jgen.generative_model import GenerativeModel, from_noise, mean_loss
from jgen.models.parts import check_contexts
from jgen.nets.network import AutoregressiveNetwork
from jgen.nets.transformers.causal import CausalNetwork
from jgen.typing import Cond, Key, Params, PyTree


class Head(NamedTuple):
    """One-dimensional density p(x_i | outputs) of component i, without parameters of its own.

    Attributes:
      num_outputs: numbers that it needs from the network for every component.
      log_prob: (outputs [num_outputs], i, x_i) -> nats.
      noise: (key) -> random numbers of one component.
      sample: (noise, outputs [num_outputs], i) -> x_i.
      num: components it was made for, or None if it treats all alike.
    """

    num_outputs: int
    log_prob: Callable[[Array, Array, Array], Array]
    noise: Callable[[Key], PyTree]
    sample: Callable[[PyTree, Array, Array], Array]
    num: int | None = None


def autoregressive(network: CausalNetwork, head: Head, num: int) -> GenerativeModel:
    """Events x [num], one component after another.

        head = gaussian_mixture(21)
        model = autoregressive(causal(2, head.num_outputs), head, 2)

    The loss is Eq. 8 of 2509.08048, -log p(x) in nats: summed over components, averaged over
    events. For `jgen.transforms.bayesian` it thus is the likelihood that it asks for. A posterior
    of the output layer's weights only, biases without, as in 2412.12074, is

        bayesian(model, num_train=n, local=True, which=lambda path, leaf: path == "out/kernel")

    where `local` is exact and spares drawing weights for every event, the loss being a sum over
    components. The biases of that layer are "out/bias".

    Training and `log_prob` take all components at once. Sampling is one compiled program, a scan
    over components with the network's cache of keys and values.

    Args:
      network: `jgen.nets.transformers.causal.causal`, or another of that form.
      head: density of one component.
      num: number of components.

    Raises:
      ValueError: if head or network was made for another number of components, or the network's
        outputs are not as many as the head needs.
    """
    check_sizes(num=num)
    if head.num not in (None, num):
        raise ValueError(f"the head was made for {head.num} components, but events have {num}")
    check_contexts(network, num, head.num_outputs)

    def log_prob(params, key, x: Float[Array, " num"], cond=None):
        outputs = _checked(network.contexts(params, x, cond), head)
        return jnp.sum(jax.vmap(head.log_prob)(outputs, jnp.arange(num), x))

    def loss(params, key, batch):
        return mean_loss(lambda key, x, cond: -log_prob(params, key, x, cond), key, batch)

    def noise(key, cond=None):
        return jax.vmap(head.noise)(jax.random.split(key, num))

    def run(params, noise, cond, scored):
        def component(outputs, inputs):
            i, z = inputs
            x = head.sample(z, _checked(outputs, head), i)
            return x, head.log_prob(outputs, i, x) if scored else None

        inputs = (jnp.arange(num), noise)
        return one_after_another(network, params, cond, component, inputs)

    def sample_from(params, noise, cond=None):
        return run(params, noise, cond, scored=False)[0]

    def both(params, key, cond=None):
        x, terms = run(params, noise(key), cond, scored=True)
        return x, jnp.sum(terms)

    return from_noise(network.init, loss, noise, sample_from, log_prob, both)


def one_after_another(
    network: CausalNetwork | AutoregressiveNetwork,
    params: Params,
    cond: Cond,
    component: Callable[[Array, PyTree], tuple[Array, PyTree]],
    inputs: PyTree,
) -> tuple[Float[Array, " num"], PyTree]:
    """Sample (x_i, more) = component(context of x_<i, inputs[i]), in one scan with a cache."""
    num = len(jax.tree.leaves(inputs)[0])

    def body(carry, slice_):
        cache, previous = carry
        i, here = slice_
        context, cache = network.step(params, cache, i, previous)
        x, more = component(context, here)
        return (cache, x), (x, more)

    start = (network.start(params, cond), jnp.zeros(()))
    return jax.lax.scan(body, start, (jnp.arange(num), inputs))[1]


def gaussian_mixture(num_gauss: int, log_scales: tuple[float, float] = (-5.0, 5.0)) -> Head:
    """Mixture sum_j w_j N(x | mu_j, sigma_j^2) of `num_gauss` Gaussians, 2509.08048 Eq. 7.

    Outputs are all means, then raw logarithms of the standard deviations, then logits of the
    weights w. Deviation: the paper states no bounds of sigma and 2412.12074 cuts log sigma at +-5,
    where its gradient vanishes; here a tanh keeps it between the bounds, with slope one in the
    middle. Standardise the data: a structure narrower than exp(-5) is not resolved.

    With `causal` the gradient of the loss is finite in single precision up to |x| = 1e12; from 1e14
    on squares in the normalisation of tokens overflow.

    Args:
      num_gauss: number of Gaussians.
      log_scales: lower and upper bound of log sigma, sigma in units of x.

    Raises:
      ValueError: if there is no Gaussian, or the bounds are not increasing.
    """
    low, high = log_scales
    check_sizes(num_gauss=num_gauss)
    check_finite(low=low, high=high)
    if not low < high:
        raise ValueError(f"log_scales must be increasing bounds of log sigma, got {log_scales}")
    middle, half = (low + high) / 2, (high - low) / 2

    def parts(outputs):
        mean, raw, logits = outputs.reshape(3, num_gauss)
        return mean, middle + half * jnp.tanh((raw - middle) / half), logits

    def log_prob(outputs, i, x):
        mean, log_scale, logits = parts(outputs)
        z = (x - mean) * jnp.exp(-log_scale)
        single = -0.5 * z**2 - log_scale - 0.5 * math.log(2 * math.pi)
        return jax.nn.logsumexp(logits + single) - jax.nn.logsumexp(logits)

    def noise(key):
        key_choice, key_noise = jax.random.split(key)
        return jax.random.uniform(key_choice), jax.random.normal(key_noise)

    def sample(noise, outputs, i):
        mean, log_scale, logits = parts(outputs)
        j = _choose(noise[0], logits)
        return mean[j] + jnp.exp(log_scale[j]) * noise[1]

    return Head(3 * num_gauss, log_prob, noise, sample)


def binned(edges: Float[np.ndarray, "num edges"]) -> Head:
    """Histogram: a categorical distribution over bins and a uniform density within each.

    The density is that of the continuous x, p(bin) / width of the bin. Bins are [a, b), the last
    one includes its upper edge. Outside of the edges the density is zero: `log_prob` is -inf and
    has no gradient, so that training on such an event stops with an error instead of passing over
    it. Bins of equal population, which hold all of `data` [events, num], have the edges

        np.quantile(data, np.linspace(0, 1, bins + 1), axis=0).T

    and `equal_bins` makes those of equal width.

    Args:
      edges: of the bins of every component, increasing along the last axis.

    Raises:
      ValueError: if `edges` are not [num, bins + 1], finite and increasing in single precision.
    """
    edges = cast_array(real_array(edges, "edges"), "edges")
    if edges.ndim != 2 or edges.shape[1] < 2:
        raise ValueError(f"edges must have the shape [num, bins + 1], got {edges.shape}")
    if not (np.all(np.isfinite(edges)) and np.all(np.diff(edges) > 0)):
        raise ValueError(
            "edges must be finite and increasing in every component; quantiles of data with "
            "repeated values are not: merge the bins of zero width"
        )

    def log_prob(outputs, i, x):
        lower, upper = jnp.asarray(edges)[i, :-1], jnp.asarray(edges)[i, 1:]
        # The last bin holds its upper edge, where the largest of the training data lies.
        j = jnp.sum(x >= lower) - 1
        inside = (x >= lower[0]) & (x <= upper[-1])
        log_density = jax.nn.log_softmax(outputs) - jnp.log(upper - lower)
        return jnp.where(inside, log_density[j], -jnp.inf)

    def noise(key):
        key_choice, key_place = jax.random.split(key)
        return jax.random.uniform(key_choice), jax.random.uniform(key_place)

    def sample(noise, outputs, i):
        j = _choose(noise[0], outputs)
        lower, upper = jnp.asarray(edges)[i, j], jnp.asarray(edges)[i, j + 1]
        return lower + (upper - lower) * noise[1]

    return Head(edges.shape[1] - 1, log_prob, noise, sample, num=len(edges))


def equal_bins(data: Float[np.ndarray, "n num"], bins: int) -> Float[np.ndarray, "num edges"]:
    """Edges [num, bins + 1] of bins of equal width, from a tenth of the data's range below it on.

    Args:
      data: events.
      bins: of each component.

    Raises:
      ValueError: if `bins` is no positive whole number, or data are not finite [n, num].
    """
    check_sizes(bins=bins)
    data = finite_array(data, "data", 2)
    low, high = data.min(axis=0), data.max(axis=0)
    beyond = 0.1 * (high - low)
    return np.linspace(low - beyond, high + beyond, bins + 1, axis=1)


def _choose(uniform: Float[Array, ""], logits: Float[Array, " n"]) -> Array:
    """Index drawn with probabilities softmax(logits), in steps of 2^-23.

    By inversion, which takes one random number where `jax.random.categorical` takes n.
    """
    cumulative = jnp.cumsum(jax.nn.softmax(logits))
    # Without the last entry, which rounding may leave below one.
    return jnp.sum(uniform >= cumulative[:-1])


def _checked(outputs: Float[Array, "... d"], head: Head) -> Float[Array, "... d"]:
    if outputs.shape[-1] != head.num_outputs:
        raise ValueError(
            f"the network has {outputs.shape[-1]} outputs a component, but the head needs "
            f"{head.num_outputs}: make the network with num_outputs=head.num_outputs"
        )
    return outputs
