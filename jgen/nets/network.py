"""The boundary between jgen and the library its layers are written in."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jgen.typing import Cond, Key, Params, PyTree


class Network(NamedTuple):
    """A network is a pair of pure functions for one event; your own pair works just as well.

    Attributes:
      init: (key) -> params, a plain nested dict.
      apply: (params, *arguments) -> output.
      num_cond: numbers in the condition that it was made for, 0 for none; None where that is not
        known. Models check on it that their parts fit together.
    """

    init: Callable[[Key], Params]
    apply: Callable[..., PyTree]
    num_cond: int | None = None


NetworkLike = Network | tuple[Callable[[Key], Params], Callable[..., PyTree]]
"""A `Network`, or your own pair of its functions."""


def as_network(pair: NetworkLike) -> Network:
    """The pair of functions (init, apply) as a `Network`, whatever tuple it came in.

    Raises:
      TypeError: for anything else.
    """
    if isinstance(pair, Network):
        return pair
    if hasattr(pair, "init") and hasattr(pair, "apply"):
        return Network(pair.init, pair.apply, getattr(pair, "num_cond", None))
    if isinstance(pair, tuple) and len(pair) == 2 and all(map(callable, pair)):
        return Network(*pair)
    raise TypeError(f"a network is a pair of functions (init, apply), got {pair!r}")


class Generator(NamedTuple):
    """Pure functions of one event that is made of noise.

    Attributes:
      init: (key) -> params.
      noise: (key) -> all random numbers of one event, a pytree.
      apply: (params, noise, cond) -> x.
      num_cond: as of a `Network`.
    """

    init: Callable[[Key], Params]
    noise: Callable[[Key], PyTree]
    apply: Callable[[Params, PyTree, Cond], PyTree]
    num_cond: int | None = None


class AutoregressiveNetwork(NamedTuple):
    """Pure functions of one event with `num` components.

    Attributes:
      init: (key) -> params.
      contexts: (params, x [num], cond) -> [num, d]; row i sees x_<i only.
      start: (params, cond) -> cache for `step`.
      step: (params, cache, i, x_{i-1}) -> (context [d] of component i, cache). Its contexts equal
        those of `contexts`, one at a time; x_{-1} is zero.
      embed_time: (params, t) -> features of the time, computed once a solver stage.
      velocity: (params, features, x_i, context) -> dx_i/dt.
      num_cond: as of a `Network`.
    """

    init: Callable[[Key], Params]
    contexts: Callable[[Params, Array, Cond], Array]
    start: Callable[[Params, Cond], PyTree]
    step: Callable[[Params, PyTree, Array, Array], tuple[Array, PyTree]]
    embed_time: Callable[[Params, Array], PyTree]
    velocity: Callable[[Params, PyTree, Array, Array], Array]
    num_cond: int | None = None


def flat_condition(cond: Cond, num_cond: int) -> Float[Array, " num_cond"] | None:
    """The numbers of a condition in a row, None where a network was made for none.

    Raises:
      ValueError: for as many numbers as the network was not made for.
    """
    size = 0 if cond is None else jnp.size(cond)
    if size != num_cond:
        raise ValueError(
            f"cond has {size} numbers, but the network was made for num_cond={num_cond}"
        )
    return jnp.ravel(cond) if size else None


def from_linen(module: nn.Module, *example: PyTree, num_cond: int | None = None) -> Network:
    """The pair of a Linen module.

    Args:
      module: without state.
      example: one event's arguments (arrays or shapes).
      num_cond: numbers in the condition among them, 0 for none.

    Raises:
      ValueError: if the module keeps state beside its parameters (BatchNorm does), which a pure
        (init, apply) pair cannot carry.
    """

    @jax.jit  # one program for all parameters instead of one for every operation
    def init(key: Key) -> Params:
        variables = module.init(key, *jax.tree.map(_zeros, example))
        if extra := set(variables) - {"params"}:
            raise ValueError(
                f"{type(module).__name__} has mutable collections {sorted(extra)}; "
                "use layers without state, such as LayerNorm"
            )
        return variables["params"]

    def apply(params: Params, *args: PyTree) -> PyTree:
        return module.apply({"params": params}, *args)

    return Network(init, apply, num_cond)


def from_nnx(make: Callable[[nnx.Rngs], nnx.Module], num_cond: int | None = None) -> Network:
    """The pair of a module of Flax NNX.

    Args:
      make: (rngs) -> module; `module(*arguments)` is of one event.
      num_cond: numbers in the condition among the arguments, 0 for none.

    Raises:
      ValueError: if the module has variables beside its parameters, as BatchNorm and Dropout have,
        or `make` makes none.
    """
    _check_maker(make, nnx.Module, "lambda rngs: MyModule(rngs=rngs)")
    made = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    _check_made(made, nnx.Module)
    graph, state = nnx.split(made)
    kinds = {type(variable) for _, variable in nnx.to_flat_state(state)}
    if extra := sorted(kind.__name__ for kind in kinds if not issubclass(kind, nnx.Param)):
        raise ValueError(
            f"the module has variables {', '.join(extra)} beside its parameters; use layers "
            "without state, such as LayerNorm"
        )

    @jax.jit  # one program, see `from_linen`
    def init(key: Key) -> Params:
        return nnx.to_pure_dict(nnx.state(make(nnx.Rngs(key)), nnx.Param))

    def apply(params: Params, *args: PyTree) -> PyTree:
        own = jax.tree.map(lambda variable: variable, state)
        nnx.replace_by_pure_dict(own, params)
        return nnx.merge(graph, own)(*args)

    return Network(init, apply, num_cond)


def from_equinox(make: Callable[[Key], Any], num_cond: int | None = None) -> Network:
    """The pair of a module of Equinox; its arrays are the parameters, named as they are in it.

    Args:
      make: (key) -> module; `module(*arguments)` is of one event.
      num_cond: numbers in the condition among the arguments, 0 for none.

    Raises:
      ValueError: if equinox is not installed, the module has arrays of integers or keys, which
        cannot be trained, or `make` makes none.
    """
    try:
        import equinox
    except ImportError as error:
        raise ValueError("this module needs equinox: pip install equinox") from error
    _check_maker(make, equinox.Module, "lambda key: MyModule(key=key)")
    shapes = equinox.filter_eval_shape(make, jax.random.key(0))
    _check_made(shapes, equinox.Module)
    is_array = lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)
    leaves, tree = jax.tree_util.tree_flatten_with_path(shapes)
    names = [jax.tree_util.keystr(path).lstrip(".") for path, _ in leaves]
    fixed = {
        name
        for name, (_, leaf) in zip(names, leaves, strict=True)
        if is_array(leaf) and not jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)
    }
    if fixed:
        raise ValueError(f"{', '.join(sorted(fixed))} cannot be trained; use modules without state")

    @jax.jit  # one program, see `from_linen`
    def init(key: Key) -> Params:
        values = dict(zip(names, jax.tree.leaves(make(key)), strict=True))
        return {n: values[n] for n, (_, leaf) in zip(names, leaves, strict=True) if is_array(leaf)}

    def apply(params: Params, *args: PyTree) -> PyTree:
        filled = [params.get(n, leaf) for n, (_, leaf) in zip(names, leaves, strict=True)]
        return jax.tree.unflatten(tree, filled)(*args)

    return Network(init, apply, num_cond)


def _check_maker(make, kind, example):
    if isinstance(make, kind) or not callable(make):
        raise ValueError(
            f"give a function that makes the module, such as {example}, not "
            f"{type(make).__name__}: networks are initialised from a key, many times in ensembles"
        )


def _check_made(made, kind):
    if not isinstance(made, kind):
        library = kind.__module__.split(".")[0]
        raise ValueError(f"the function must make a Module of {library}, got {made!r:.80}")


def _zeros(leaf):
    return jax.numpy.zeros(leaf.shape, leaf.dtype)


def num_parameters(init: Callable[[Key], Params]) -> int:
    """Number of trainable parameters, without allocating them."""
    shapes = jax.eval_shape(init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))
