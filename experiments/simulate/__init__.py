"""Simulations: Monte Carlo to train on, made on the machine at hand."""
