"""Bijectors with parameters, and the ways to put them together.

Direction: `forward` goes from data x to the base z, the direction of maximum likelihood; `inverse`
goes from the base to data, the direction of sampling.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from jgen.bijectors.distrax import from_distrax, is_distrax
from jgen.bijectors.elements import LINE
from jgen.bijectors.elementwise import Bijector
from jgen.checks import check_depths
from jgen.nets.network import NetworkLike, as_network
from jgen.typing import Cond, Key, Params, PyTree

Transform = Callable[..., tuple[Array, Array]]
"""(params, x, cond=None, key=None) -> (image of x, log |det of its Jacobian|), one event."""


class TrainableBijector(NamedTuple):
    """An invertible map of one event, as pure functions.

    The key is for log-determinants that are estimates (Hutchinson's trace, Russian roulette); maps
    whose log-determinant is exact do without, and the image never depends on it. So the inverse,
    which makes samples, works without a key everywhere; a log-determinant that needs one is then
    NaN.

    Attributes:
      init: (key) -> params.
      forward: (params, x, cond=None, key=None) -> (z, log |dz/dx|), from data to the base.
      inverse: (params, z, cond=None, key=None) -> (x, log |dx/dz|), from the base to data.
      data_init: (params, x [n, ...], cond [n, ...]) -> params that fit these n events, such as
        those that standardise them; None where no parameter depends on data.
      num_cond: numbers in the condition that it was made for, 0 for none; None where that is not
        known. `jgen.models.flow` checks with it that base and bijector fit together.
      interval: the smallest (low, high) such that the cube of as many dimensions, and every larger
        one, is mapped to itself: the whole line for maps that leave all cubes, such as linear
        ones, `NOWHERE` for permutations; None where it is not known. `jgen.models.flow` refuses
        with it a bounded base that events would leave.
    """

    init: Callable[[Key], Params]
    forward: Transform
    inverse: Transform
    data_init: Callable[[Params, PyTree, Cond], Params] | None = None
    num_cond: int | None = None
    interval: tuple[float, float] | None = None


NOWHERE = (math.inf, -math.inf)
"""The interval of a map that takes every cube to itself."""


def check_event(layer: str, found: tuple[int, ...], made_for: tuple[int, ...]) -> None:
    """Refuse events that a layer would be broadcast to, or pick some components of."""
    if found != made_for:
        raise ValueError(f"this {layer} was made for events of shape {made_for}, got {found}")


def compose(*layers: Bijector | TrainableBijector | Any) -> Bijector | TrainableBijector:
    """Apply `layers` from left to right on the way from data to base; the inverse backwards.

    Of fixed maps it is a fixed one; with a trainable one among them it is trainable, and its
    parameters are a list. Layers of the same form are better `repeated`, which compiles one.
    Bijectors of distrax are fixed maps, see `from_distrax`.

    Raises:
      ValueError: if none is given, or a fixed map without a log-determinant among trainable ones.
    """
    if not layers:
        raise ValueError("compose needs at least one bijector")
    layers = [from_distrax(b) if is_distrax(b, "Bijector") else b for b in layers]
    if all(isinstance(layer, Bijector) for layer in layers):
        return _fixed(layers)
    return _trainable([lifted(b) if isinstance(b, Bijector) else b for b in layers])


def _fixed(bijectors):
    has_log_det = all(b.has_log_det for b in bijectors)

    def run(x, cond, steps):
        total = jnp.zeros(())
        for step in steps:
            x, log_det = step(x, cond)
            total = total + log_det if has_log_det else None
        return x, total

    return Bijector(
        lambda x, cond=None: run(x, cond, [b.forward for b in bijectors]),
        lambda z, cond=None: run(z, cond, [b.inverse for b in reversed(bijectors)]),
        has_log_det,
        _num_cond(bijectors),
    )


def _trainable(bijectors):
    num = len(bijectors)

    def run(steps, x, cond, key):
        keys = [None] * num if key is None else jax.random.split(key, num)
        total = 0.0
        for (step, params), key in zip(steps, keys, strict=True):
            x, log_det = step(params, x, cond, key)
            total = total + log_det
        return x, total

    def init(key):
        keys = jax.random.split(key, num)
        return [b.init(k) for b, k in zip(bijectors, keys, strict=True)]

    def forward(params, x, cond=None, key=None):
        steps = [(b.forward, p) for b, p in zip(bijectors, params, strict=True)]
        return run(steps, x, cond, key)

    def inverse(params, z, cond=None, key=None):
        steps = [(b.inverse, p) for b, p in zip(bijectors, params, strict=True)]
        return run(steps[::-1], z, cond, key)

    def data_init(params, x, cond=None):
        out = []
        for bijector, p in zip(bijectors, params, strict=True):
            p, x = _advance(bijector, p, x, cond)
            out.append(p)
        return out

    has_data_init = any(b.data_init for b in bijectors)
    if not has_data_init:
        data_init = None
    sizes = _num_cond(bijectors), joint_interval(bijectors)
    return TrainableBijector(init, forward, inverse, data_init, *sizes)


def _num_cond(bijectors) -> int | None:
    sizes = [b.num_cond for b in bijectors]
    return None if None in sizes else max(sizes)


def joint_interval(bijectors: Sequence[TrainableBijector]) -> tuple[float, float] | None:
    """That of layers one after another; one that leaves all cubes does so in any company."""
    intervals = [b.interval for b in bijectors]
    if LINE in intervals:
        return LINE
    if None in intervals:
        return None
    low, high = zip(*intervals, strict=True)
    return min(low), max(high)


def stacked(make: Callable[[PyTree], TrainableBijector], constants: PyTree) -> TrainableBijector:
    """Layers that differ in parameters and constants only, as one scan: flat compile time.

        orders = np.stack([np.random.default_rng(i).permutation(8) for i in range(12)])
        stacked(lambda order: compose(layer, permutation(order)), orders)

    Args:
      make: the layer of a slice of `constants`. All layers need parameters of the same shapes.
      constants: numpy arrays with a leading axis of layers; layer 0 is the first that data meet.

    Raises:
      ValueError: if the arrays have no or different numbers of layers.
    """
    depths = {len(c) if np.ndim(c) else 0 for c in jax.tree.leaves(constants)}
    if len(depths) != 1 or min(depths) < 1:
        raise ValueError(f"constants need one leading axis of layers, got lengths {sorted(depths)}")
    depth = depths.pop()
    # Made once of numpy slices, so that a constant which is wrong is refused here; the scan hands
    # over slices without values.
    layers = [make(jax.tree.map(lambda c: c[i], constants)) for i in range(depth)]  # noqa: B023

    def init(key):
        return jax.vmap(lambda k, c: make(c).init(k))(jax.random.split(key, depth), constants)

    def run(direction, params, x, cond, key):
        def layer(carry, slices):
            x, total = carry
            p, c, k = slices
            x, log_det = getattr(make(c), direction)(p, x, cond, k)
            return (x, total + log_det), None

        keys = None if key is None else jax.random.split(key, depth)
        start = (x, jnp.zeros((), x.dtype))
        slices = (params, constants, keys)
        return jax.lax.scan(layer, start, slices, reverse=direction == "inverse")[0]

    def data_init(params, x, cond=None):
        def layer(x, slices):
            p, c = slices
            p, x = _advance(make(c), p, x, cond)
            return x, p

        return jax.lax.scan(layer, x, (params, constants))[1]

    return TrainableBijector(
        init,
        lambda params, x, cond=None, key=None: run("forward", params, x, cond, key),
        lambda params, z, cond=None, key=None: run("inverse", params, z, cond, key),
        data_init if layers[0].data_init else None,
        layers[0].num_cond,
        joint_interval(layers),
    )


def repeated(bijector: TrainableBijector, depth: int) -> TrainableBijector:
    """`depth` layers like `bijector`, each with parameters of its own, scanned: compiled once.

    What alternates from layer to layer belongs into the layer: a coupling that moves one half of
    the components, followed by a flip, moves the other half in the next layer.

    Raises:
      ValueError: if `depth` is not positive.
    """
    check_depths(depth=depth)
    return stacked(lambda _: bijector, np.arange(depth))


def _advance(bijector, params, x, cond):
    """Parameters fitted to a batch, and the batch after the layer."""
    if bijector.data_init:
        params = bijector.data_init(params, x, cond)
    one = lambda x, cond: bijector.forward(params, x, cond, jax.random.key(0))[0]
    return params, jax.vmap(one)(x, cond)


def inverted(bijector: TrainableBijector) -> TrainableBijector:
    """The same map in the other direction, e.g. inverse autoregressive of autoregressive."""
    sizes = bijector.num_cond, bijector.interval
    return TrainableBijector(bijector.init, bijector.inverse, bijector.forward, None, *sizes)


def lifted(bijector: Bijector) -> TrainableBijector:
    """A map without parameters, as a layer; `compose` makes one of every fixed map.

    Raises:
      ValueError: if the map has no log-determinant.
    """
    if not bijector.has_log_det:
        raise ValueError("a layer of a flow needs a log-determinant, which this map has not")
    return TrainableBijector(
        lambda key: {},
        lambda params, x, cond=None, key=None: bijector.forward(x, cond),
        lambda params, z, cond=None, key=None: bijector.inverse(z, cond),
        num_cond=bijector.num_cond,
    )


def frozen(bijector: TrainableBijector, params: Params) -> Bijector:
    """A trained map, for whatever asks for a `Bijector`, such as `jgen.transforms.preprocessed`.

    Of maps whose log-determinant is exact: a `Bijector` is called without a key.
    """
    return Bijector(
        lambda x, cond=None: bijector.forward(params, x, cond),
        lambda z, cond=None: bijector.inverse(params, z, cond),
        num_cond=bijector.num_cond,
    )


def pixelwise(bijector: TrainableBijector) -> TrainableBijector:
    """A map of vectors [c] on every pixel of an image [..., c], with the same parameters.

    `pixelwise(plu(c))` is the invertible 1x1 convolution of Glow (1807.03039).
    """

    def run(function, params, x, cond, key):
        pixels = x.reshape(-1, x.shape[-1])
        keys = None if key is None else jax.random.split(key, len(pixels))
        each = lambda x, k: function(params, x, cond, k)
        y, log_det = jax.vmap(each)(pixels, keys)
        return y.reshape(x.shape), jnp.sum(log_det)

    def data_init(params, x, cond=None):
        pixels = x.reshape(-1, x.shape[-1])
        repeats = len(pixels) // len(x)
        cond = jax.tree.map(lambda c: jnp.repeat(c, repeats, 0), cond)
        return bijector.data_init(params, pixels, cond)

    return TrainableBijector(
        bijector.init,
        lambda params, x, cond=None, key=None: run(bijector.forward, params, x, cond, key),
        lambda params, z, cond=None, key=None: run(bijector.inverse, params, z, cond, key),
        data_init if bijector.data_init else None,
        bijector.num_cond,
        bijector.interval,
    )


def conditioned(bijector: TrainableBijector, network: NetworkLike) -> TrainableBijector:
    """A map whose parameters are shifted by a network of the condition.

    For the maps that pay no attention to a condition: linear, planar and radial ones.

    Args:
      bijector: the map.
      network: apply(params, cond) -> one number for every parameter of `bijector`, of which there
        are `jgen.nets.num_parameters(bijector.init)`; `jgen.nets.conditioner` starts at zero.
    """
    network = as_network(network)

    def init(key):
        key_bijector, key_network = jax.random.split(key)
        return {"bijector": bijector.init(key_bijector), "network": network.init(key_network)}

    def at(params, cond) -> Params:
        flat, unravel = ravel_pytree(params["bijector"])
        shift: Float[Array, " n"] = network.apply(params["network"], cond)
        if shift.shape != flat.shape:
            raise ValueError(
                f"the network returns {shift.shape} numbers, but the map has {flat.size} parameters"
            )
        return unravel((flat + shift).astype(flat.dtype))

    return TrainableBijector(
        init,
        lambda params, x, cond=None, key=None: bijector.forward(at(params, cond), x, cond, key),
        lambda params, z, cond=None, key=None: bijector.inverse(at(params, cond), z, cond, key),
        interval=bijector.interval,
    )


def embedded(bijector: TrainableBijector, network: NetworkLike) -> TrainableBijector:
    """A map that is given what a network makes of the condition, once for all of its layers.

    For conditions of many numbers.

    Args:
      bijector: a map with a condition.
      network: apply(params, cond) -> the numbers that `bijector` is conditioned on.
    """
    network = as_network(network)

    def init(key):
        key_bijector, key_network = jax.random.split(key)
        return {"bijector": bijector.init(key_bijector), "network": network.init(key_network)}

    def run(function, params, x, cond, key):
        return function(params["bijector"], x, network.apply(params["network"], cond), key)

    return TrainableBijector(
        init,
        lambda params, x, cond=None, key=None: run(bijector.forward, params, x, cond, key),
        lambda params, z, cond=None, key=None: run(bijector.inverse, params, z, cond, key),
        interval=bijector.interval,
    )
