"""Fixed-step integrators of velocity fields: (velocity, x0) -> x1."""

from jgen.solvers.bespoke import (
    NonStationary,
    Reference,
    global_truncation_error,
    global_truncation_errors,
    load_solver,
    local_truncation_error,
    references,
    save_solver,
    train_bespoke,
)
from jgen.solvers.likelihood import log_likelihood, normal_log_prob, velocity_and_divergence
from jgen.solvers.runge_kutta import (
    EULER,
    HEUN,
    KUTTA38,
    MIDPOINT,
    RK4,
    TABLEAUS,
    RungeKutta,
    Tableau,
    runge_kutta,
    trajectory,
)
from jgen.solvers.sde import EulerMaruyama

__all__ = [
    "EULER",
    "HEUN",
    "KUTTA38",
    "MIDPOINT",
    "RK4",
    "TABLEAUS",
    "EulerMaruyama",
    "NonStationary",
    "Reference",
    "RungeKutta",
    "Tableau",
    "global_truncation_error",
    "global_truncation_errors",
    "load_solver",
    "local_truncation_error",
    "log_likelihood",
    "normal_log_prob",
    "references",
    "runge_kutta",
    "save_solver",
    "train_bespoke",
    "trajectory",
    "velocity_and_divergence",
]
