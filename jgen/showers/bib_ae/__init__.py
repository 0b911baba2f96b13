"""The BIB-AE of showers in cells (2005.05334): its models, trained, loaded and drawn from.

with RunFolder("runs/mine", config) as run:
    trained = bib_ae.train(config, shape, showers, run, validation=others)
showers = trained.draw(jax.random.key(0), energies)
"""

from jgen.showers.bib_ae.model import (
    AutoencoderConfig,
    BibAeConfig,
    FlowsConfig,
    PostConfig,
    Shape,
    game_model,
    latent_model,
    networks,
    post_models,
    response_model,
)
from jgen.showers.bib_ae.trained import CONFIG, SAMPLERS, Trained, load, logarithms, train

__all__ = [
    "AutoencoderConfig",
    "BibAeConfig",
    "CONFIG",
    "FlowsConfig",
    "PostConfig",
    "SAMPLERS",
    "Shape",
    "Trained",
    "game_model",
    "latent_model",
    "load",
    "logarithms",
    "networks",
    "post_models",
    "response_model",
    "train",
]
