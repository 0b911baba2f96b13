"""Autoregressive flow matching: p(x) = prod_i p(x_i | x_<i), each factor a one-dimensional flow.

The Transfusion model of 2310.07752, used for the layer energies of CaloDREAM (2405.09629,
Sec. 3.1): a transformer turns x_<i into a context, one small network is the velocity of all x_i.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.checks import check_sizes
from jgen.generative_model import GenerativeModel, from_noise, mean_loss
from jgen.models.autoregressive import one_after_another
from jgen.models.diffusion import base_log_prob
from jgen.models.parts import check_autoregressive_velocity
from jgen.nets.network import AutoregressiveNetwork
from jgen.paths import Path, interpolate, linear, on_unit_interval
from jgen.solvers import NonStationary, RungeKutta, log_likelihood, runge_kutta


def autoregressive_flow_matching(
    network: AutoregressiveNetwork,
    num: int,
    *,
    path: Path | None = None,
    solver: RungeKutta | NonStationary | None = None,
    likelihood_solver: RungeKutta | None = None,
) -> GenerativeModel:
    """Flow matching of x [num], one component after another.

    Sampling is one compiled program of static shapes: a scan over components around a scan over
    solver steps, time embeddings made once ahead of both. `log_prob` needs no loop over components
    and its divergence is exact, each flow being one-dimensional.

    Args:
      network: the transformer and the velocity network.
      num: number of components.
      path: probability path, `linear()` unless given.
      solver: for sampling, midpoint with 20 steps unless given.
      likelihood_solver: for `log_prob`, default as in `flow_matching`.

    Raises:
      ValueError: if the network is one of another number of components.
    """
    check_sizes(num=num)
    check_autoregressive_velocity(network, num)
    path = linear() if path is None else path
    solver = runge_kutta("midpoint", 20) if solver is None else solver
    if likelihood_solver is None:
        is_rk = isinstance(solver, RungeKutta)
        likelihood_solver = solver if is_rk else runge_kutta("midpoint", 50)

    def velocity(params, t, x, context):
        return network.velocity(params, network.embed_time(params, t), x, context)

    def loss(params, key, batch):
        def single(key, x1, cond):
            key_t, key_x = jax.random.split(key)
            # A time of its own for every component: they are separate flows.
            t = jax.random.uniform(key_t, (num,), minval=path.t_min, maxval=path.t_max)
            x0 = jax.random.normal(key_x, (num,), x1.dtype)
            x, target = jax.vmap(interpolate, in_axes=(None, 0, 0, 0))(path, t, x0, x1)
            contexts = network.contexts(params, x1, cond)
            u = jax.vmap(velocity, in_axes=(None, 0, 0, 0))(params, t, x, contexts)
            return jnp.mean((u - target) ** 2)

        return mean_loss(single, key, batch)

    def noise(key, cond=None):
        return jax.random.normal(key, (num,))

    def sample_from(params, noise, cond=None):
        span = path.t_max - path.t_min
        embed = lambda tau: network.embed_time(params, path.t_min + span * tau)
        for _ in range(jnp.ndim(solver.times)):
            embed = jax.vmap(embed)
        features = embed(jnp.asarray(solver.times, jnp.float32))

        def component(context, x0):
            flow = lambda f, x: span * network.velocity(params, f, x, context)
            return solver(flow, x0, features), None

        return one_after_another(network, params, cond, component, path.base_std * noise)[0]

    def log_prob(params, key, x: Float[Array, " num"], cond=None):
        def component(x_i, context):
            u = on_unit_interval(path, lambda t, y: velocity(params, t, y, context))
            return log_likelihood(u, x_i, lambda x0: base_log_prob(path, x0), likelihood_solver)

        return jnp.sum(jax.vmap(component)(x, network.contexts(params, x, cond)))

    return from_noise(network.init, loss, noise, sample_from, log_prob)
