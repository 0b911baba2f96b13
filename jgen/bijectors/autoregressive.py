"""Autoregressive layers: z_i = f(x_i; raw_i), with raw_i made of x_<i (1606.04934, 1705.07057)."""

import jax
import jax.numpy as jnp

from jgen.bijectors.elements import Element, on_components
from jgen.bijectors.trainable import TrainableBijector
from jgen.nets.transformers.causal import CausalNetwork


def autoregressive(network: CausalNetwork, element: Element, num: int) -> TrainableBijector:
    """Masked autoregressive layer of events x [num]: a density in one pass, a sample in `num`.

    `inverted(autoregressive(...))` is the inverse autoregressive layer: a sample in one pass, the
    density of data in `num`.

    Args:
      network: `jgen.nets.made`, or a causal transformer, with `element.num_params` outputs.
      element: map of one component.
      num: components.

    Raises:
      ValueError: on a call, if the network's outputs do not fit.
    """

    def forward(params, x, cond=None, key=None):
        raw = network.contexts(params, x, cond)
        z, log_slope = on_components(element.forward, raw, x, element.num_params)
        return z, jnp.sum(log_slope)

    def inverse(params, z, cond=None, key=None):
        def component(carry, inputs):
            cache, previous = carry
            i, z = inputs
            raw, cache = network.step(params, cache, i, previous)
            x, log_slope = on_components(element.inverse, raw, z, element.num_params)
            return (cache, x), (x, log_slope)

        start = (network.start(params, cond), jnp.zeros((), z.dtype))
        x, log_slopes = jax.lax.scan(component, start, (jnp.arange(num), z))[1]
        return x, jnp.sum(log_slopes)

    sizes = {"num_cond": network.num_cond, "interval": element.interval}
    return TrainableBijector(network.init, forward, inverse, **sizes)
