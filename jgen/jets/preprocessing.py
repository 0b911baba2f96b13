"""Maps of jets' features to numbers without bounds, for generative models."""

import jax
import jax.numpy as jnp

from jgen.bijectors import Bijector
from jgen.checks import check_finite

SAMPLE_PT_RANGE = (500.0, 1000.0)
"""The bundled jets were selected in this window of pT [GeV], nearly flat in it."""


def feature_map(pt_range: tuple[float, float] = SAMPLE_PT_RANGE) -> Bijector:
    """(pT, mass, tau21, tau32) to (log-odds of pT in its window, log mass, tau21, tau32).

    Args:
      pt_range: window [GeV] in which the jets were selected; events of a model lie inside.

    Raises:
      ValueError: if the window is empty.
    """
    low, high = pt_range
    check_finite(low=low, high=high)
    if not 0 <= low < high:
        raise ValueError(f"pt_range must be an interval of positive pT [GeV], got {pt_range}")

    def log_det(pt, mass):
        return jnp.log((high - low) / ((pt - low) * (high - pt))) - jnp.log(mass)

    def forward(x, cond=None):
        pt, mass, *taus = x
        z = jnp.stack([jnp.log((pt - low) / (high - pt)), jnp.log(mass), *taus])
        return z, log_det(pt, mass)

    def inverse(z, cond=None):
        odds, log_mass, *taus = z
        pt, mass = low + (high - low) * jax.nn.sigmoid(odds), jnp.exp(log_mass)
        return jnp.stack([pt, mass, *taus]), -log_det(pt, mass)

    return Bijector(forward, inverse)
