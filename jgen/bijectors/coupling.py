"""Coupling layers: some components pass and decide what happens to the others (1410.8516)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from jgen.bijectors.elements import Element, on_components
from jgen.bijectors.trainable import TrainableBijector
from jgen.nets.network import NetworkLike, as_network


def coupling(network: NetworkLike, element: Element, num_fixed: int) -> TrainableBijector:
    """The first `num_fixed` components along the last axis pass, the others move.

    For vectors x [num]:

        moved = num - num_fixed
        network = conditioner(num_fixed, moved * element.num_params, num_cond)

    and for images x [h, w, c] a network of images, whose pixels have as many outputs.

    Args:
      network: apply(params, fixed, cond) -> `element.num_params` numbers for each moved component,
        those of the first component first.
      element: map of one component; additive for NICE, affine for RealNVP, a spline.
      num_fixed: components that pass.

    Raises:
      ValueError: on a call, if none or all components pass or the network's output does not fit.
    """
    network = as_network(network)

    def run(function, params, x, cond):
        if not 0 < num_fixed < x.shape[-1]:
            raise ValueError(
                f"num_fixed must be between 1 and {x.shape[-1] - 1} for components "
                f"{x.shape}, got {num_fixed}"
            )
        fixed, moved = x[..., :num_fixed], x[..., num_fixed:]
        raw = network.apply(params, fixed, cond)
        y, log_slope = on_components(function, raw, moved, element.num_params)
        return jnp.concatenate([fixed, y], -1), jnp.sum(log_slope)

    return TrainableBijector(
        network.init,
        lambda params, x, cond=None, key=None: run(element.forward, params, x, cond),
        lambda params, z, cond=None, key=None: run(element.inverse, params, z, cond),
        num_cond=network.num_cond,
        interval=element.interval,
    )


def masked_coupling(
    network: NetworkLike, element: Element, mask: Bool[np.ndarray | Array, "*x"]
) -> TrainableBijector:
    """Components where `mask` is true pass, the others move; events of the shape of the mask.

    For patterns such as checkerboards. The network makes parameters for all components, those that
    pass included; where a split will do, `coupling` computes half. Alternating masks are constants
    of `stacked`.

    Args:
      network: apply(params, where(mask, x, 0), cond) -> `element.num_params` numbers a component.
      element: map of one component.
      mask: which components pass.

    Raises:
      ValueError: on a call, if the network's output does not fit.
    """
    network = as_network(network)

    def run(function, params, x, cond):
        raw = network.apply(params, jnp.where(mask, x, 0), cond)
        y, log_slope = on_components(function, raw, x, element.num_params)
        return jnp.where(mask, x, y), jnp.sum(jnp.where(mask, 0, log_slope))

    return TrainableBijector(
        network.init,
        lambda params, x, cond=None, key=None: run(element.forward, params, x, cond),
        lambda params, z, cond=None, key=None: run(element.inverse, params, z, cond),
        num_cond=network.num_cond,
        interval=element.interval,
    )
