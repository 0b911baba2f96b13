"""Moved to experiments.showers.presets."""

from experiments.showers.presets import DEFAULT, SMOKE, SMOKE_LATENT  # noqa: F401
