"""L2LFlows and CaloFlow: showers layer by layer, by flows that train at once (2302.11594).

made = layer_flows.parts(EnergyConfig(), CellsConfig(), fit_preprocessing(showers, geometry))
model = layer_flows.shower_model(made, preprocessing)
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

__all__ = [
    "CellsConfig",
    "EnergyConfig",
    "LayerPreprocessing",
    "Parts",
    "cells_condition",
    "cells_flow",
    "energies_flow",
    "fit_preprocessing",
    "layer_batch",
    "layer_model",
    "layers_and_cells",
    "logs_of_parts",
    "parts",
    "parts_of_logs",
    "shower_model",
    "student_cells",
    "trained_cells",
    "trained_energies",
    "whole",
]
