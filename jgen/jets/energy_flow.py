"""Energy flow polynomials of one jet (1712.07124), in pure jnp.

A polynomial is a multigraph: z_i of a constituent at every vertex, the angle theta_ij at every
edge, summed over all constituents at all vertices (Eq. 7). That of a graph in several pieces is the
product of the pieces.
"""

import functools
import itertools

import jax.numpy as jnp
from jaxtyping import Array, Float

from jgen.checks import check_whole

Graph = tuple[tuple[int, int], ...]
"""Edges between vertices 0, 1, ...; a graph without edges is a single vertex."""


def energy_flow_polynomials(
    points: Float[Array, "n 3"], products: tuple[tuple[Graph, ...], ...] | None = None
) -> Float[Array, " num"]:
    """Polynomials of one jet with z = pT and theta = ((d eta)^2 + (d phi)^2)^(1/2).

    That is the measure of jetnet and of FPD (2211.10295): hadronic with beta = 1, z not normalised,
    so that their scale is that of pT: for relative pT it is one.

    Args:
      points: (eta, phi, pT); rows of pT zero are padding.
      products: connected graphs whose polynomials are multiplied, for each polynomial; the 36 of
        up to four edges, `graphs(4)`, unless given.
    """
    products = graphs(4) if products is None else products
    eta, phi, z = points.T
    d_eta = eta[:, None] - eta[None]
    d_phi = jnp.mod(phi[:, None] - phi[None] + jnp.pi, 2 * jnp.pi) - jnp.pi
    theta = jnp.hypot(d_eta, d_phi)
    prime = {g: _polynomial(z, theta, g) for g in dict.fromkeys(itertools.chain(*products))}
    return jnp.stack([functools.reduce(jnp.multiply, [prime[g] for g in p]) for p in products])


def _polynomial(z, theta, graph: Graph):
    """One of a connected graph: a sum that einsum orders, edges of a pair taken together."""
    letters = "abcdefgh"
    num = 1 + max((v for edge in graph for v in edge), default=0)
    pairs = {edge: graph.count(edge) for edge in graph}
    terms = [*letters[:num], *(letters[i] + letters[j] for i, j in pairs)]
    arrays = [*[z] * num, *(theta**power for power in pairs.values())]
    return jnp.einsum(",".join(terms) + "->", *arrays)


@functools.cache
def graphs(degree: int) -> tuple[tuple[Graph, ...], ...]:
    """All graphs of up to `degree` edges as products of connected ones: 36 of up to four edges.

    Raises:
      ValueError: for a degree that is no positive whole number.
    """
    check_whole(degree=degree)
    prime = [g for d in range(1, degree + 1) for g in prime_graphs(d)]
    found = [(((),),)]
    for pieces in range(1, degree + 1):
        all_of_them = itertools.combinations_with_replacement(prime, pieces)
        found.append(tuple(p for p in all_of_them if sum(map(len, p)) <= degree))
    return tuple(itertools.chain(*found))


@functools.cache
def prime_graphs(degree: int, vertices: int | None = None) -> tuple[Graph, ...]:
    """Connected graphs of `degree` edges, of one number of vertices or of any, none of them twice.

    The five of four edges and four vertices are those of W1-EFP (2106.11535).
    """
    if degree == 0:
        found = {()}
    else:
        found = set()
        for graph in prime_graphs(degree - 1):
            new = 1 + max((v for edge in graph for v in edge), default=0)
            # One more edge of a connected graph has at most one new end.
            found |= {_canonical((*graph, (i, j))) for j in range(1, new + 1) for i in range(j)}
    kept = lambda g: vertices is None or 1 + max((v for e in g for v in e), default=0) == vertices
    return tuple(sorted(filter(kept, found)))


def _canonical(graph: Graph) -> Graph:
    """The same for all graphs that differ by the names of their vertices."""
    num = 1 + max(v for edge in graph for v in edge)
    renamed = lambda order: tuple(sorted(tuple(sorted((order[i], order[j]))) for i, j in graph))
    return min(map(renamed, itertools.permutations(range(num))))
