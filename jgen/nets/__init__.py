"""Networks as (init, apply) pairs; the only room that knows the layer library."""

from jgen.nets.mlp import mlp, velocity_mlp
from jgen.nets.network import Network, from_linen, num_parameters

__all__ = ["Network", "from_linen", "mlp", "num_parameters", "velocity_mlp"]
