"""Couplings of the image of a layer by convolutions around the shower axis (2405.20407).

Fields of a checkerboard move, given the others and those before them, then the others do. Angles
have no ends, radii have: networks commute with turns of the layer and of those before it.

Deviations from the paper: a checkerboard in place of channels that are made of blocks of 2 x 2
cells, for layers of few and odd sizes; convolutions of one size without a U-Net and without batch
norm, which see the distance from the axis as one more channel; neither actnorm nor 1x1
convolutions between the couplings.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jgen import bijectors, nets
from jgen.bijectors import Element, TrainableBijector
from jgen.nets import Network


def convolutional_flow(
    shape: tuple[int, int],
    element: Element,
    depth: int,
    before: int,
    *,
    embedding: tuple[int, ...],
    hidden: tuple[int, ...],
) -> TrainableBijector:
    """A flow of the numbers of a layer's cells, given `LayerPreprocessing.features`.

    A layer of A x R cells has A R - 1 numbers. They are an image [A, R] without one pixel of the
    core, which is zero and never moves.

    Args:
      shape: (angles, radii) of a layer.
      element: map of one number.
      depth: couplings.
      before: layers before it that the features hold.
      embedding: channels of the images that are made of these, once for all couplings; the last are
        what the couplings are given.
      hidden: channels of the hidden layers of a coupling's network.
    """
    images = context(shape, before, embedding)
    options = {"hidden": hidden, "padding": "around"}
    network = nets.image_conditioner(1, element.num_params, embedding[-1], **options)
    one = lambda mask: bijectors.masked_coupling(network, element, mask)
    flow = bijectors.embedded(bijectors.stacked(one, _masks(shape, depth)), images)

    def run(function, params, x, cond, key):
        y, log_det = function(params, _image(jnp.append(x, 0), shape), cond, key)
        return _numbers(y)[:-1], log_det

    return flow._replace(
        forward=lambda params, x, cond=None, key=None: run(flow.forward, params, x, cond, key),
        inverse=lambda params, z, cond=None, key=None: run(flow.inverse, params, z, cond, key),
    )


def _image(cells: Float[Array, " cells"], shape: tuple[int, int]) -> Float[Array, "alpha r 1"]:
    """Of the cells of a layer in the order of `LayerPreprocessing.cells`, outer rings first."""
    angles, radii = shape
    return jnp.swapaxes(cells.reshape(radii, angles), 0, 1)[..., None]


def _numbers(image: Float[Array, "alpha r 1"]) -> Float[Array, " cells"]:
    """The inverse of `_image`."""
    return jnp.swapaxes(image[..., 0], 0, 1).ravel()


def _masks(shape: tuple[int, int], depth: int) -> Bool[np.ndarray, "depth alpha r 1"]:
    """What passes in each coupling: one colour, then the other, and always the last cell."""
    colour = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % 2
    masks = colour == np.arange(depth)[:, None, None] % 2
    masks[:, -1, -1] = True
    return masks[..., None]


def context(shape: tuple[int, int], before: int, channels: tuple[int, ...]) -> Network:
    """Images [*shape, channels] of `LayerPreprocessing.features`.

    Convolutions see the layers before, the distance from the axis, and both energies everywhere.
    """
    *hidden, last = channels
    options = {"hidden": tuple(hidden), "padding": "around"}
    network = nets.image_conditioner(before + 3, last, **options)

    def apply(params, features):
        layers, energies = features[:-2].reshape(before, -1), features[-2:]
        images = [_image(layer, shape) for layer in layers]
        distance = jnp.broadcast_to(jnp.linspace(1, -1, shape[1])[:, None], (*shape, 1))
        constant = jnp.broadcast_to(energies, (*shape, 2))
        return network.apply(params, jnp.concatenate([*images, constant, distance], -1))

    return Network(network.init, apply)
