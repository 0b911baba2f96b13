"""Velocities that end on what an event is asked to have, such as the mass of a jet.

What is asked of an event as a whole is a few smooth numbers c(x1) that shall vanish: an event lies
on a thin surface, which a network finds late, since hardly any of its loss depends on it. On a
straight path x_t = x1 + (1 - t) (x0 - x1) from noise an event x_t + (1 - t) v that a velocity v
heads for is wrong by (1 - t) times an error of width about one. Were c linear with slopes G, errors
normal, and c(x1) of width w, the best guess moves it by

    -(1 - t)^2 G^T ((1 - t)^2 G G^T + w^2)^-1 c.

`constrained` adds this, over 1 - t and times a gain between zero and one that it learns as a
function of time, and of a part of the condition where that is asked, to the velocity of a network,
which sees c(x_t), too. Nothing of this is published; `jgen.events.known` does the same for top
pairs, with surfaces of its own.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.checks import check_positive, check_sizes, check_whole
from jgen.nets.network import Network, NetworkLike, as_network
from jgen.nets.sets import harmonics
from jgen.sets import SetCondition
from jgen.typing import Cond

_MOST = 3.0  # of a number that is asked to vanish: beyond it slopes say little
_FARTHEST = 1.0  # that a coordinate of the event is moved
_INITIAL_WEIGHT = 6.0  # of a number that gains see
_EARLIEST = 0.02  # of the time that is left: what divides by it
_ROUNDING = 10.0  # of the slopes' products, in units of the last place


def constrained(
    network: NetworkLike,
    missed: Callable[[Float[Array, "*x"], Cond], Float[Array, " num"]],
    num: int,
    *,
    width: float = 0.03,
    gain_cond: int = 0,
) -> Network:
    """A velocity field for flow matching on the linear path, corrected towards missed(x1) = 0.

    Events x [num, 4] whose sum of squares is asked for, by its logarithm, which is all of the
    condition; the network takes one number more:

        def missed(x, cond):
            return jnp.log(jnp.sum(x**2))[None] - cond

        network = nets.constrained(nets.velocity_mlp(4, 1 + 1), missed, 1)
        model = models.flow_matching(network, 4)
        asked = np.log(np.sum(x**2, axis=1, keepdims=True))
        fitted = fit(model, Batch(x, asked), key(0), TrainConfig(1000))
        events = draw(model, fitted.one, key(1), len(x), asked)

    Args:
      network: velocity field, apply(params, t, x, cond) -> array of x's shape, given `num` numbers
        beyond those of the condition: it is `missed` at x, within +-3.
      missed: (x, cond) -> what shall vanish [num], in units of its spread over all events. It is
        asked of noise, too, so values and slopes must be finite at any x, however unlike an event:
        put a floor below what a root or a logarithm is taken of, sqrt(maximum(m2, 1e-6)). x is as
        the network sees it, of width one; undo in here how events were scaled.
      num: of these numbers.
      width: of `missed` of true events, which is that of rounding or of what is left open.
      gain_cond: first numbers of the condition that gains depend on, beside time. One for
        `jgen.models.mean_flow`, whose interval should end on what is asked where it ends the path.
        Numbers of zero to one: before training gains are one half at zero and 0.998 at one.

    Raises:
      ValueError: for a width or a number that is not positive, or a network whose condition has
        fewer numbers; on a call, if `missed` gives another shape than [num].
    """
    check_sizes(num=num)
    check_whole(0, gain_cond=gain_cond)
    check_positive(width=width)
    inner = as_network(network)
    num_given = None if inner.num_cond is None else inner.num_cond - num
    if num_given is not None and num_given < 0:
        raise ValueError(
            f"the network must take {num} numbers beside its condition, but it has {inner.num_cond}"
            " in all: make it with so many more"
        )
    if num_given is not None and num_given < gain_cond:
        raise ValueError(f"gains see {gain_cond} numbers of the condition, but it has {num_given}")

    def init(key):
        # Gains of one half, and near one where a number that they see is one: training is slow to
        # find that the interval of the whole path should end on what is asked.
        gain = jnp.zeros((gain_cond + 1, len(harmonics(jnp.ones(()))) + 1))
        gain = gain.at[:gain_cond, -1].set(_INITIAL_WEIGHT)
        return {"network": inner.init(key), "gain": jnp.ravel(gain)}

    def apply(params, t, x, cond=None):
        off = missed(x, cond)
        if jnp.shape(off) != (num,):
            raise ValueError(f"missed must give numbers [{num}], got the shape {jnp.shape(off)}")
        off = jnp.clip(off, -_MOST, _MOST)
        v = inner.apply(params["network"], t, x, _beside(cond, off))
        left = jnp.maximum(1 - jnp.asarray(t, x.dtype), _EARLIEST)
        given = _numbers(cond, x.dtype)[:gain_cond]
        if len(given) < gain_cond:
            raise ValueError(
                f"gains see {gain_cond} numbers of the condition, but it has {len(given)}"
            )
        # Each number has weights that change with time: an interval that ends the path is as wide
        # as the time that is left.
        seen = jnp.outer(jnp.append(given, 1), jnp.append(harmonics(t), 1))
        gain = jax.nn.sigmoid(params["gain"] @ jnp.ravel(seen))
        return v + gain / left * move(left, x + left * v, cond)

    def move(left, x, cond):
        """The best guess of what an event that is wrong by the noise left lacks."""
        value, pull = jax.vjp(lambda x: missed(x, cond), x)
        slopes = jax.vmap(lambda e: pull(e)[0])(jnp.eye(num, dtype=x.dtype))
        across = slopes.reshape(num, -1)
        noise = left**2
        matrix = noise * across @ across.T
        # Beside slopes that are steep and alike rounding would hide the width.
        least = _ROUNDING * jnp.finfo(x.dtype).eps * jnp.trace(matrix)
        matrix += (width**2 + least) * jnp.eye(num, dtype=x.dtype)
        lack = jnp.linalg.solve(matrix, jnp.clip(-value, -_MOST, _MOST))
        return jnp.clip(noise * jnp.tensordot(lack, slopes, 1), -_FARTHEST, _FARTHEST)

    return Network(init, apply, num_given)


def _numbers(cond, dtype):
    """Those of a condition, without the number of points; none of this type where there is none."""
    given = cond.cond if isinstance(cond, SetCondition) else cond
    return jnp.zeros(0, dtype) if given is None else jnp.ravel(given)


def _beside(cond, values):
    """A condition with further numbers."""
    made = jnp.concatenate([_numbers(cond, values.dtype), values])
    return cond._replace(cond=made) if isinstance(cond, SetCondition) else made
