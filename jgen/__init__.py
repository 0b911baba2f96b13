"""jgen: generative networks for particle physics as pure functions in JAX.

Importing this package sets no flag, starts no backend and imports no plotting.
"""
