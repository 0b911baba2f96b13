"""The flows of `flows` in other libraries, called as their documentation calls them.

Each has the layers, widths and activation of jgen's, and a standard normal base. PyTorch runs
eagerly; jax is compiled. What cannot be made equal is said where it is made.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.timing import Program, compiled


class Sizes(NamedTuple):
    """Of a flow: layers of `hidden` widths on events [dim], splines of `bins` in +-`bound`."""

    dim: int
    depth: int
    bins: int
    bound: float
    hidden: tuple[int, ...]


class Contestant(NamedTuple):
    """A flow to be timed.

    Attributes:
      programs: "gradient" of the mean of -log p by the parameters, with its value; "log_prob" and
        "sample" of a batch.
      parameters: trainable numbers.
      compile_s: seconds to trace and compile each program, none where nothing is compiled.
    """

    programs: dict[str, Program]
    parameters: int
    compile_s: dict[str, float]


def zuko(kind: str, sizes: Sizes, x: np.ndarray) -> Contestant:
    """Couplings alternate between odd and even components, orders between forth and back."""
    from zuko.flows import MAF, NICE
    from zuko.transforms import MonotonicRQSTransform

    options = {"transforms": sizes.depth, "hidden_features": sizes.hidden}
    if kind == "maf":
        flow = MAF(sizes.dim, **options)
    else:
        shapes = [(sizes.bins,), (sizes.bins,), (sizes.bins - 1,)]
        spline = lambda *raw: MonotonicRQSTransform(*raw, bound=sizes.bound)
        flow = NICE(sizes.dim, univariate=spline, shapes=shapes, **options)
    return _pytorch(flow, lambda x: flow().log_prob(x), lambda num: flow().sample((num,)), x)


def nflows(kind: str, sizes: Sizes, x: np.ndarray) -> Contestant:
    """Couplings alternate between odd and even components, orders are reversed.

    Its masked networks have equal widths. The couplings' networks are `torch.nn.Sequential`.
    """
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import (
        CompositeTransform,
        MaskedAffineAutoregressiveTransform,
        PiecewiseRationalQuadraticCouplingTransform,
        ReversePermutation,
    )

    _check_equal_widths(sizes)
    layers = []
    for i in range(sizes.depth):
        if kind == "maf":
            # Its first layer and each block have one weight.
            options = {"num_blocks": len(sizes.hidden) - 1, "use_residual_blocks": False}
            layer = MaskedAffineAutoregressiveTransform(sizes.dim, sizes.hidden[0], **options)
            layers += [layer, ReversePermutation(sizes.dim)]
        else:
            mask = np.arange(sizes.dim) % 2 == i % 2
            options = {"num_bins": sizes.bins, "tails": "linear", "tail_bound": sizes.bound}
            network = lambda n_in, n_out: _dense_network((n_in, *sizes.hidden, n_out))
            layers.append(PiecewiseRationalQuadraticCouplingTransform(mask, network, **options))
    flow = Flow(CompositeTransform(layers), StandardNormal([sizes.dim]))
    return _pytorch(flow, flow.log_prob, flow.sample, x)


def flowjax(kind: str, sizes: Sizes, x: np.ndarray) -> Contestant:
    """Components are permuted between layers; its splines have free slopes at both ends.

    These are two more numbers a component than the others' splines have.
    """
    import equinox
    import paramax
    from flowjax.bijections import RationalQuadraticSpline
    from flowjax.distributions import Normal
    from flowjax.flows import coupling_flow, masked_autoregressive_flow

    _check_equal_widths(sizes)
    options = {
        "base_dist": Normal(jnp.zeros(sizes.dim)),
        "flow_layers": sizes.depth,
        "nn_width": sizes.hidden[0],
        "nn_depth": len(sizes.hidden),
    }
    if kind == "maf":
        flow = masked_autoregressive_flow(jax.random.key(0), **options)
    else:
        # It counts inner knots.
        spline = RationalQuadraticSpline(knots=sizes.bins - 1, interval=sizes.bound)
        flow = coupling_flow(jax.random.key(0), transformer=spline, **options)
    is_constant = lambda leaf: isinstance(leaf, paramax.NonTrainable)
    params, static = equinox.partition(flow, equinox.is_inexact_array, is_leaf=is_constant)
    at = lambda params: paramax.unwrap(equinox.combine(params, static))
    return jax_contestant(
        params,
        lambda params, x: at(params).log_prob(x),
        lambda params, key, num: at(params).sample(key, (num,)),
        x,
    )


RIVALS: dict[str, Callable[[str, Sizes, np.ndarray], Contestant]] = {
    "zuko": zuko,
    "nflows": nflows,
    "flowjax": flowjax,
}
"""Makes a contestant of a kind ("coupling" or "maf"), for events x [batch, dim]."""
ON_PYTORCH = ("zuko", "nflows")


def jax_contestant(params: Any, log_prob: Callable, sample: Callable, x: np.ndarray) -> Contestant:
    """Of functions log_prob(params, x [n, dim]) -> [n] and sample(params, key, n) -> [n, dim]."""
    x, key = jnp.asarray(x, jnp.float32), jax.random.key(0)
    functions = {
        "gradient": (jax.value_and_grad(lambda p, x: -jnp.mean(log_prob(p, x))), (params, x)),
        "log_prob": (log_prob, (params, x)),
        "sample": (lambda params, key: sample(params, key, len(x)), (params, key)),
    }
    programs, seconds = {}, {}
    for kind, (function, args) in functions.items():
        program, seconds[kind] = compiled(function, *args)
        programs[kind] = lambda program=program, args=args: program(*args)
    return Contestant(programs, sum(a.size for a in jax.tree.leaves(params)), seconds)


def _pytorch(flow, log_prob: Callable, sample: Callable, x: np.ndarray) -> Contestant:
    import torch

    x, params = torch.as_tensor(x, dtype=torch.float32), list(flow.parameters())

    def gradient():
        for p in params:
            p.grad = None
        loss = -log_prob(x).mean()
        loss.backward()
        return loss.detach().numpy(), [p.grad.numpy() for p in params]

    def without_gradient(function, *args):
        with torch.inference_mode():
            return function(*args).numpy()

    programs = {
        "gradient": gradient,
        "log_prob": lambda: without_gradient(log_prob, x),
        "sample": lambda: without_gradient(sample, len(x)),
    }
    return Contestant(programs, sum(p.numel() for p in params), {})


def _dense_network(widths: tuple[int, ...]):
    from torch import nn

    class Dense(nn.Sequential):
        """nflows hands over a context, too, which is None here, and scales by the width."""

        hidden_features = widths[-2]

        def forward(self, x, context=None):
            return super().forward(x)

    layers = []
    for n_in, n_out in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return Dense(*layers[:-1])


def _check_equal_widths(sizes: Sizes) -> None:
    if len(set(sizes.hidden)) != 1:
        raise ValueError(f"hidden widths must be equal for all libraries, got {sizes.hidden}")
