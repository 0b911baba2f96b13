"""CaloDREAM (2405.09629): made, trained, loaded and drawn from.

trained = calodream.load("runs/calodream-default")
energies = calodream.incident_energies(1000, *trained.energy_range)
showers = trained.draw(jax.random.key(0), energies)
"""

from jgen.showers.calodream.flows import Flow, energy_flow, shape_flow
from jgen.showers.calodream.generation import Generated, generate_showers, milliseconds_per_shower
from jgen.showers.calodream.model import (
    CaloDreamConfig,
    Part,
    Solver,
    TrainingData,
    incident_energies,
    parts,
    shape_condition,
    shower_model,
    training_data,
)
from jgen.showers.calodream.preprocessing import (
    Fractions,
    ShowerPreprocessing,
    Statistics,
    fit_statistics,
    from_fractions,
    to_fractions,
)
from jgen.showers.calodream.trained import (
    CONFIG,
    Trained,
    fit_preprocessing,
    load,
    solver_path,
    train,
)

__all__ = [
    "CONFIG",
    "CaloDreamConfig",
    "Flow",
    "Fractions",
    "Generated",
    "Part",
    "ShowerPreprocessing",
    "Solver",
    "Statistics",
    "Trained",
    "TrainingData",
    "energy_flow",
    "fit_preprocessing",
    "fit_statistics",
    "from_fractions",
    "generate_showers",
    "incident_energies",
    "load",
    "milliseconds_per_shower",
    "parts",
    "shape_condition",
    "shape_flow",
    "shower_model",
    "solver_path",
    "to_fractions",
    "train",
    "training_data",
]
