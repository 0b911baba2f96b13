"""L2LFlows and CaloFlow: showers layer by layer, by flows that train at once (2302.11594).

config = layer_flows.LayerFlowsConfig()
with RunFolder("runs/mine", config) as run:
    trained = layer_flows.train(config, showers, run)
trained = layer_flows.load("runs/mine")
energies = calodream.incident_energies(1000, *trained.energy_range)
showers = trained.draw(jax.random.key(0), energies)
"""

from jgen.showers.layer_flows.model import (
    CellsConfig,
    EnergyConfig,
    Parts,
    cells_condition,
    cells_flow,
    energies_flow,
    layer_batch,
    layer_model,
    layers_and_cells,
    parts,
    shower_model,
    student_cells,
    trained_cells,
    trained_energies,
    whole,
)
from jgen.showers.layer_flows.preprocessing import (
    LayerPreprocessing,
    fit_preprocessing,
    logs_of_parts,
    parts_of_logs,
)
from jgen.showers.layer_flows.trained import (
    CONFIG,
    LayerFlowsConfig,
    Trained,
    as_batch,
    load,
    merged_copies,
    train,
)

__all__ = [
    "CONFIG",
    "CellsConfig",
    "EnergyConfig",
    "LayerFlowsConfig",
    "LayerPreprocessing",
    "Parts",
    "Trained",
    "as_batch",
    "cells_condition",
    "cells_flow",
    "energies_flow",
    "fit_preprocessing",
    "layer_batch",
    "layer_model",
    "layers_and_cells",
    "load",
    "logs_of_parts",
    "merged_copies",
    "parts",
    "parts_of_logs",
    "shower_model",
    "student_cells",
    "train",
    "trained_cells",
    "trained_energies",
    "whole",
]
