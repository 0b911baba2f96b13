"""The study of Boltzmann generators."""
