"""Trained models as files that others run: StableHLO of `jax.export`, and ONNX by `jax2onnx`."""

from jgen.export.onnx_files import export_onnx, flat_sampler, noise_numbers, write_onnx
from jgen.export.stablehlo import ExportedModel, export_model, load_exported

__all__ = [
    "ExportedModel",
    "export_model",
    "export_onnx",
    "flat_sampler",
    "load_exported",
    "noise_numbers",
    "write_onnx",
]
