"""Networks as (init, apply) pairs; the only room that knows the layer library."""

from jgen.nets.adversarial import critic_mlp, generator_mlp, latent_critic, pair_critic
from jgen.nets.conditioners import conditioner, image_conditioner
from jgen.nets.constrained import constrained
from jgen.nets.conv_autoencoder import ConvAutoencoder, ConvAutoencoderConfig, conv_autoencoder
from jgen.nets.dense import Dense, NormalWeights
from jgen.nets.elementwise import elementwise_map
from jgen.nets.epic_gan import CRITIC_CONFIG, GENERATOR_CONFIG, epic_critic, epic_generator
from jgen.nets.lorentz.lgatr import LGATrConfig, lgatr
from jgen.nets.lorentz.lloca import BEAMS, TIME, LLoCaConfig, lloca
from jgen.nets.made import made
from jgen.nets.mlp import MLP, decoder_mlp, encoder_mlp, mlp, velocity_mlp
from jgen.nets.network import (
    AutoregressiveNetwork,
    Generator,
    Network,
    from_equinox,
    from_linen,
    from_nnx,
    num_parameters,
)
from jgen.nets.resnet import ResNetConfig, resnet3d
from jgen.nets.sets import (
    EpicConfig,
    PointWiseConfig,
    SetTransformerConfig,
    epic,
    point_wise,
    set_transformer,
)
from jgen.nets.transformers.causal import CausalConfig, CausalNetwork, causal
from jgen.nets.transformers.sequence import SequenceConfig, sequence
from jgen.nets.transformers.transfusion import TransfusionConfig, transfusion
from jgen.nets.transformers.vit import ViTConfig, vit

__all__ = [
    "BEAMS",
    "CRITIC_CONFIG",
    "GENERATOR_CONFIG",
    "MLP",
    "AutoregressiveNetwork",
    "CausalConfig",
    "CausalNetwork",
    "ConvAutoencoder",
    "ConvAutoencoderConfig",
    "Dense",
    "EpicConfig",
    "Generator",
    "LGATrConfig",
    "LLoCaConfig",
    "Network",
    "NormalWeights",
    "PointWiseConfig",
    "ResNetConfig",
    "SequenceConfig",
    "SetTransformerConfig",
    "TIME",
    "TransfusionConfig",
    "ViTConfig",
    "causal",
    "conditioner",
    "constrained",
    "conv_autoencoder",
    "critic_mlp",
    "decoder_mlp",
    "elementwise_map",
    "encoder_mlp",
    "epic",
    "epic_critic",
    "epic_generator",
    "from_equinox",
    "from_linen",
    "from_nnx",
    "generator_mlp",
    "image_conditioner",
    "latent_critic",
    "lgatr",
    "lloca",
    "made",
    "mlp",
    "num_parameters",
    "pair_critic",
    "point_wise",
    "resnet3d",
    "sequence",
    "set_transformer",
    "transfusion",
    "velocity_mlp",
    "vit",
]
