"""Invertible maps with log-determinants."""

from jgen.bijectors.elementwise import Bijector, compose, log, logit, standardize

__all__ = ["Bijector", "compose", "log", "logit", "standardize"]
