"""Training on an energy instead of data: Boltzmann generators and lattice fields."""
