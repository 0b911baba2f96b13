"""Networks as (init, apply) pairs; the only room that knows the layer library."""

from jgen.nets.conditioners import conditioner, image_conditioner
from jgen.nets.made import made
from jgen.nets.mlp import decoder_mlp, encoder_mlp, mlp, velocity_mlp
from jgen.nets.network import Network, from_linen, num_parameters

__all__ = [
    "Network",
    "conditioner",
    "decoder_mlp",
    "encoder_mlp",
    "from_linen",
    "image_conditioner",
    "made",
    "mlp",
    "num_parameters",
    "velocity_mlp",
]
