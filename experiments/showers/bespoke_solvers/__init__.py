"""The study of bespoke solvers."""
