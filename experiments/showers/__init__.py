"""Calorimeter showers: CaloDREAM, its solvers and uncertainties, and other generators."""
