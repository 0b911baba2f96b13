"""Families of generative models, one a file."""

from jgen.models.autoregressive_flow_matching import autoregressive_flow_matching
from jgen.models.flow_matching import flow_matching

__all__ = ["autoregressive_flow_matching", "flow_matching"]
