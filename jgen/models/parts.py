"""Whether the parts of a model fit together: asked by abstract evaluation, where it is made.

Nothing is computed. A part that was made for conditions of a known length is asked with one of that
length; others are asked without, and if that fails they get the benefit of the doubt where they
looked at the condition.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.checks import check_memory
from jgen.generative_model import GenerativeModel
from jgen.nets.network import AutoregressiveNetwork, Generator, Network
from jgen.nets.transformers.causal import CausalNetwork
from jgen.typing import Cond, PyTree

Output = Array | jax.ShapeDtypeStruct


class _LookedAtError(Exception):
    pass


class _RefusedError(ValueError):
    pass


class _Unknown:
    """In the place of a condition of unknown shape: whatever is done with it stops the question."""

    def _stop(self, *_, **__):
        raise _LookedAtError

    # Arrays are asked for more than these: all other names come to `__getattr__`.
    __getattr__ = __getitem__ = __iter__ = __len__ = _stop
    __add__ = __radd__ = __mul__ = __rmul__ = __sub__ = __rsub__ = __bool__ = _stop


def number(*shape: int) -> jax.ShapeDtypeStruct:
    """An array of a shape, without its values."""
    return jax.ShapeDtypeStruct(shape, jnp.result_type(float))


def ask(question: Callable[..., PyTree], what: str, *parts: Any, inputs: PyTree) -> PyTree | None:
    """Shapes of what a question to some parts of a model returns.

    Args:
      question: (key, inputs, cond) -> arrays.
      what: the parts do, "the network does not ...", for the sentence that refuses them.
      parts: with the number `num_cond` of numbers in their condition, None where it is unknown.
      inputs: arrays without values.

    Returns:
      Shapes, or None where nothing can be said.

    Raises:
      ValueError: if the parts do not fit together.
    """
    if any(getattr(part, "init", ask) is None for part in parts):
        return None  # parameters that come from elsewhere
    sizes = [getattr(part, "num_cond", None) for part in parts]
    size = max((n for n in sizes if n), default=0)
    cond = number(size) if size else None
    key = jax.eval_shape(lambda: jax.random.key(0))
    try:
        return jax.eval_shape(question, key, inputs, cond)
    except Exception as error:
        if None in sizes and not _certain(question, key, inputs):
            return None
        with saying(what):
            raise error


@contextmanager
def saying(what: str) -> Iterator[None]:
    """Refuse with the sentence `what` and the reason, unless the reason is such a sentence."""
    try:
        yield
    except _RefusedError:
        raise
    except Exception as error:
        raise refusal(what, error) from error


def _certain(question, key, inputs) -> bool:
    """Whether a question that was asked without a condition fails whatever the condition is."""
    try:
        jax.eval_shape(lambda key, inputs: question(key, inputs, _Unknown()), key, inputs)
    except Exception as error:
        # JAX says of what is no array of which class it is.
        looked_at = lambda e: isinstance(e, _LookedAtError) or _Unknown.__name__ in str(e)
        while error is not None and not looked_at(error):
            error = error.__cause__ or error.__context__
        return error is None
    return False


def refusal(what: str, error: Exception) -> ValueError:
    """The sentence that says what a part does not do, and why."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return _RefusedError(f"{what}: {first}")


def check_prediction_network(network: Network, shape: tuple[int, ...]) -> None:
    """Refuse a network that is no apply(params, t, x, cond) -> array of x's shape."""

    def question(key, inputs, cond):
        params = network.init(key)
        return params, network.apply(params, *inputs, cond)

    what = f"the network does not take (params, t, x, cond) with a number t and x of shape {shape}"
    if (size := getattr(network, "num_cond", None)) is not None:
        what += f" and a condition of shape ({size},)" if size else " and no condition"
    answer = ask(question, what, network, inputs=(number(), number(*shape)))
    if answer is not None:
        check_memory(answer[0], "the network")
        check_output(answer[1], shape)


def check_output(value: Output, shape: tuple[int, ...]) -> None:
    """Refuse a prediction that has not the shape of x, to which it would be broadcast."""
    if jnp.shape(value) != shape:
        raise ValueError(
            f"the network returns an array of shape {jnp.shape(value)} for an event of shape "
            f"{shape}; make it one of as many outputs"
        )


def applied(network: Network, params, t: Array, x: Array, cond: Cond) -> Float[Array, "*x"]:
    """The network's prediction.

    Raises:
      ValueError: if it does not have the shape of x, to which it would be broadcast.
    """
    value = network.apply(params, t, x, cond)
    check_output(value, jnp.shape(x))
    return value


def check_bijector(bijector: Any, base: Any) -> None:
    """Refuse a bijector that does not take what its base draws."""
    z = jax.eval_shape(base.sample, jax.eval_shape(lambda: jax.random.key(0)))
    question = lambda key, z, cond: bijector.inverse(bijector.init(key), z, cond)[0]
    shape = jax.tree.map(jnp.shape, z)
    ask(question, f"the bijector does not take z of the base's shape {shape}", bijector, inputs=z)


def check_contexts(network: CausalNetwork, num: int, num_outputs: int | None = None) -> None:
    """Refuse a causal network of another number of components, or of outputs."""

    def question(key, x, cond):
        return network.contexts(network.init(key), x, cond)

    what = f"the network does not take events of {num} components"
    contexts = ask(question, what, network, inputs=number(num))
    if contexts is None:
        return
    _check_rows(contexts, num)
    if num_outputs is not None and contexts.shape[1] != num_outputs:
        raise ValueError(
            f"the network has {contexts.shape[1]} outputs a component, but the head needs "
            f"{num_outputs}: make the network with num_outputs=head.num_outputs"
        )


def _check_rows(contexts, num):
    if contexts.shape[:1] != (num,) or len(contexts.shape) != 2:
        raise ValueError(
            f"the network's contexts have the shape {contexts.shape}, but events have {num} "
            "components, each with a context of its own"
        )


def check_autoregressive_velocity(network: AutoregressiveNetwork, num: int) -> None:
    """Refuse a network of another number of components, or whose velocity is no number."""

    def question(key, inputs, cond):
        params, (t, x) = network.init(key), inputs
        with saying(f"the network does not take events of {num} components"):
            contexts = network.contexts(params, x, cond)
            _check_rows(contexts, num)
        features = network.embed_time(params, t)
        return network.velocity(params, features, x[0], contexts[0])

    what = "the velocity network does not take (params, features of t, x_i, context)"
    velocity = ask(question, what, network, inputs=(number(), number(num)))
    if velocity is not None and velocity.shape:
        raise ValueError(f"the velocity of one component is a number, got shape {velocity.shape}")


def check_players(generator: Generator, critic: Network) -> None:
    """Refuse a critic that does not make one number of what the generator makes."""

    def make(key, _, cond):
        return generator.apply(generator.init(key), generator.noise(key), cond)

    x = ask(make, "the generator does not take its own noise", generator, critic, inputs=None)
    if x is None:
        return

    def judge(key, inputs, cond):
        return critic.apply(critic.init(key), inputs[0], cond, inputs[1])

    others = jax.tree.map(lambda a: jax.ShapeDtypeStruct((2, *a.shape), a.dtype), x)
    shapes = jax.tree.map(lambda a: a.shape, x)
    what = f"the critic does not take the generator's events of shape {shapes}"
    verdict = ask(judge, what, generator, critic, inputs=(x, others))
    if verdict is not None:
        check_verdict(verdict)


def check_verdict(value: Output) -> Output:
    """The critic's output, refused if it is not one number."""
    if jnp.shape(value):
        raise ValueError(f"a critic returns one number an event, got shape {jnp.shape(value)}")
    return value


def check_autoencoder(autoencoder: Any, latent_shape: tuple[int, ...]) -> PyTree | None:
    """Refuse an autoencoder whose halves do not fit together; shapes of what it decodes to."""

    def question(key, r, cond):
        params = autoencoder.init(key)
        x = autoencoder.likelihood.mean(autoencoder.decode(params, r, cond))
        if not hasattr(x, "shape"):
            return x, None
        with saying(f"the encoder does not take x of the shape {x.shape} that the decoder makes"):
            return x, autoencoder.encode(params, x, cond)

    what = f"the decoder does not take r of the latent shape {latent_shape}"
    answer = ask(question, what, autoencoder, inputs=number(*latent_shape))
    if answer is None or answer[1] is None:
        return None
    x, encoded = answer
    shapes = [getattr(part, "shape", None) for part in encoded]
    if shapes != [latent_shape] * 2:
        raise ValueError(
            f"the encoder must return the pair (mean, log_variance), each of the latent shape "
            f"{latent_shape}, got {', '.join(map(str, shapes))}"
        )
    return x


def shape_of_events(model: GenerativeModel) -> PyTree | None:
    """Shapes of what a model samples without a condition; None if it wants one, perhaps."""
    make = lambda key, _, cond: model.sample(model.init(key), key, cond)
    return ask(make, "the model does not sample", None, inputs=None)


def check_critic(critic: Network, what: str, *inputs: PyTree, takes_cond: bool = True) -> None:
    """Refuse a critic that does not make one number of arrays of these shapes."""

    def judge(key, inputs, cond):
        return critic.apply(critic.init(key), *inputs, *([cond] if takes_cond else []))

    shapes = ", ".join(str(a.shape) for a in inputs)
    verdict = ask(judge, f"the {what} does not take {shapes}", critic, inputs=inputs)
    if verdict is not None:
        check_verdict(verdict)
