"""CaloClouds (2305.04847, 2309.05704): showers as points; made, trained, loaded and drawn from.

trained = clouds.load("runs/clouds-default")
energies = calodream.incident_energies(1000, *trained.energy_range)
showers = trained.draw(jax.random.key(0), energies)
"""

from jgen.showers.clouds.fitting import fit_preprocessing
from jgen.showers.clouds.model import CloudsConfig, FlowConfig, few_points, parts
from jgen.showers.clouds.preprocessing import CloudPreprocessing
from jgen.showers.clouds.trained import CONFIG, Trained, like, load, train

__all__ = [
    "CONFIG",
    "CloudPreprocessing",
    "CloudsConfig",
    "FlowConfig",
    "Trained",
    "few_points",
    "fit_preprocessing",
    "like",
    "load",
    "parts",
    "train",
]
