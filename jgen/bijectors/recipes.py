"""Flows of many layers, with the sizes worked out; for another mixture write your own."""

import numpy as np

from jgen.bijectors.autoregressive import autoregressive
from jgen.bijectors.coupling import coupling
from jgen.bijectors.elements import Element, affine, swapped
from jgen.bijectors.linear import actnorm, flip, permutation, plu
from jgen.bijectors.multi_scale import level_shapes, multi_scale
from jgen.bijectors.splines import rational_quadratic
from jgen.bijectors.trainable import (
    TrainableBijector,
    compose,
    inverted,
    pixelwise,
    repeated,
    stacked,
)
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


def cube_flow(
    num: int,
    num_cond: int = 0,
    *,
    num_bins: int = 10,
    rounds: int = 1,
    hidden: tuple[int, ...] = (32, 32, 32),
) -> TrainableBijector:
    """Couplings of rational-quadratic splines that map the unit cube [0, 1]^num to itself.

        model = flow(cube_flow(4), uniform(4))

    For densities on a cube, such as those of neural importance sampling. As in i-flow (2001.05486)
    each bit of a component's code decides which half moves, and decides both ways, so that few
    layers let every pair meet: 2 ceil(log2(num)) a round. Deviations: the codes are such that both
    halves have the same size, not the indices themselves; of an odd number one component more
    moves, in turn. Outside of the cube it is the identity.

    Args:
      num: components, two or more.
      num_cond: numbers in the condition; 0 without one.
      num_bins: pieces of each spline.
      rounds: how often all bits have their turn; two for thin structures in few dimensions.
      hidden: widths of the network that each layer has.

    Raises:
      ValueError: if there are less than two components.
    """
    check_whole(2, LARGEST_SIZE, num=num)
    check_depths(rounds=rounds)
    element = rational_quadratic(num_bins, 1.0, free_edges=True)
    fixed = num // 2
    network = conditioner(fixed, (num - fixed) * element.num_params, num_cond, hidden=hidden)
    orders = _halves(num, rounds)
    back = [np.argsort(order) for order in orders]
    # From the order of one layer to that of the next, so that each permutes once.
    steps = [orders[0], *(b[order] for b, order in zip(back[:-1], orders[1:], strict=True))]
    moves = coupling(network, element, fixed)
    layers = stacked(lambda order: compose(permutation(order), moves), np.stack(steps))
    return _on_unit_cube(compose(layers, permutation(back[-1])))


def _halves(num: int, rounds: int) -> list[np.ndarray]:
    """Orders of the components of each layer, those that pass first."""
    bits = (num - 1).bit_length()
    index = np.arange(num)
    # Complements follow each other, so that half of the codes has any bit set.
    codes = np.where(index % 2 == 0, index // 2, 2**bits - 1 - index // 2)
    orders = []
    for layer in range(2 * bits * rounds):
        passes = (codes >> (layer // 2 % bits)) % 2 == layer % 2
        turned = np.roll(np.flatnonzero(passes), layer)
        orders.append(np.concatenate([turned, np.flatnonzero(~passes)]))
    return orders


def _on_unit_cube(bijector: TrainableBijector) -> TrainableBijector:
    """A map of [-1, 1]^n to itself as one of [0, 1]^n, with the same log-determinant."""

    def moved(function):
        def apply(params, x, cond=None, key=None):
            y, log_det = function(params, 2 * x - 1, cond, key)
            return (y + 1) / 2, log_det

        return apply

    both = moved(bijector.forward), moved(bijector.inverse)
    sizes = {"num_cond": bijector.num_cond, "interval": (0.0, 1.0)}
    return TrainableBijector(bijector.init, *both, **sizes)


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


def inverse_autoregressive_flow(
    num: int,
    element: Element,
    depth: int,
    num_cond: int = 0,
    *,
    hidden: tuple[int, ...] = (64, 64),
) -> TrainableBijector:
    """`depth` inverse autoregressive layers: a sample in one pass, a density in `num` (1606.04934).

    Its parameters have the shapes of `autoregressive_flow`'s, and where the networks see nothing
    but the condition both are the same map with the same parameters: a student of such a flow. The
    arguments are that one's.
    """
    network = made(num, element.num_params, num_cond, hidden=hidden)
    layer = inverted(autoregressive(network, swapped(element), num))
    return repeated(compose(layer, flip()), depth)


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
