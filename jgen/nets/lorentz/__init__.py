"""Networks of four-momenta that commute with Lorentz transformations."""
