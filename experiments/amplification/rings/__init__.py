"""Gaussian rings: networks of known data, and what their events are worth."""
