"""Flows of many layers, with the sizes worked out; for another mixture write your own."""

from jgen.bijectors.autoregressive import autoregressive
from jgen.bijectors.coupling import coupling
from jgen.bijectors.elements import Element, affine
from jgen.bijectors.linear import actnorm, flip, plu
from jgen.bijectors.multi_scale import level_shapes, multi_scale
from jgen.bijectors.trainable import TrainableBijector, compose, pixelwise, repeated
from jgen.checks import LARGEST_SIZE, check_depths, check_whole
from jgen.nets.conditioners import conditioner, image_conditioner
from jgen.nets.made import made


def coupling_flow(
    num: int,
    element: Element,
    depth: int,
    num_cond: int = 0,
    *,
    hidden: tuple[int, ...] = (64, 64),
) -> TrainableBijector:
    """`depth` couplings of vectors [num], each followed by `plu`, which reverses the components.

    With `additive()` it is NICE, with `affine()` RealNVP, with `rational_quadratic()` a neural
    spline flow.

    Args:
      num: components, two or more.
      element: map of one component.
      depth: layers.
      num_cond: numbers in the condition; 0 without one.
      hidden: widths of the network that each layer has.

    Raises:
      ValueError: if there are less than two components.
    """
    check_whole(2, LARGEST_SIZE, num=num)
    check_depths(depth=depth)
    fixed = num // 2
    moved = num - fixed
    network = conditioner(fixed, moved * element.num_params, num_cond, hidden=hidden)
    return repeated(compose(coupling(network, element, fixed), plu(num)), depth)


def autoregressive_flow(
    num: int,
    element: Element,
    depth: int,
    num_cond: int = 0,
    *,
    hidden: tuple[int, ...] = (64, 64),
) -> TrainableBijector:
    """`depth` masked autoregressive layers of vectors [num], each followed by a flip.

    MAF with `affine()`; `inverted(autoregressive_flow(...))` is IAF.

    Args:
      num: components.
      element: map of one component.
      depth: layers.
      num_cond: numbers in the condition; 0 without one.
      hidden: widths of the network that each layer has.
    """
    network = made(num, element.num_params, num_cond, hidden=hidden)
    return repeated(compose(autoregressive(network, element, num), flip()), depth)


def glow(
    shape: tuple[int, int, int],
    levels: int,
    depth: int,
    num_cond: int = 0,
    *,
    hidden: tuple[int, ...] = (32, 32),
) -> TrainableBijector:
    """Multi-scale flow of images (h, w, c) to vectors [h w c] (Glow, 1807.03039).

    Each level has `depth` steps of actnorm, 1x1 convolution and coupling of the channels, with a
    network of 3x3 convolutions. Deviation: the 1x1 convolution starts at the reversal of the
    channels, not at a random rotation.

    Args:
      shape: of an image; height and width multiples of 2^levels.
      levels: of the hierarchy.
      depth: steps a level.
      num_cond: numbers in the condition; 0 without one.
      hidden: channels of the networks' hidden layers.
    """
    check_depths(depth=depth)
    element = affine()

    def level(channels):
        fixed = channels // 2
        outputs = (channels - fixed) * element.num_params
        network = image_conditioner(fixed, outputs, num_cond, hidden=hidden)
        mixing = pixelwise(compose(actnorm(channels), plu(channels)))
        return repeated(compose(mixing, coupling(network, element, fixed)), depth)

    return multi_scale(shape, *[level(s[2]) for s in level_shapes(shape, levels)])
