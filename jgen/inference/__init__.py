"""What is concluded with a trained model: importance weights, Markov chains and unfolding."""

from jgen.inference.mcmc import (
    AutocorrelationTime,
    Chains,
    IndependenceChain,
    autocorrelation_time,
    chain_mean,
    hamiltonian,
    independence_metropolis,
    random_walk,
)
from jgen.inference.reweighting import (
    Weighted,
    bin_probabilities,
    draw_weighted,
    effective_sample_size,
    forward_effective_sample_size,
    free_energy_difference,
    log_partition,
    log_weights,
    uncovered_fraction,
    weighted_mean,
)
from jgen.inference.unfolding import (
    Simulation,
    Unfolded,
    UnfoldingConfig,
    iterated_generation,
    omnifold,
)

__all__ = [
    "AutocorrelationTime",
    "Chains",
    "IndependenceChain",
    "Simulation",
    "Unfolded",
    "UnfoldingConfig",
    "Weighted",
    "autocorrelation_time",
    "bin_probabilities",
    "chain_mean",
    "draw_weighted",
    "effective_sample_size",
    "forward_effective_sample_size",
    "free_energy_difference",
    "hamiltonian",
    "independence_metropolis",
    "iterated_generation",
    "log_partition",
    "log_weights",
    "omnifold",
    "random_walk",
    "uncovered_fraction",
    "weighted_mean",
]
