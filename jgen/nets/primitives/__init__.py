"""Operations of events that XLA does not run well on a CPU as they come out of `jax.vmap`."""
